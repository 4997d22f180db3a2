"""The training loop, in one process or many, from the first step or from a checkpoint, of any task.

A step's batch is a pure function of its number (see `data`), what is drawn in the network runs under an RNG seeded for
step and piece and restored afterwards, and nothing else is random: a resumed run comes to the same weights as one that
was never stopped.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from randfeat.utils import distributed, rng
from randfeat.utils.allocation import reused_memory

from .checkpoints import Checkpoints, Parts, fill, restore, snapshot
from .config import OptimConfig, RuntimeConfig
from .data import Share
from .optim import EMA, learning_rate, make_optimizer, update
from .parallel import accumulating, all_reduce, to_local, wrap
from .signals import CODES, Signals, Stopped


@dataclass
class History:
    """Losses of a training, as lists of (step, loss); of a generator in nats per token.

    skipped: the steps whose gradients were not finite. kept_step: the step whose weights are kept. seconds: spent in
    training and validation.
    """

    train: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    kept_step: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """Validation loss of `kept_step`, infinite where there is none."""
        return dict(self.validation).get(self.kept_step, math.inf)


@dataclass(frozen=True)
class Step:
    """Argument of `on_step`.

    loss: of a generator in nats per token. gradient_norm: before clipping; not finite for a skipped step. terms: parts
    of the loss, where the task tells them.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images: int
    seconds: float
    terms: dict[str, float] = field(default_factory=dict)


class Piece(Protocol):
    """Images that go through the network at once. piece: its number in the step. weight: 1, or 0 for a repeated one."""

    @property
    def piece(self) -> int: ...

    @property
    def weight(self) -> float: ...

    @property
    def shown(self) -> tuple[Tensor, ...]: ...

    def to(self, device: torch.device) -> Piece: ...


class Steps(Protocol):
    """Batches of all steps, see `data.Batches`."""

    def images(self, step: int) -> int: ...

    def ahead(self, first: int, pin: bool = False) -> Generator[list[Any], None, None]: ...


class Task(ABC):
    """A network to train, with its loss, its batches and its validation.

    model: trained in place; its `state_dict` is what checkpoints keep. units: parts of an image over which the loss is
    a mean, such as tokens. terms: names of the parts of the loss that the objective tells.
    """

    model: nn.Module
    config: OptimConfig
    units: int = 1
    terms: tuple[str, ...] = ()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what decides the weights, as JSON, by which a run is recognised when it is resumed."""

    @abstractmethod
    def objective(self, in_bfloat16: bool) -> nn.Module:
        """Return the module whose forward returns the summed loss of a piece, (), and details.

        Details of a task with `terms` are their sums over the images of the piece: (terms,).
        """

    @abstractmethod
    def steps(self, share: Share) -> Steps:
        """Return the batches of each step."""

    @property
    @abstractmethod
    def validates(self) -> bool:
        """Return whether images are held out."""

    @abstractmethod
    def measure(self, objective: nn.Module, share: Share, step: int) -> tuple[float, Any]:
        """Return the loss on held-out images, and what `on_validation` is told.

        Called in every process, with the weights to validate and in evaluation mode. share: of the held-out images.
        """

    def context(self, runtime: RuntimeConfig) -> AbstractContextManager[Any]:
        """Return the context in which the task is trained."""
        return nullcontext()

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the model."""
        return make_optimizer(self.model, self.config)

    @property
    def clipped(self) -> Sequence[nn.Module]:
        """Return the modules whose gradients are clipped, each by its own norm."""
        return [self.model]

    def begin(self) -> None:  # noqa: B027  most tasks have nothing to do
        """Prepare fresh weights before the first step; not called where a run goes on."""

    def finish_step(self, step: int, optimizer: torch.optim.Optimizer, ema: EMA | None) -> None:  # noqa: B027
        """Change what gradients do not, after step 1, 2, ..."""

    def skip_step(self) -> None:  # noqa: B027
        """Forget what was seen in a step whose gradients were not finite, in place of `finish_step`."""


