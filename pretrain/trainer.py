"""The training loop, in one process or many, from the first step or from a checkpoint.

A step's batch is a pure function of its number (see `data`), dropout runs under an RNG seeded for step and piece and
restored afterwards, and nothing else is random: a resumed run comes to the same weights as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randfeat.models import Generator
from randfeat.utils import distributed, rng

from .checkpoints import Checkpoints, Parts, fill, restore, snapshot
from .config import RuntimeConfig, TrainingConfig
from .data import Batch, Batches, Share, Tokens
from .objective import Objective
from .optim import EMA, learning_rate, make_optimizer, update
from .parallel import accumulating, all_reduce, configured_blocks, to_local, wrap
from .signals import CODES, Signals, Stopped

VALIDATION_ORDERS = 4  # orders in which validation reads each image
VALIDATION_BATCH = 128  # images, where `micro_batch` says nothing else


@dataclass
class History:
    """Losses of a training, as lists of (step, nats per token).

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
    """Argument of `on_step`. loss: nats per token. gradient_norm: before clipping; not finite for a skipped step."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images: int
    seconds: float


@dataclass(frozen=True)
class Validation:
    """Argument of `on_validation`, called while the model has the validated weights and is in evaluation mode.

    loss: nats per token. by_place: (N,), nats at each place in the order. measure: returns by_place for another order
    mode; every process has to call it.
    """

    step: int
    loss: float
    by_place: Tensor
    model: Generator
    measure: Callable[[str], Tensor]


@torch.no_grad()
def losses_by_place(
    objective: nn.Module,
    model: Generator,
    tokens: Tokens,
    labels: Tensor | None,
    order: str | None = None,
    share: Share | None = None,
    paired: Tokens | None = None,
) -> Tensor:
    """Return the loss at each place in the order, in nats, as in training but with all labels: (N,).

    An image has the same orders in each call. objective: `Objective(model)`, perhaps wrapped. order: a mode of the
    model.
    """
    share = share or Share(VALIDATION_BATCH)
    source = Batches(tokens, labels, model, TrainingConfig(order=order, label_dropout=0.0, seed=-1), share, paired)
    nats = torch.zeros(tokens.shape[-1], dtype=torch.float64)
    with model.evaluating():
        for epoch in range(VALIDATION_ORDERS):
            for piece, weight, rows in share.of(torch.arange(len(tokens))):
                batch = source.show(epoch, rows, piece, weight).to(model.device)
                losses = objective(*batch.shown)[1]
                nats += weight * losses.sum(0).cpu().double()
    return all_reduce(nats) / (VALIDATION_ORDERS * len(tokens))


def validate(model: Generator, tokens: Tokens, labels: Tensor | None, config: TrainingConfig) -> float:
    """Return the loss in nats per token, as in training but with all labels."""
    return losses_by_place(Objective(model), model, tokens, labels, config.order).mean().item()


def train(
    model: Generator,
    tokens: Tokens,
    labels: Tensor | None,
    validation: tuple[Tokens, Tensor | None] | None,
    config: TrainingConfig,
    runtime: RuntimeConfig | None = None,
    *,
    objective: Callable[[Generator, bool], nn.Module] = Objective,
    directory: Path | None = None,
    settings: dict[str, Any] | None = None,
    paired: tuple[Tokens, Tokens | None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> History:
    """Train a model in place and leave it in evaluation mode, with the weights of the best validation.

    tokens: (n, N) in raster space, or (n, crops, N). labels: (n,) class indices, or None to train without labels.
    validation: tokens and labels of held-out images, or None to keep the last step's weights.
    objective: makes the module whose forward is minimized (see `Objective`), of the model and of whether matrix
        products are in bfloat16. paired: further tokens for its forward, of training and of held-out images, see
        `Batches`.
    directory: of the checkpoints. Training goes on from the newest of them if it has the same `config` and `settings`
        (JSON, the origin of model and data); all processes must see the same files. TERM, INT and USR1 are then handled
        between two steps: the run is saved and `Stopped` raised.
    on_step, on_validation: called in every process.

    Raises an OSError where the disk is full; checkpoints saved before are intact.
    """
    runtime = runtime or RuntimeConfig()
    with ExitStack() as stack:
        checkpoints = None
        if directory is not None:
            everything = {"settings": settings or {}, "model": model.config, "training": vars(config)}
            checkpoints = Checkpoints(directory, everything, runtime.keep)
            stack.enter_context(checkpoints.locked())
        signals = stack.enter_context(Signals(checkpoints is not None))
        stack.enter_context(configured_blocks(model, runtime))
        loop = _Loop(model, tokens, labels, validation, config, runtime, objective, checkpoints, paired)
        return loop.run(signals, on_step, on_validation)


class _Loop:
    """State of a training and its steps."""

    def __init__(
        self,
        model: Generator,
        tokens: Tokens,
        labels: Tensor | None,
        validation: tuple[Tokens, Tensor | None] | None,
        config: TrainingConfig,
        runtime: RuntimeConfig,
        objective: Callable[[Generator, bool], nn.Module],
        checkpoints: Checkpoints | None,
        paired: tuple[Tokens, Tokens | None] | None = None,
    ) -> None:
        self.validation_paired = paired and paired[1]
        self.model, self.validation, self.config, self.runtime = model, validation, config, runtime
        self.checkpoints = checkpoints
        self.world, self.rank = distributed.world_size(), distributed.rank()
        share = Share(runtime.micro_batch, self.rank, self.world)
        self.batches = Batches(tokens, labels, model, config, share, paired and paired[0])
        self.objective = wrap(objective(model, runtime.precision == "bfloat16"), runtime)
        self.optimizer = make_optimizer(model, config)
        self.ema = EMA(model, config.ema) if config.ema else None
        self.history, self.step = History(), 0
        self.kept: list[Tensor] = []  # the best weights, where no checkpoint holds them

    def run(
        self,
        signals: Signals,
        on_step: Callable[[Step], None] | None,
        on_validation: Callable[[Validation], None] | None,
    ) -> History:
        self._restore()
        self.model.train()
        began = time.perf_counter() - self.history.seconds
        ahead = self.batches.ahead(self.step, pin=self.model.device.type == "cuda")
        while not self._is_over():
            told, caught = self._take_step(next(ahead), signals.caught)
            if on_step:
                on_step(told)
            is_best = self._validate(on_validation)
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

    def _take_step(self, pieces: list[Batch], caught: int) -> tuple[Step, int]:
        """Take the next step; return its record, and the signal that a process has caught, or 0."""
        began, images = time.perf_counter(), self.batches.images(self.step)
        tokens = images * self.model.num_tokens
        self.optimizer.zero_grad(set_to_none=True)
        nats = torch.zeros((), device=self.model.device)
        for number, batch in enumerate(pieces, 1):
            with accumulating(self.objective, number == len(pieces)):
                value = batch.weight * self._loss(batch.to(self.model.device))
                (value * self.world / tokens).backward()  # gradients are averaged over processes
            nats += value.detach()
        norm = update(self.optimizer, self.model, self.step, self.config)
        found = all_reduce(torch.tensor([float(nats), *(caught == number for number in CODES)], dtype=torch.float64))
        rate, self.step = learning_rate(self.step, self.config), self.step + 1
        loss = float(found[0]) / tokens
        if math.isfinite(norm):
            self.history.train.append((self.step, loss))
            if self.ema:
                self.ema.update()
        else:
            self._skip()
        if self.validation is None:
            self.history.kept_step = self.step
        told = Step(self.step, loss, rate, norm, images, time.perf_counter() - began)
        return told, next((int(number) for number, count in zip(CODES, found[1:], strict=True) if count), 0)

    def _loss(self, batch: Batch) -> Tensor:
        """Return the summed loss of a piece, under its own RNG."""
        with seeded(int(rng.derive(self.config.seed, self.step + 1, 3)) + batch.piece, self.model.device):
            return self.objective(*batch.shown)[0]

    def _skip(self) -> None:
        """Record a step that changed nothing; raise a RuntimeError after too many of them in a row."""
        skipped, most = self.history.skipped, self.config.max_not_finite
        skipped.append(self.step)
        if skipped[-most:] == list(range(self.step - most + 1, self.step + 1)):
            raise RuntimeError(
                f"gradients were not finite in {most} steps in a row, the last of them {self.step}: lower "
                "learning_rate, or check the data"
            )

    def _validate(self, on_validation: Callable[[Validation], None] | None) -> bool:
        """Validate if this step is due; keep the weights if they are the best so far, and return whether they are."""
        if self.validation is None or (self.step % self.config.eval_every and self.step < self.config.steps):
            return False
        with self.ema.in_place() if self.ema else nullcontext():
            by_place = self._measure(self.config.order)
            loss = by_place.mean().item()
            is_best = loss < self.history.best
            self.history.validation.append((self.step, loss))
            if is_best:
                self.history.kept_step = self.step
                if self.checkpoints is None:
                    self.kept = [x.clone() for x in to_local(self.model.parameters())]
            if on_validation:
                with self.model.evaluating():
                    on_validation(Validation(self.step, loss, by_place, self.model, self._measure))
        return is_best

    def _measure(self, order: str | None) -> Tensor:
        assert self.validation is not None
        share = Share(self.runtime.micro_batch or VALIDATION_BATCH, self.rank, self.world)
        return losses_by_place(self.objective, self.model, *self.validation, order, share, self.validation_paired)

    def _save(self) -> None:
        if self.checkpoints:
            parts = snapshot(self.model, self.optimizer, self.ema)
            state = {"step": self.step, "history": asdict(self.history), "versions": {"torch": torch.__version__}}
            self.checkpoints.save(self.step, parts, state, self.history.kept_step)

    def _restore(self) -> None:
        saved = self.checkpoints.newest() if self.checkpoints else None
        if saved is None:
            return
        parts, state = saved
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
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers inside the context, and restore their state after it."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
