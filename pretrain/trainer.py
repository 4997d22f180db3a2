"""The training loop, in one process or many, from the first step or from where it was stopped.

What a step sees is a pure function of its number (see `batches`), dropout runs under an RNG seeded for step and piece
and put back after, and nothing else is random: so a run that goes on has no other weights than one never stopped.
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
from .config import RuntimeConfig, Training
from .data import Batch, Batches, Share, Tokens
from .objective import Objective
from .optim import EMA, learning_rate, make_optimiser, update
from .parallel import accumulating, as_asked, local, total, wrap
from .signals import CODES, Signals, Stopped

DRAWS = 4  # orders of an image that validation reads
AT_ONCE = 128  # images that validation reads, unless `micro_batch` says how many


@dataclass
class History:
    """What was measured: lists of (step, nats per token); the weights kept are those of `kept_step`. `skipped` lists
    the steps whose gradients were not finite.
    """

    train: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    kept_step: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The validation of `kept_step`."""
        return dict(self.validation).get(self.kept_step, math.inf)


@dataclass(frozen=True)
class Step:
    """What `on_step` is told. loss: nats per token. gradient_norm: before clipping; not finite if it was skipped."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images: int
    seconds: float


@dataclass(frozen=True)
class Validation:
    """What `on_validation` is told, while the model has the weights that are judged and is in evaluation mode.

    loss: nats per token. by_place: (N,), nats of each place in the order. measure: the same as by_place for images in
    another order mode, which every process has to call.
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
    """Held-out nats of each place in the order, as trained: labels given; the same orders of an image each time. (N,)

    objective: `Objective(model)`, perhaps wrapped. order: a mode of the model's.
    """
    share = share or Share(AT_ONCE)
    source = Batches(tokens, labels, model, Training(order=order, label_dropout=0.0, seed=-1), share, paired)
    nats = torch.zeros(tokens.shape[-1], dtype=torch.float64)
    with model.evaluating():
        for epoch in range(DRAWS):
            for piece, weight, rows in share.of(torch.arange(len(tokens))):
                batch = source.show(epoch, rows, piece, weight).to(model.device)
                losses = objective(*batch.shown)[1]
                nats += weight * losses.sum(0).cpu().double()
    return total(nats) / (DRAWS * len(tokens))


def validate(model: Generator, tokens: Tokens, labels: Tensor | None, config: Training) -> float:
    """Held-out nats per token, as trained."""
    return losses_by_place(Objective(model), model, tokens, labels, config.order).mean().item()


