"""Locality-aware order of LPD (arXiv 2507.01957, section 3.3): groups near what is decoded, and apart from each other.

Tokens of one group are drawn independently, so a group is chosen among the positions beside decoded ones, which say
most about it, and no two of it lie within the repulsion of each other as long as that can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..utils import rng

Grid = tuple[int, int]


@dataclass(frozen=True)
class Draws:
    """Random choices of B orders.

    first: (B,) raster positions of the first token. ranks: of a step, (B, N), by which positions of equal scores are
    sorted. index: (step, (B,) sizes) -> (B,) indices below these, the choice among positions of which none is near.
    """

    first: Tensor
    ranks: Callable[[int], Tensor]
    index: Callable[[int, Tensor], Tensor]

    @classmethod
    def of(cls, seeds: Tensor, count: int) -> Draws:
        """Return the choices of seeds (B,) for `count` positions, functions of an image's seed alone."""

        def below(seeds: Tensor, sizes: int | Tensor) -> Tensor:
            return (rng.uniform(seeds, 1)[:, 0].double() * sizes).long()

        return cls(
            below(rng.derive(seeds, 0), count),
            lambda step: rng.bits(rng.derive(seeds, 1, step), count),
            lambda step, sizes: below(rng.derive(seeds, 2, step), sizes),
        )


def decoding_order(
    grid: Grid,
    sizes: Sequence[int],
    draws: Draws,
    proximity: float = 1.0,
    repulsion: float = 1.0,
    known: Tensor | None = None,
) -> Tensor:
    """Return the order in which groups of `sizes` tokens are decoded: int64 (B, sum of sizes) raster positions.

    A free position scores 1 / distance for each decoded one of its 8 neighbours. Each group takes positions of a score
    from `proximity` on, the highest first, but none within `repulsion` rows and columns of another of its own; where
    these do not suffice, one after the other of the rest that lies furthest from the group. known: bool (B, N),
    decoded before; the first token is else the one drawn.
    """
    near, squared, weight = _geometry(grid, repulsion)
    free = torch.ones(len(draws.first), len(near), dtype=torch.bool) if known is None else ~known.cpu()
    score = (~free).double() @ weight
    order: list[Tensor] = []
    for step, size in enumerate(sizes):
        ranks, close = draws.ranks(step).cpu(), score >= proximity
        refused, nearest = torch.zeros_like(free), torch.full_like(score, torch.inf)
        for number in range(size):
            if not order and known is None:
                chosen = draws.first.cpu()
            else:
                open_ = free & close & ~refused
                chosen = _first(open_, score, ranks)
                if not (found := open_.any(1)).all():
                    rest = free & ~open_
                    furthest = nearest.masked_fill(~rest, -torch.inf)
                    furthest = rest & (furthest == furthest.amax(1, keepdim=True))
                    if not number:  # the group is empty
                        furthest = _nth(draws.index(step, rest.sum(1)), rest, score, ranks)
                    scarce = rest.sum(1, keepdim=True) <= size - number
                    wanted = torch.where(scarce, rest, furthest)
                    # what is not close goes before what was refused
                    distant = wanted & ~close
                    wanted = torch.where(distant.any(1, keepdim=True), distant, wanted)
                    chosen = torch.where(found, chosen, _first(wanted, score, ranks))
            order.append(chosen)
            free = free.scatter(1, chosen.unsqueeze(1), False)
            refused |= near[chosen]
            nearest = torch.minimum(nearest, squared[chosen])
        for chosen in order[len(order) - size :]:  # in turn, for the sums of the official code are rounded so
            score = score + weight[chosen]
    return torch.stack(order, 1) if order else torch.empty(len(free), 0, dtype=torch.int64)


def _geometry(grid: Grid, repulsion: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each pair of positions, (N, N), whether they lie within the repulsion, their squared distance, and
    the score that one gives the other.
    """
    positions = torch.arange(grid[0] * grid[1])
    place = torch.stack((positions // grid[1], positions % grid[1]), 1).double()
    apart = (place.unsqueeze(1) - place).abs()
    reach, squared = apart.amax(2), apart.square().sum(2)
    return reach <= repulsion, squared, torch.where(reach == 1, squared.rsqrt(), 0.0)


def _first(among: Tensor, score: Tensor, ranks: Tensor) -> Tensor:
    """Return the position of `among`, bool (B, N), with the highest score, of several that of the lowest rank: (B,)."""
    high = score.masked_fill(~among, -torch.inf)
    return ranks.masked_fill(~among | (high < high.amax(1, keepdim=True)), torch.iinfo(ranks.dtype).max).argmin(1)


def _nth(index: Tensor, among: Tensor, score: Tensor, ranks: Tensor) -> Tensor:
    """Return the position of `among` at an index (B,) of the sequence by `_first`, as bool (B, N)."""
    by_rank = ranks.argsort(dim=1, stable=True)
    falling = score.masked_fill(~among, -torch.inf).gather(1, by_rank).argsort(dim=1, descending=True, stable=True)
    chosen = by_rank.gather(1, falling).gather(1, index.clamp(min=0).unsqueeze(1))
    return torch.zeros_like(among).scatter(1, chosen, True)
