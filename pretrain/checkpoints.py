"""The directory of a run, from which it goes on as if it had never been stopped.

    run.json            what decides the weights: recipe, model, data
    step-00000300/      model, optimiser and, with one, average as .safetensors, and state.json
    lock                held by the process that trains

A step's directory takes its name when the disk has all of it, so a kill leaves none half written; the hashes in
state.json find what was damaged later. Tensors are those of one process, whatever number of them trained.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from randfeat import weights
from randfeat.utils import atomic, distributed
from randfeat.utils.resume import check_same_settings, exclusive_lock

from .optim import EMA
from .parallel import shared_like, total, whole

RUN, STATE, LOCK = "run.json", "state.json", "lock"
FORMAT, STATE_FORMAT = "run of randfeat, version 1", "step of a run of randfeat, version 1"
Parts = dict[str, dict[str, Tensor]]


class Checkpoints:
    """Saves steps and finds the newest whole one. All processes call; the first one reads and writes files, and all
    read the same ones.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], keep: int) -> None:
        """Begin a run, or goes on with that of the same settings; a ValueError names the one that differs, and a
        FileExistsError refuses a directory of something else.
        """
        self.directory, self.keep = directory, keep
        now: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **settings}))
        before = atomic.read_json(directory / RUN, FORMAT)
        if before is not None:
            check_same_settings(directory, before, now, "a run")
        elif directory.exists() and not (directory.is_dir() and {p.name for p in directory.iterdir()} <= _LEFT):
            raise FileExistsError(f"{directory} holds something else: choose another directory (--out)")
        distributed.barrier()
        if distributed.rank() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            if before is None:
                atomic.write_json(directory / RUN, now)
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other run trains there, and at its end all is written. A RuntimeError if one does."""
        busy = (
            f"another process is training in {self.directory}: wait until it has ended, or choose another "
            "directory (--out)"
        )
        first = distributed.rank() == 0
        with exclusive_lock(self.directory / LOCK, busy) if first else nullcontext():
            if first:
                for left in self.directory.glob(".step-*"):  # of a write that was killed
                    shutil.rmtree(left, ignore_errors=True)
            distributed.barrier()
            with ThreadPoolExecutor(1) as self._writer:
                yield
                self.wait()

    def save(self, step: int, parts: Parts, state: Mapping[str, Any], best: int) -> None:
        """Write a step in a thread while training goes on, after the last write has ended; its error is raised here.

        best: the step to keep beside the last ones. An OSError says what could not be written.
        """
        self.wait()
        if distributed.rank() == 0 and self._writer is not None:
            self._writing = self._writer.submit(self._write, step, parts, state, best)

    def wait(self) -> None:
        """Until what was saved is on the disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def steps(self) -> list[int]:
        """Those that are saved, in order."""
        return sorted(int(path.name[5:]) for path in self.directory.glob("step-*") if path.name[5:].isdigit())

    def newest(self) -> tuple[Parts, dict[str, Any]] | None:
        """Tensors and state of the last step that is as it was written, or None. Later ones are removed."""
        step = int(total(torch.tensor(self._newest_whole() if distributed.rank() == 0 else 0)))
        return self.read(step) if step else None

    def read(self, step: int) -> tuple[Parts, dict[str, Any]]:
        """Tensors and state of a step."""
        state = self._state(step)
        parts = {name: weights.read_safetensors(self.path(step) / name) for name in state["files"]}
        return {name.removesuffix(".safetensors"): tensors for name, tensors in parts.items()}, state

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08}"

    def _newest_whole(self) -> int:
        for step in reversed(self.steps()):
            try:
                for name, digest in self._state(step)["files"].items():
                    if atomic.sha256(self.path(step) / name) != digest:
                        raise ValueError(f"{name} is not as it was written")
                return step
            except (OSError, ValueError) as error:
                print(f"{self.path(step)} is damaged and removed: {error}", file=sys.stderr)
                shutil.rmtree(self.path(step), ignore_errors=True)
        return 0

    def _state(self, step: int) -> dict[str, Any]:
        state = atomic.read_json(self.path(step) / STATE, STATE_FORMAT)
        if state is None:
            raise FileNotFoundError(f"{self.path(step)} has no {STATE}")
        return state

    def _write(self, step: int, parts: Parts, state: Mapping[str, Any], best: int) -> None:
        saved = [other for other in self.steps() if other != step]
        try:
            with atomic.replace_directory(self.path(step), lambda _: True) as made:
                digests = {}
                for name, tensors in parts.items():
                    save_file(tensors, made / f"{name}.safetensors")
                    digests[f"{name}.safetensors"] = atomic.sha256(made / f"{name}.safetensors")
                atomic.write_json(made / STATE, {"format": STATE_FORMAT, **state, "files": digests})
        except (OSError, SafetensorError) as error:
            last = f"which goes on from step {saved[-1]}" if saved else "which starts anew"
            raise OSError(
                f"step {step} could not be saved in {self.directory} ({error}): make room and run the same command "
                f"again, {last}"
            ) from None
        for other in saved[: -self.keep + 1 or None]:
            if other != best:
                shutil.rmtree(self.path(other), ignore_errors=True)


TOKENS = "tokens"  # a token store that was made for the run
_LEFT = {LOCK, f".{RUN}.part", TOKENS}  # of a begin that was killed, or that was prepared


def snapshot(model: nn.Module, optimiser: torch.optim.Optimizer, average: EMA | None) -> Parts:
    """Copy in main memory of all that a step changes, whole; in processes but the first, nothing."""
    parts: Parts = {"model": {}, "optimiser": {}}
    if average and average.values:
        parts["average"] = {}
    for i, (name, parameter) in enumerate(model.named_parameters()):
        _keep(parts["model"], name, parameter)
        for key, value in optimiser.state[parameter].items():
            _keep(parts["optimiser"], f"{name}.{key}", value)
        if average and average.values:
            _keep(parts["average"], name, average.values[i])
    return parts


def _keep(part: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    value = whole(tensor.detach())
    if distributed.rank() == 0:
        part[name] = value.to("cpu", copy=True).contiguous()


@torch.no_grad()
def restore(parts: Parts, model: nn.Module, optimiser: torch.optim.Optimizer, average: EMA | None) -> None:
    """The inverse of `snapshot`, also in another number of processes."""
    fill(model, parts["model"])
    for name, parameter in model.named_parameters():
        optimiser.state[parameter] = {
            key.rpartition(".")[2]: value.to(parameter.device, copy=True)
            if value.ndim == 0  # its count of steps
            else shared_like(value, parameter)
            for key, value in parts["optimiser"].items()
            if key.rpartition(".")[0] == name
        }
    if average and "average" in parts:
        average.values = [shared_like(parts["average"][name], p) for name, p in model.named_parameters()]


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model these weights."""
    for name, parameter in model.named_parameters():
        parameter.copy_(shared_like(tensors[name], parameter))
