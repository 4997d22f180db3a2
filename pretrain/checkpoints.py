"""Checkpoints of a run: the directory from which training resumes as if it had never been stopped.

    run.json            settings that decide the weights: recipe, model, data
    step-00000300/      model, optimiser and, with an EMA, average as .safetensors, and state.json
    lock                held by the process that trains

A step's directory gets its name once the disk has all of it, so a kill leaves none half written; the hashes in
state.json reveal later damage. Tensors are stored unsharded, whatever the number of processes.
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
from randfeat.data.states import INPUTS
from randfeat.utils import atomic, distributed
from randfeat.utils.resume import check_same_settings, exclusive_lock

from .optim import EMA
from .parallel import all_reduce, distribute_like, full_tensor

RUN, STATE, LOCK = "run.json", "state.json", "lock"
FORMAT, STATE_FORMAT = "run of randfeat, version 1", "step of a run of randfeat, version 1"
TOKENS = "tokens"  # a token store made for the run
HELD_OUT_INPUTS = f"held-out-{INPUTS}"  # beside INPUTS, of a run on images
# of a run that was killed while it began, or whose tokenizer or tokens are ready
_LEFTOVERS = {LOCK, f".{RUN}.part", TOKENS, weights.TOKENIZER, INPUTS, HELD_OUT_INPUTS}
Parts = dict[str, dict[str, Tensor]]


class Checkpoints:
    """Writer and reader of the checkpoints of a run.

    All processes call the same methods; the first one writes, and all read the same files.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], keep: int) -> None:
        """Begin a run, or continue one of the same settings.

        settings: whatever decides the weights, as JSON. keep: number of last checkpoints to keep. Raises a ValueError
        that names a setting that differs, and a FileExistsError where the directory holds something else.
        """
        self.directory, self.keep = directory, keep
        now: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **settings}))
        before = atomic.read_json(directory / RUN, FORMAT)
        if before is not None:
            check_same_settings(directory, before, now, "a run")
        check_free(directory)
        distributed.barrier()
        if distributed.rank() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            if before is None:
                atomic.write_json(directory / RUN, now)
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory's lock, and finish writing at the end. Raises a RuntimeError if another process has it."""
        busy = (
            f"another process is training in {self.directory}: wait until it has ended, or choose another "
            "directory (--out)"
        )
        first = distributed.rank() == 0
        with exclusive_lock(self.directory / LOCK, busy) if first else nullcontext():
            if first:
                for leftover in self.directory.glob(".step-*"):  # of a write that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
            distributed.barrier()
            with ThreadPoolExecutor(1) as self._writer:
                yield
                self.wait()

    def save(self, step: int, parts: Parts, state: Mapping[str, Any], best: int) -> None:
        """Write a checkpoint in a thread while training goes on.

        It begins when the last write has ended, and raises that one's error. best: the step to keep beside the last
        ones. Raises an OSError where a checkpoint could not be written.
        """
        self.wait()
        if distributed.rank() == 0 and self._writer is not None:
            self._writing = self._writer.submit(self._write, step, parts, state, best)

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def steps(self) -> list[int]:
        """Return the saved steps in ascending order."""
        return sorted(int(path.name[5:]) for path in self.directory.glob("step-*") if path.name[5:].isdigit())

    def newest(self) -> tuple[Parts, dict[str, Any]] | None:
        """Return tensors and state of the last intact step, or None. Damaged later ones are removed."""
        step = int(all_reduce(torch.tensor(self._newest_intact() if distributed.rank() == 0 else 0)))
        return self.read(step) if step else None

    def read(self, step: int) -> tuple[Parts, dict[str, Any]]:
        """Return tensors and state of a step."""
        state = self._state(step)
        parts = {name: weights.read_safetensors(self.path(step) / name) for name in state["files"]}
        return {name.removesuffix(".safetensors"): tensors for name, tensors in parts.items()}, state

    def path(self, step: int) -> Path:
        """Return the directory of a step."""
        return self.directory / f"step-{step:08}"

    def _newest_intact(self) -> int:
        for step in reversed(self.steps()):
            try:
                for name, digest in self._state(step)["files"].items():
                    if atomic.sha256(self.path(step) / name) != digest:
                        raise ValueError(f"{name} has changed since it was written")
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


def check_free(directory: Path) -> None:
    """Raise a FileExistsError where a directory, if there is one, holds anything but a run."""
    if not directory.exists() or (directory / RUN).exists():
        return
    if not directory.is_dir() or not {path.name for path in directory.iterdir()} <= _LEFTOVERS:
        raise FileExistsError(f"{directory} holds something else: choose another directory (--out)")


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None) -> Parts:
    """Return an unsharded copy, in main memory, of all that a step changes; empty in all processes but the first."""
    parts: Parts = {"model": {}, "optimiser": {}}
    if ema and ema.values:
        parts["average"] = {}
    for i, (name, parameter) in enumerate(model.named_parameters()):
        _keep(parts["model"], name, parameter)
        for key, value in optimizer.state[parameter].items():
            _keep(parts["optimiser"], f"{name}.{key}", value)
        if ema and ema.values:
            _keep(parts["average"], name, ema.values[i])
    if buffers := dict(model.named_buffers()):
        parts["buffers"] = {}
        for name, buffer in buffers.items():
            _keep(parts["buffers"], name, buffer)
    return parts


def _keep(part: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    value = full_tensor(tensor.detach())
    if distributed.rank() == 0:
        part[name] = value.to("cpu", copy=True).contiguous()


@torch.no_grad()
def restore(parts: Parts, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None) -> None:
    """Put a snapshot back, also in another number of processes."""
    fill(model, parts["model"])
    for name, buffer in model.named_buffers():
        buffer.copy_(parts["buffers"][name])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            key.rpartition(".")[2]: value.to(parameter.device, copy=True)
            if value.ndim == 0  # the optimizer's count of steps
            else distribute_like(value, parameter)
            for key, value in parts["optimiser"].items()
            if key.rpartition(".")[0] == name
        }
    if ema and "average" in parts:
        ema.values = [distribute_like(parts["average"][name], p) for name, p in model.named_parameters()]


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a model."""
    for name, parameter in model.named_parameters():
        parameter.copy_(distribute_like(tensors[name], parameter))
