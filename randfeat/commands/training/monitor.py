"""Monitor of a training's steps: progress bar, CSV files, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from randfeat.utils import atomic, distributed, drawing, progress

TRAIN, VALIDATION = "train.csv", "validation.csv"
NOT_OPENED = object()


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

    def __init__(self, directory: Path, steps: int, every: int, device: torch.device) -> None:
        """directory: of the run. steps: of the whole training. every: steps between lines of train.csv."""
        self.directory, self.steps, self.every, self.device = directory, steps, every, device
        self.first = distributed.rank() == 0
        self.window: list[StepT] = []
        self.files: dict[str, Table] = {}
        self._board: Any = NOT_OPENED
        self.bar: Any = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        if self._board not in (None, NOT_OPENED):
            self._board.close()

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

    def on_step(self, step: StepT) -> None:
        """Advance the bar, and every `every` steps write a row of train.csv."""
        if not self.first:
            return
        if self.bar is None:
            self.bar = progress.bar(self.steps, self.title, "step", done=step.step - 1)
        self.bar.update()
        self.window.append(step)
        if step.step % self.every and step.step < self.steps:
            return
        seconds = sum(one.seconds for one in self.window)
        row = self.row(self.window, sum(one.images for one in self.window) / max(seconds, 1e-9))
        self.window.clear()
        self.bar.set_postfix_str(self.summary(row), refresh=False)
        self.write(TRAIN, step.step, row)

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
