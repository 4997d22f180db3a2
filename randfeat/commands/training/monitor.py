"""Monitor of a training's steps: progress bar, time, CSV files, the page, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from randfeat.pretrain import Stopped
from randfeat.pretrain.config import OptimConfig
from randfeat.utils import atomic, distributed, drawing, progress

from . import page
from .clock import TrainingTime

TRAIN, VALIDATION = "train.csv", "validation.csv"
NOT_OPENED = object()
PAGE_EVERY = 30.0  # seconds between two pages of a run, at least; the last one is written when it ends


class TrainingStep(Protocol):
    """Numbers of one step of a training. images: of all processes together."""

    @property
    def step(self) -> int: ...

    @property
    def loss(self) -> float: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def gradient_norm(self) -> float: ...

    @property
    def images(self) -> int: ...

    @property
    def seconds(self) -> float: ...


StepT = TypeVar("StepT", bound=TrainingStep)


class StepMonitor(AbstractContextManager[Any], ABC, Generic[StepT]):
    """Monitor of steps. The first process writes.

    title: of the progress bar.
    """

    title = "training"

    def __init__(
        self, directory: Path, config: OptimConfig, every: int, device: torch.device, validation: float | None
    ) -> None:
        """directory: of the run. every: steps between lines of train.csv. validation: its cost, in steps; None where no
        image is held out.
        """
        self.directory, self.config, self.every, self.device = directory, config, every, device
        self.steps, self.validation = config.steps, validation
        self.first = distributed.rank() == 0
        self.window: list[StepT] = []
        self.files: dict[str, Table] = {}
        self._board: Any = NOT_OPENED
        self.bar: Any = None
        self.time: TrainingTime | None = None
        self.done: int | None = None  # the last step, of this process
        self._written: float | None = None  # when the page was

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        if self._board not in (None, NOT_OPENED):
            self._board.close()
        if not self.first or (kind is not None and self.done is None):
            return
        if kind is None:
            self.write_page(self._ended())
        else:
            how = "stopped" if issubclass(kind, (Stopped, KeyboardInterrupt)) else "ended by an error"
            with suppress(OSError):  # the disk may be full, which is what is told then
                self.write_page(f"{how} after {self._so_far()}; the same command goes on from the last checkpoint")

    def _so_far(self) -> str:
        return f"{self.done or 0:,} of {self.steps:,} steps"

    def _ended(self) -> str:
        """Return how far a training is that is over, perhaps since an earlier call."""
        done = self.done or int(page.read(self.directory / TRAIN).get("step", [0])[-1])
        if done < self.steps:
            return f"ended after {done:,} of {self.steps:,} steps, as the held-out loss did not fall any more"
        return f"trained for {self.steps:,} steps"

    @property
    def board(self) -> Any:
        """TensorBoard's writer, None where it is not installed; opened when it is first used, within a run that is on
        the disk by then.
        """
        if self._board is NOT_OPENED:
            self._board = _board(self.directory)
        return self._board

    @abstractmethod
    def row(self, window: Sequence[StepT], speed: float) -> dict[str, float]:
        """Return the columns of train.csv for the steps since its last line. speed: images a second."""

    @abstractmethod
    def summary(self, row: Mapping[str, float]) -> str:
        """Return what the progress bar shows of a row of train.csv."""

    @abstractmethod
    def write_page(self, state: str) -> Path:
        """Write the page of the run and return its path. state: how far the run is."""

    def cheaper(self) -> str:
        """Return what would make the training cheaper, "" where nothing is known."""
        return ""

    def on_step(self, step: StepT) -> None:
        """Advance the bar, tell the time once, and every `every` steps write a row of train.csv."""
        if not self.first:
            return
        if self.bar is None or self.time is None:
            self.bar = progress.bar(self.steps, self.title, "step", done=step.step - 1)
            self.time = TrainingTime(self.config, self.validation, self.cheaper, step.step - 1)
        self.time.on_step(step.step)
        self.done = step.step
        self.bar.update()
        self.window.append(step)
        if step.step % self.every and step.step < self.steps:
            return
        seconds = sum(one.seconds for one in self.window)
        row = self.row(self.window, sum(one.images for one in self.window) / max(seconds, 1e-9))
        self.window.clear()
        self.bar.set_postfix_str(self.summary(row), refresh=False)
        self.write(TRAIN, step.step, row)
        if self.validation is None and step.step % self.config.eval_every == 0:
            self.refresh_page()

    def refresh_page(self) -> None:
        """Write the page of a run that goes on, unless one was written just now."""
        now = time.monotonic()
        if self._written is None or now - self._written >= PAGE_EVERY:
            self.write_page(f"training, {self._so_far()} so far")
            self._written = time.monotonic()

    def write(self, name: str, step: int, row: Mapping[str, float], board: bool = True) -> None:
        """Add a row to the CSV file of this name and, with `board`, to TensorBoard."""
        if name not in self.files:
            self.files[name] = Table(self.directory / name, step)
        self.files[name].add(step, row)
        if board and self.board is not None:
            for key, value in row.items():
                self.board.add_scalar(f"{name.removesuffix('.csv')}/{key}", value, step)

    def write_sheet(self, folder: str, step: int, picture: Image.Image) -> None:
        """Write a picture of this step into a folder of the run, and to TensorBoard."""
        (self.directory / folder).mkdir(exist_ok=True)
        atomic.write_bytes(self.directory / folder / f"step-{step:08}.png", drawing.png(picture))
        if self.board is not None:
            self.board.add_image(folder, np.asarray(picture), step, dataformats="HWC")


class Table:
    """CSV file with a row for each step; of an earlier run it keeps the rows before the first step of this one."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        rows: list[list[str]] = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
        kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) < step]
        self.header = rows[0] if rows and kept else None
        content = "".join(",".join(row) + "\n" for row in ([self.header, *kept] if self.header else []))
        atomic.write_bytes(path, content.encode())

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Append a row; the first one says the columns."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            if self.header is None:
                self.header = ["step", *row]
                rows.writerow(self.header)
            rows.writerow([step, *(f"{row[name]:.6g}" for name in self.header[1:])])


def memory(device: torch.device) -> float:
    """Return the peak of memory so far in GiB: a GPU's own, else main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def _board(directory: Path) -> Any:
    """Return TensorBoard's writer, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory / "tensorboard"))
