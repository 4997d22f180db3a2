"""Images larger than those a RandAR was trained on, without more training (arXiv 2412.01827).

An image of the trained grid comes first. Its tokens are laid on every f-th row and column of a grid f times as high and
as wide, and the tokens between them are decoded given these, with the rotary embedding stretched over the large grid.
Every token is decoded; the official code leaves those of its last step at index 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor

from . import orders, packing, seeding
from .layers import stretched_rope_table
from .models import Generator, RandAR
from .sampling import UNKNOWN, Sampling, Step, guided, run
from .sampling import sample as sample_trained
from .schedules import Guidance, tokens_per_step


@dataclass(frozen=True)
class Extrapolation:
    """How to go beyond the trained grid.

    factor: f, how many times as high and as wide. boundary: so many of the fastest rotary frequencies of an axis go on
    turning as they did, the slower ones are stretched (see `layers.stretched_rope_table`).
    spatial: a second guidance, towards the small image and away from a null-class branch that is blind to the share
    `blind` of its tokens. Off by default; it costs a third branch.
    """

    factor: int = 2
    boundary: int = 2
    spatial: Guidance = field(default_factory=Guidance)
    blind: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (("factor", 2), ("boundary", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, got {value}")
        if not 0 <= self.blind <= 1:
            raise ValueError(f"blind must be a share in [0, 1], got {self.blind}")

    def grid(self, trained: orders.Grid) -> orders.Grid:
        """Rows and columns of the large grid."""
        return trained[0] * self.factor, trained[1] * self.factor

    def lattice(self, trained: orders.Grid) -> Tensor:
        """Where the small image lies: bool, (f * f * N,) in the raster space of the large grid."""
        row, col = (torch.arange(side) % self.factor == 0 for side in self.grid(trained))
        return (row[:, None] & col).flatten()

    def order(self, trained: orders.Grid, mode: str, seeds: Tensor) -> Tensor:
        """Orders of the large grid by mode, the small image first: (B,) seeds -> (B, f * f * N)."""
        order = orders.make(mode, self.grid(trained), seeding.derive(seeds, 0))
        return orders.known_first(order, self.lattice(trained))

    def small_order(self, trained: orders.Grid, order: Tensor) -> Tensor:
        """What an order of the large grid says of the small image: (B, f * f * N) -> (B, N) raster positions in it."""
        orders.validate(order, self.grid(trained))
        count, width = trained[0] * trained[1], self.grid(trained)[1]
        first = order[:, :count]
        if not self.lattice(trained).to(order.device)[first].all():
            raise ValueError(f"the first {count} entries must lie on every row and column that {self.factor} divides")
        return first // width // self.factor * trained[1] + first % width // self.factor


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
) -> Iterator[Step]:
    """Decodes what lies between the tokens of a finished image, and yields after each step as `sampling.decode` does.

    tokens: (B, N) of the trained grid, in raster space. label, seeds: (B,). order: (B, f * f * N), the small image
    first, else drawn from the seeds. blind: (B, k) places in it that the spatial branch does not see, else drawn.
    Schedule and guidance are those of `sampling` over the large image, of which the small one is decoded already.
    """
    model = _randar(model)
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
            blind = orders.random(grid, seeding.derive(seeds, 3))[:, : math.floor(known * how.blind)]
    copies = len(branches)
    table = stretched_rope_table(
        grid, how.factor, how.boundary, model.embed_dim // model.num_heads, model.rope_base, device
    )
    model = packing.twin(model)
    prefix = order[:, :known].repeat(copies, 1)
    state = model.start(torch.cat(branches), small.repeat(copies, 1), prefix, sampling.within_step, table)
    if blind is not None and not how.spatial.off:
        hidden = torch.zeros(batch, known, dtype=torch.bool, device=device).scatter(1, blind.to(device), True)
        # class, q_0, x_0, q_1, x_1, ...: the instructions stay
        state.waiting[-batch:, 2::2].masked_fill_(hidden.unsqueeze(-1), 0)

    def guide(raw: Tensor, done: int, size: int) -> Tensor:
        scale = guidance.at(done, size, count)
        if copies < 3:
            return raw if guidance.off else guided(raw, scale)
        conditional, unconditional, blinded = raw.chunk(3)
        towards_small = how.spatial.at(done, size, count) * (unconditional - blinded)
        return blinded + scale * (conditional - unconditional) + towards_small

    noise = seeding.uniform(seeding.derive(seeds, 1), count)
    sizes = tokens_per_step(sampling.schedule, count, sampling.steps, done=known)
    given = torch.full_like(order, UNKNOWN).scatter(1, order[:, :known], small)
    yield from run(model, state, order, given, known, noise, sizes, sampling, guide)


def sample(
    model: Generator, label: Tensor, seeds: Tensor, sampling: Sampling, how: Extrapolation, order: Tensor | None = None
) -> Tensor:
    """A small image and what `enlarge` makes of it: (B, f * f * N) tokens in the raster space of the large grid.

    Arguments as in `enlarge`; `sampling.sweeps` go over the small image. An image's seed alone fixes it, whatever the
    batch.
    """
    model = packing.twin(_randar(model))  # once for both grids
    if order is None:
        order = how.order(model.grid, model.check_order_mode(sampling.order), seeds.to(model.device))
    small = sample_trained(model, label, seeds, sampling, how.small_order(model.grid, order))
    for step in enlarge(model, small, label, seeds, sampling, how, order):
        tokens = step.tokens
    return tokens


def _randar(model: Generator) -> RandAR:
    if not isinstance(model, RandAR):
        raise ValueError(f"RandAR goes beyond its trained grid, {type(model).__name__} does not")
    return model