def train_task(
    task: Task,
    runtime: RuntimeConfig | None = None,
    *,
    directory: Path | None = None,
    settings: dict[str, Any] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Any], None] | None = None,
    on_best: Callable[[History], None] | None = None,
) -> History:
    """Train a task's model in place and leave it in evaluation mode, with the weights of the best validation.

    directory: of the checkpoints. Training goes on from the newest of them if it has the same `settings` (JSON, the
        origin of model and data) and the same of the task; all processes must see the same files. TERM, INT and USR1
        are then handled between two steps: the run is saved and `Stopped` raised.
    on_step, on_validation, on_best: called in every process; the second with what the task's `measure` tells, the third
        with the history so far where a validation is the best one, while the model has the validated weights.

    Raises an OSError where the disk is full; checkpoints saved before are intact.
    """
    runtime = runtime or RuntimeConfig()
    with ExitStack() as stack:
        checkpoints = None
        if directory is not None:
            everything = {"settings": settings or {}, **task.settings()}
            checkpoints = Checkpoints(directory, everything, runtime.keep)
            stack.enter_context(checkpoints.locked())
        signals = stack.enter_context(Signals(checkpoints is not None))
        stack.enter_context(task.context(runtime))
        stack.enter_context(reused_memory(next(task.model.parameters()).device))
        return _Loop(task, runtime, checkpoints).run(signals, on_step, on_validation, on_best)


