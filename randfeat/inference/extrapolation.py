"""Resolution extrapolation: images larger than the trained grid, without more training (RandAR, arXiv 2412.01827).

An image of the trained grid is sampled first. Its tokens are placed on every f-th row and column of a grid f times as
high and as wide, and the tokens between them are decoded given these, with the rotary embedding stretched over the
large grid. Every token is decoded; the official code leaves those of its last step at index 0.

ARPG takes known tokens in any order, too, and knows positions by rotary embedding alone, so the same works there; no
images of that are published. A model of raster order cannot begin with every second token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..models import Generator, orders, packed
from ..models.layers import stretched_rope_table
from ..utils import rng
from ..utils.checks import check_whole_number, is_whole_number
from .sampling import Sampling, guided, steps
from .sampling import sample as sample_trained
from .schedules import Guidance, tokens_per_step
from .step import UNKNOWN, Pass, Scale, Step


@dataclass(frozen=True)
class Extrapolation:
    """Settings of resolution extrapolation.

    factor: f, how many times as high and as wide; (rows, columns) for two different ones, such as (1, 2) for an image
        twice as wide.
    boundary: number of the fastest rotary frequencies of an axis that stay as they are; the slower ones are stretched
        (see `layers.stretched_rope_table`).
    spatial: a second guidance, towards the small image and away from a null-class branch that does not see the share
        `blind` of its tokens. Off by default; it adds a third branch.
    """

    factor: int | tuple[int, int] = 2
    boundary: int = 2
    spatial: Guidance = field(default_factory=Guidance)
    blind: float = 0.5

    def __post_init__(self) -> None:
        check_whole_number("boundary", self.boundary, 0)
        if not is_whole_number(self.factor):
            object.__setattr__(self, "factor", _two(self.factor))
        else:
            check_whole_number("factor", self.factor, 2)
        if not 0 <= self.blind <= 1:
            raise ValueError(f"blind must be a share in [0, 1], got {self.blind}")

    @property
    def factors(self) -> tuple[int, int]:
        """Factors of rows and of columns."""
        return self.factor if isinstance(self.factor, tuple) else (self.factor, self.factor)

    def grid(self, trained: orders.Grid) -> orders.Grid:
        """Return rows and columns of the large grid, M positions in all."""
        return trained[0] * self.factors[0], trained[1] * self.factors[1]

    def lattice(self, trained: orders.Grid) -> Tensor:
        """Return the positions of the small image: bool (M,) in the raster space of the large grid."""
        row, col = (torch.arange(side) % f == 0 for side, f in zip(self.grid(trained), self.factors, strict=True))
        return (row[:, None] & col).flatten()

    def order(self, trained: orders.Grid, mode: str, seeds: Tensor) -> Tensor:
        """Return orders of the large grid by mode, the small image first: seeds (B,) -> (B, M)."""
        order = orders.make(mode, self.grid(trained), rng.derive(seeds, 0))
        return orders.known_first(order, self.lattice(trained))

    def condition(self, trained: orders.Grid, condition: Tensor) -> Tensor:
        """Return a condition of the trained grid, (B, N, D), for the large one, (B, M, D).

        Each of its vectors stands for the positions that the stretched rotary embedding spreads its own over.
        """
        rows, columns = self.factors
        large = condition.unflatten(1, trained).repeat_interleave(rows, 1).repeat_interleave(columns, 2)
        return large.flatten(1, 2)

    def small_order(self, trained: orders.Grid, order: Tensor) -> Tensor:
        """Return the order of the small image within one of the large grid: (B, M) -> (B, N) raster positions in it."""
        orders.validate(order, self.grid(trained))
        count, width = trained[0] * trained[1], self.grid(trained)[1]
        first = order[:, :count]
        if not self.lattice(trained).to(order.device)[first].all():
            rows, columns = self.factors
            where = f"rows that {rows} divides and columns that {columns} divides"
            raise ValueError(f"the first {count} entries must be the small image, on {where}")
        return first // width // self.factors[0] * trained[1] + first % width // self.factors[1]


@torch.no_grad()
def enlarge(
    model: Generator,
    tokens: Tensor,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    how: Extrapolation,
    order: Tensor | None = None,
    blind: Tensor | None = None,
    condition: Tensor | None = None,
) -> Iterator[Step]:
    """Decode the tokens between those of a finished image; yield after each step, as `sampling.decode` does.

    tokens: (B, N) of the trained grid, in raster space. label, seeds: (B,). order: (B, M), the small image first, else
    drawn from the seeds. blind: (B, k) positions in it that the spatial branch does not see, else drawn. Schedule and
    guidance are those of `sampling` over the large image, of which the small one is decoded already. condition: of the
    trained grid, (B, N, D), as in `sampling.decode`; guidance towards it adds a branch.
    """
    _check(model)
    device, grid = model.device, model.grid
    tokens, label, seeds = tokens.to(device), label.to(device), seeds.to(device)
    if order is None:
        order = how.order(grid, model.check_order_mode(sampling.order), seeds)
    order = order.to(device)
    small = orders.gather(tokens, how.small_order(grid, order))
    known, (batch, count), guidance = model.num_tokens, order.shape, sampling.guidance

    null = torch.full_like(label, model.num_classes)
    branches = [label] if guidance.off else [label, null]
    if not how.spatial.off:
        branches = [label, null, null]
        if blind is None:
            blind = orders.random(grid, rng.derive(seeds, 3))[:, : math.floor(known * how.blind)]
    conditions = [] if condition is None else [how.condition(grid, condition.to(device))] * len(branches)
    control, blinded_rows = sampling.control_guidance, slice(2 * batch, 3 * batch)
    controlled = condition is not None and not control.off
    if controlled:  # the last branch: the class without the condition
        branches.append(label)
        conditions.append(torch.zeros_like(conditions[0]))
    copies = len(branches)
    table = stretched_rope_table(
        grid, how.factors, how.boundary, model.embed_dim // model.num_heads, model.rope_base, device
    )
    model = packed.inference_copy(model)
    prefix = order[:, :known].repeat(copies, 1)
    given = torch.cat(conditions) if conditions else None
    state = model.start(torch.cat(branches), small.repeat(copies, 1), prefix, sampling.within_step, table, given)
    if blind is not None and not how.spatial.off:
        hidden = torch.zeros(batch, known, dtype=torch.bool, device=device).scatter(1, blind.to(device), True)
        # positions stay known: by RandAR's position instructions, and by the rotary embedding of the keys
        state.waiting[blinded_rows, model.known_inputs].masked_fill_(hidden.unsqueeze(-1), 0)

    def guide(raw: Tensor, scales: Sequence[Scale]) -> Tensor:
        scale, spatial, towards_condition = scales
        if controlled:
            rows = len(raw) // copies
            raw, without = raw[:-rows], raw[-rows:]
            return by_class(raw, scale, spatial) + (towards_condition - 1) * (raw[:rows] - without)
        return by_class(raw, scale, spatial)

    def by_class(raw: Tensor, scale: Scale, spatial: Scale) -> Tensor:
        if how.spatial.off:
            return raw if guidance.off else guided(raw, scale)
        conditional, unconditional, blinded = raw.chunk(3)
        return blinded + scale * (conditional - unconditional) + spatial * (unconditional - blinded)

    sizes = tokens_per_step(sampling.schedule, count, sampling.steps, done=known)
    tokens = torch.full_like(order, UNKNOWN).scatter(1, order[:, :known], small)
    guidances = guidance, how.spatial, control
    run = Pass(model, state, seeds, order, tokens, known, guidances, guide, sampling.filtered, None)
    yield from steps(run, sampling, sizes)


def sample(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    how: Extrapolation,
    order: Tensor | None = None,
    condition: Tensor | None = None,
    tick: Callable[[Tensor], object] = lambda calls: None,
) -> Tensor:
    """Sample a small image and enlarge it; return tokens (B, M) in the raster space of the large grid.

    Arguments as in `enlarge`. The sweeps of `sampling` refine the small image. An image's seed alone fixes it, whatever
    the batch. tick is called with the network calls that each image took, (B,), first for the small one.
    """
    _check(model)
    model = packed.inference_copy(model)  # once for both grids
    if order is None:
        order = how.order(model.grid, model.check_order_mode(sampling.order), seeds.to(model.device))
    small = sample_trained(
        model, label, seeds, sampling, how.small_order(model.grid, order), None, condition, tick=tick
    )
    for step in enlarge(model, small, label, seeds, sampling, how, order, condition=condition):
        tokens, calls = step.tokens, step.calls
    tick(calls)
    return tokens


def _check(model: Generator) -> None:
    """Raise a ValueError for a model that cannot fill in tokens between known ones."""
    if model.raster_only:
        raise ValueError(
            f"{type(model).__name__} knows raster order alone, so it cannot fill what lies between the tokens of a "
            "small image: choose RandAR or ARPG"
        )
    if not model.rotary:
        raise ValueError(
            f"{type(model).__name__} has learned positions, none of a larger grid: choose RandAR or ARPG, or train it "
            "on the larger images"
        )


def _two(factor: Any) -> tuple[int, int]:
    """Return factors of rows and columns as plain numbers. Raises a ValueError for anything else."""
    sides = tuple(factor) if isinstance(factor, Sequence) and not isinstance(factor, str) else ()
    if len(sides) != 2 or not all(is_whole_number(side, 1) for side in sides) or max(sides) < 2:
        raise ValueError(f"factor must be a whole number from 2, or two from 1 that are not both 1, got {factor}")
    return int(sides[0]), int(sides[1])
