"""Ways of sampling that the study measures, each with the number of network calls it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from randfeat import Pipeline, Sampling
from randfeat.inference import sampling as loop
from randfeat.inference.likelihood import surprisal
from randfeat.inference.step import UNKNOWN

from . import trials

STEPS = {"cosine-randar": (4, 8, 12, 16, 24, 32), "arccos": (4, 8, 16, 32), "linear": (4, 8, 16, 32)}
LEAST_LOSS = (4, 8, 16)
FEW = (8, 16)  # steps at which orders and options are compared
ORDERS = ("raster", "halton", "locality")
REDRAWN, REDRAW_STEPS, READ = 0.25, 4, 2  # share of tokens, calls to redraw them, and orders that find them

# makes tokens of labels and seeds: -> tokens (B, N) and network calls (B,)
Draw = Callable[[Pipeline, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Arm:
    """A way of sampling. family: the line that it is a point of. only: models that can, all where it is empty."""

    name: str
    family: str
    draw: Draw
    only: tuple[str, ...] = field(default=())


def plainly(change: dict[str, object], model: Pipeline, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Sample with the model's own guidance and temperature, without sweeps, but for what is changed."""
    how = replace(model.sampling, sweeps=0)
    return drawn(model, labels, seeds, replace(how, **change))  # type: ignore[arg-type]


def drawn(
    model: Pipeline, labels: Tensor, seeds: Tensor, how: Sampling, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return tokens and calls of `inference.sampling.sample`."""
    calls: list[Tensor] = []
    generator = model.inference_generator()
    tokens = loop.sample(generator, labels, seeds, how, known=known, tick=calls.append)
    return tokens, calls[0]


def by_loss(steps: int, model: Pipeline, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Sample in the steps that lose least by the model's loss at each place of an order, see `trials.sizes`."""
    sizes = trials.sizes(trials.loss_by_place(model), steps)
    return plainly({"schedule": sizes, "steps": None}, model, labels, seeds)


def redrawn(steps: int, model: Pipeline, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Sample, then draw the quarter of the tokens anew that is least likely in two orders."""
    tokens, calls = plainly({"steps": steps}, model, labels, seeds)
    found = surprisal(model.inference_generator(), tokens, labels, READ)
    worst = found.topk(round(REDRAWN * tokens.shape[1]), 1).indices
    how = replace(model.sampling, sweeps=0, steps=REDRAW_STEPS)
    again, more = drawn(model, labels, seeds + 1_000_000, how, tokens.scatter(1, worst, UNKNOWN))
    return again, calls + more + READ


def confident(steps: int, model: Pipeline, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Sample the tokens first that the model is surest of, see `trials.by_confidence`."""
    tokens = trials.by_confidence(model, labels, seeds, replace(model.sampling, steps=steps))
    return tokens, torch.full_like(labels, steps)


def all_arms() -> list[Arm]:
    """Return every way of sampling."""
    made = [Arm("one token a step", "one token a step", partial(plainly, {"steps": None}))]
    for schedule, several in STEPS.items():
        for steps in several:
            change: dict[str, object] = {"schedule": schedule, "steps": steps}
            made.append(Arm(f"{schedule}, {steps} steps", schedule, partial(plainly, change)))
    made += [Arm(f"least loss, {steps} steps", "least loss", partial(by_loss, steps)) for steps in LEAST_LOSS]
    for order in ORDERS:
        made += [Arm(f"{order}, {n} steps", order, partial(plainly, {"order": order, "steps": n})) for n in FEW]
    for n in FEW:
        change = {"within_step": "causal", "steps": n}
        made.append(Arm(f"causal within a step, {n} steps", "causal", partial(plainly, change), ("arpg",)))
        made.append(Arm(f"surest first, {n} steps", "surest first", partial(confident, n), ("arpg",)))
    made.append(Arm("one sweep, 8 steps", "one sweep", partial(plainly, {"steps": 8, "sweeps": 1})))
    made.append(Arm("two sweeps, 8 steps", "two sweeps", partial(plainly, {"steps": 8, "sweeps": 2})))
    made.append(Arm("least likely redrawn, 8 steps", "redrawn", partial(redrawn, 8)))
    made.append(Arm("exact", "exact", partial(plainly, {"exact": True, "steps": None, "schedule": "one-by-one"})))
    return made