class _Loop:
    """State of a training and its steps."""

    def __init__(self, task: Task, runtime: RuntimeConfig, checkpoints: Checkpoints | None) -> None:
        self.task, self.model, self.config, self.runtime = task, task.model, task.config, runtime
        self.device = next(task.model.parameters()).device
        self.checkpoints = checkpoints
        self.world, self.rank = distributed.world_size(), distributed.rank()
        self.steps = task.steps(self._share())
        saved = checkpoints.newest() if checkpoints else None
        if saved is None:
            task.begin()
        self.objective = wrap(task.objective(runtime.precision == "bfloat16"), runtime)
        self.optimizer = task.optimizer()
        self.ema = EMA(self.model, self.config.ema) if self.config.ema else None
        self.history, self.step = History(), 0
        self.kept: list[Tensor] = []  # the best weights, where no checkpoint holds them
        if saved is not None:
            self._restore(*saved)

    def _share(self) -> Share:
        return Share(self.runtime.micro_batch, self.rank, self.world)

    def run(
        self,
        signals: Signals,
        on_step: Callable[[Step], None] | None,
        on_validation: Callable[[Any], None] | None,
        on_best: Callable[[History], None] | None,
    ) -> History:
        self.model.train()
        began = time.perf_counter() - self.history.seconds
        ahead = self.steps.ahead(self.step, pin=self.device.type == "cuda")
        while not self._is_over():
            told, caught = self._take_step(next(ahead), signals.caught)
            if on_step:
                on_step(told)
            is_best = self._validate(on_validation, on_best)
            self.history.seconds = time.perf_counter() - began
            if caught or is_best or self._is_over() or self.step % self.runtime.save_every == 0:
                self._save()
            if caught and not self._is_over():
                if self.checkpoints:
                    self.checkpoints.wait()
                raise Stopped(caught, self.step)
        ahead.close()
        self._keep_best()
        self.model.eval()
        return self.history

    def _is_over(self) -> bool:
        config = self.config
        tried = config.patience and self.step - self.history.kept_step >= config.patience * config.eval_every
        return self.step >= config.steps or bool(tried)

    def _take_step(self, pieces: list[Piece], caught: int) -> tuple[Step, int]:
        """Take the next step; return its record, and the signal that a process has caught, or 0."""
        began, images = time.perf_counter(), self.steps.images(self.step)
        units, terms = images * self.task.units, torch.zeros(len(self.task.terms), dtype=torch.float64)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(pieces, 1):
            with accumulating(self.objective, number == len(pieces)):
                loss, details = self._loss(batch.to(self.device))
                value = batch.weight * loss
                (value * self.world / units).backward()  # gradients are averaged over processes
            total += value.detach()
            if self.task.terms:
                terms += batch.weight * details.detach().cpu().double()
        norm = update(self.optimizer, self.task.clipped, self.step, self.config)
        sent = [float(total), *(caught == number for number in CODES)]
        found = all_reduce(torch.cat([torch.tensor(sent, dtype=torch.float64), terms]))
        rate, self.step = learning_rate(self.step, self.config), self.step + 1
        mean = float(found[0]) / units
        if math.isfinite(norm):
            self.history.train.append((self.step, mean))
            if self.ema:
                self.ema.update()
            self.task.finish_step(self.step, self.optimizer, self.ema)
        else:
            self.task.skip_step()
            self._skip()
        if not self.task.validates:
            self.history.kept_step = self.step
        parts = dict(zip(self.task.terms, (found[1 + len(CODES) :] / images).tolist(), strict=True))
        told = Step(self.step, mean, rate, norm, images, time.perf_counter() - began, parts)
        return told, next((int(number) for number, count in zip(CODES, found[1:], strict=False) if count), 0)

    def _loss(self, batch: Piece) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a piece, under its own RNG, and its details."""
        with seeded(int(rng.derive(self.config.seed, self.step + 1, 3)) + batch.piece, self.device):
            return self.objective(*batch.shown)

    def _skip(self) -> None:
        """Record a step that changed nothing; raise a RuntimeError after too many of them in a row."""
        skipped, most = self.history.skipped, self.config.max_not_finite
        skipped.append(self.step)
        if skipped[-most:] == list(range(self.step - most + 1, self.step + 1)):
            raise RuntimeError(
                f"gradients were not finite in {most} steps in a row, the last of them {self.step}: lower "
                "learning_rate, or check the data"
            )

    def _validate(self, on_validation: Callable[[Any], None] | None, on_best: Callable[[History], None] | None) -> bool:
        """Validate if this step is due; keep the weights if they are the best so far, and return whether they are."""
        if not self.task.validates or (self.step % self.config.eval_every and self.step < self.config.steps):
            return False
        with self.ema.in_place() if self.ema else nullcontext(), evaluating(self.model):
            loss, told = self.task.measure(self.objective, self._share(), self.step)
            is_best = loss < self.history.best
            self.history.validation.append((self.step, loss))
            if is_best:
                self.history.kept_step = self.step
                if self.checkpoints is None:
                    self.kept = [x.clone() for x in to_local(self.model.parameters())]
            if on_validation:
                on_validation(told)
            if is_best and on_best:
                on_best(self.history)
        return is_best

    def _save(self) -> None:
        if self.checkpoints:
            parts = snapshot(self.model, self.optimizer, self.ema)
            state = {"step": self.step, "history": asdict(self.history), "versions": {"torch": torch.__version__}}
            self.checkpoints.save(self.step, parts, state, self.history.kept_step)

    def _restore(self, parts: Parts, state: dict[str, Any]) -> None:
        restore(parts, self.model, self.optimizer, self.ema)
        self.step, self.history = state["step"], History(**state["history"])
        for curve in (self.history.train, self.history.validation):
            curve[:] = [(step, loss) for step, loss in curve]  # JSON has no tuples

    def _keep_best(self) -> None:
        """Give the model the weights of `kept_step`, or the last ones where no step was kept."""
        if self.checkpoints:
            self.checkpoints.wait()
            distributed.barrier()
        if self.history.kept_step not in (0, self.step) and self.checkpoints:
            fill(self.model, validated_weights(self.checkpoints.read(self.history.kept_step)[0]))
        else:
            weights = to_local(self.model.parameters())
            averaged = to_local(self.ema.values) if self.ema else []
            torch._foreach_copy_(weights, self.kept or averaged or weights)


def validated_weights(parts: Parts) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that are validated and kept: the EMA, where there is one."""
    return parts.get("average") or parts["model"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode in this block, and the former mode after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers inside the context, and restore their state after it."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