def train(
    model: Generator,
    tokens: Tokens,
    labels: Tensor | None,
    validation: tuple[Tokens, Tensor | None] | None,
    config: Training,
    running: RuntimeConfig | None = None,
    *,
    objective: Callable[[Generator, bool], nn.Module] = Objective,
    directory: Path | None = None,
    settings: dict[str, Any] | None = None,
    paired: tuple[Tokens, Tokens | None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> History:
    """Train in place and leaves the model in evaluation mode, with the weights of the best validation.

    tokens: (n, N) in raster space, or (n, crops, N); labels: (n,) class indices, or None to train without labels;
    validation: the same of held-out images, or None to keep the last step's weights. on_step, on_validation: called
    in every process. objective: makes what is minimised of the model and of whether its products are in bfloat16, with
    a forward as `Objective` has it. paired: what it is called with besides, of the images trained on and of those held
    out, see `Batches`.

    directory: where checkpoints go. Training goes on from the newest of them, if it has the same `settings` (what
    decided model and data, as JSON) and `config`; all processes must see the same files. TERM, INT and USR1 are then
    obeyed between two steps: the run is saved, and `Stopped` raised. An OSError says that the disk is full; what was
    saved before is whole.
    """
    running = running or RuntimeConfig()
    with ExitStack() as stack:
        checkpoints = None
        if directory is not None:
            everything = {"settings": settings or {}, "model": model.config, "training": vars(config)}
            checkpoints = Checkpoints(directory, everything, running.keep)
            stack.enter_context(checkpoints.alone())
        signals = stack.enter_context(Signals(checkpoints is not None))
        stack.enter_context(as_asked(model, running))
        loop = _Loop(model, tokens, labels, validation, config, running, objective, checkpoints, paired)
        return loop.run(signals, on_step, on_validation)


class _Loop:
    """The state of a training, and what is done with it."""

    def __init__(
        self,
        model: Generator,
        tokens: Tokens,
        labels: Tensor | None,
        validation: tuple[Tokens, Tensor | None] | None,
        config: Training,
        running: RuntimeConfig,
        objective: Callable[[Generator, bool], nn.Module],
        checkpoints: Checkpoints | None,
        paired: tuple[Tokens, Tokens | None] | None = None,
    ) -> None:
        seen = paired and paired[0]
        self.judged_with = paired and paired[1]
        self.model, self.validation, self.config, self.running = model, validation, config, running
        self.checkpoints = checkpoints
        self.world, self.rank = distributed.world(), distributed.rank()
        self.batches = Batches(tokens, labels, model, config, Share(running.micro_batch, self.rank, self.world), seen)
        self.objective = wrap(objective(model, running.precision == "bfloat16"), running)
        self.optimiser = make_optimiser(model, config)
        self.average = EMA(model, config.ema) if config.ema else None
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
            if caught or is_best or self._is_over() or self.step % self.running.save_every == 0:
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
        """Return the next step, and the signal that a process has caught, or 0."""
        began, images = time.perf_counter(), self.batches.images(self.step)
        tokens = images * self.model.num_tokens
        self.optimiser.zero_grad(set_to_none=True)
        nats = torch.zeros((), device=self.model.device)
        for number, batch in enumerate(pieces, 1):
            with accumulating(self.objective, number == len(pieces)):
                value = batch.weight * self._loss(batch.to(self.model.device))
                (value * self.world / tokens).backward()  # the processes' gradients are averaged
            nats += value.detach()
        norm = update(self.optimiser, self.model, self.step, self.config)
        found = total(torch.tensor([float(nats), *(caught == number for number in CODES)], dtype=torch.float64))
        rate, self.step = learning_rate(self.step, self.config), self.step + 1
        loss = float(found[0]) / tokens
        if math.isfinite(norm):
            self.history.train.append((self.step, loss))
            if self.average:
                self.average.update()
        else:
            self._skip()
        if self.validation is None:
            self.history.kept_step = self.step
        told = Step(self.step, loss, rate, norm, images, time.perf_counter() - began)
        return told, next((int(number) for number, count in zip(CODES, found[1:], strict=True) if count), 0)

    def _loss(self, batch: Batch) -> Tensor:
        """Return the sum over a piece, under its own RNG."""
        with seeded(int(rng.derive(self.config.seed, self.step + 1, 3)) + batch.piece, self.model.device):
            return self.objective(*batch.shown)[0]

    def _skip(self) -> None:
        """Notes a step that changed nothing; a RuntimeError after too many of them."""
        skipped, most = self.history.skipped, self.config.max_not_finite
        skipped.append(self.step)
        if skipped[-most:] == list(range(self.step - most + 1, self.step + 1)):
            raise RuntimeError(
                f"gradients were not finite in {most} steps in a row, the last of them {self.step}: lower "
                "learning_rate, or look at the data"
            )

    def _validate(self, on_validation: Callable[[Validation], None] | None) -> bool:
        """Validate if it is time to; whether the weights are the best so far, which are then kept."""
        if self.validation is None or (self.step % self.config.eval_every and self.step < self.config.steps):
            return False
        with self.average.in_place() if self.average else nullcontext():
            by_place = self._measure(self.config.order)
            loss = by_place.mean().item()
            is_best = loss < self.history.best
            self.history.validation.append((self.step, loss))
            if is_best:
                self.history.kept_step = self.step
                if self.checkpoints is None:
                    self.kept = [x.clone() for x in local(self.model.parameters())]
            if on_validation:
                with self.model.evaluating():
                    on_validation(Validation(self.step, loss, by_place, self.model, self._measure))
        return is_best

    def _measure(self, order: str | None) -> Tensor:
        assert self.validation is not None
        share = Share(self.running.micro_batch or AT_ONCE, self.rank, self.world)
        return losses_by_place(self.objective, self.model, *self.validation, order, share, self.judged_with)

    def _save(self) -> None:
        if self.checkpoints:
            parts = snapshot(self.model, self.optimiser, self.average)
            state = {"step": self.step, "history": asdict(self.history), "versions": {"torch": torch.__version__}}
            self.checkpoints.save(self.step, parts, state, self.history.kept_step)

    def _restore(self) -> None:
        saved = self.checkpoints.newest() if self.checkpoints else None
        if saved is None:
            return
        parts, state = saved
        restore(parts, self.model, self.optimiser, self.average)
        self.step, self.history = state["step"], History(**state["history"])
        for curve in (self.history.train, self.history.validation):
            curve[:] = [(step, loss) for step, loss in curve]  # JSON has no tuples

    def _keep_best(self) -> None:
        """Give the model the weights of `kept_step`, the last ones if there is none."""
        if self.checkpoints:
            self.checkpoints.wait()
            distributed.barrier()
        if self.history.kept_step not in (0, self.step) and self.checkpoints:
            fill(self.model, judged(self.checkpoints.read(self.history.kept_step)[0]))
        else:
            weights = local(self.model.parameters())
            averaged = local(self.average.values) if self.average else []
            torch._foreach_copy_(weights, self.kept or averaged or weights)


def judged(parts: Parts) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that are validated and kept: the averaged ones, where there are any."""
    return parts.get("average") or parts["model"]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from this seed on; afterwards as if nothing had been drawn."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
