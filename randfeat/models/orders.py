"""Orders in which the tokens of an image are read or decoded.

`order[..., i]` is the raster position (`row * w + col`) of the i-th token of the sequence. *Raster space* is sorted by
position, *order space* by place in the sequence. Functions return int64 tensors: `(N,)` for the fixed orders, a row for
each seed for the random ones. A shared order repeats one row for every image, a per-image order has a row for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..utils import rng
from ..utils.checks import is_whole_number
from .locality import Draws, decoding_order

Grid = tuple[int, int]


def raster(grid: Grid) -> Tensor:
    """Return raster order, row by row from the top left. Shape (N,)."""
    return torch.arange(grid[0] * grid[1])


def reverse(grid: Grid) -> Tensor:
    """Return raster order from its end, row by row from the bottom right. Shape (N,)."""
    return raster(grid).flip(0)


def columns(grid: Grid) -> Tensor:
    """Return the order column by column from the top left. Shape (N,)."""
    return raster(grid).reshape(grid).T.reshape(-1)


def halton(grid: Grid) -> Tensor:
    """Return the order of the Halton scheduler (arXiv 2503.17076), which spreads each next token over the image: the
    cells of a Halton sequence with base 2 for rows and base 3 for columns, each when it first occurs. Shape (N,).
    """
    count, number, order = grid[0] * grid[1], 0, dict[int, None]()
    while len(order) < count:
        number += 1
        row, column = (_cell(number, base, side) for base, side in zip((2, 3), grid, strict=True))
        order.setdefault(row * grid[1] + column)
    return torch.tensor(list(order))


def _cell(number: int, base: int, side: int) -> int:
    """Return the cell, of `side`, of a number of the Halton sequence: its digits in reverse, behind the point."""
    inverse, whole = 0, 1
    while number:
        number, digit = divmod(number, base)
        inverse, whole = inverse * base + digit, whole * base
    return inverse * side // whole


def locality(
    grid: Grid,
    seeds: Tensor,
    sizes: Sequence[int] | None = None,
    thresholds: tuple[float, float] = (1.0, 2.0),
    known: Tensor | None = None,
) -> Tensor:
    """Return LPD's locality-aware order for each seed, see `locality.decoding_order`: (B,) -> (B, N).

    sizes: of the groups that are decoded together, one token each where there are none. thresholds: proximity and
    repulsion; LPD's repulsion is 2, 3 or 4. known: bool (B, N), positions that are decoded first and left out of
    `sizes`.
    """
    count, home = grid[0] * grid[1], seeds.cpu()
    known = None if known is None or not known.any() else known.cpu()
    done = 0 if known is None else int(known[0].sum())
    order = decoding_order(grid, sizes or [1] * (count - done), Draws.of(home, count), *thresholds, known)
    if known is not None:
        order = torch.cat((known.nonzero()[:, 1].view(len(home), done), order), 1)
    return order.to(seeds.device)


def random(grid: Grid, seeds: Tensor) -> Tensor:
    """Return a uniform random permutation for each seed, a function of that seed alone. (*S,) -> (*S, N)."""
    return rng.bits(seeds, grid[0] * grid[1]).argsort(dim=-1, stable=True)


def hierarchical(grid: Grid, seeds: Tensor | None = None) -> Tensor:
    """Return an order from coarse to fine: the coarsest power-of-two lattice first, then what each finer one adds.

    On an even square grid the first N/4 entries are the positions on even rows and columns, as RandAR's resolution
    extrapolation needs. Within a level the order is raster, (N,), or random for each seed, (*S,) -> (*S, N).
    """
    positions = raster(grid)
    joined = (positions // grid[1]) | (positions % grid[1])
    stride = joined & -joined  # the largest power of two that divides row and column
    stride[0] = positions.numel()  # every power divides row 0 and column 0
    if seeds is None:
        return stride.argsort(stable=True, descending=True)
    within = random(grid, seeds)
    return within.gather(-1, stride.to(within.device)[within].argsort(dim=-1, stable=True, descending=True))


def known_first(order: Tensor, known: Tensor) -> Tensor:
    """Move the known positions to the front of each order and keep the sequence otherwise.

    order: (..., N); known: bool, (..., N) in raster space. Returns (..., N).
    """
    order, known = torch.broadcast_tensors(order, known.to(order.device))
    return order.gather(-1, known.gather(-1, order).argsort(dim=-1, stable=True, descending=True))


def explicit(positions: Sequence[int] | Tensor, grid: Grid) -> Tensor:
    """Return an order from a list of positions, validated. Shape (N,) or (..., N)."""
    try:
        order = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"an order is a list of raster positions, got {positions!r}") from None
    if not order.is_floating_point() and order.dtype != torch.bool:  # `validate` refuses those
        order = order.to(torch.int64)
    validate(order, grid)
    return order


def validate(order: Tensor, grid: Grid, cut: bool = False) -> None:
    """Raise a ValueError that names the first offending entry unless each row is a permutation of 0..N-1.

    cut: whether the beginning of a permutation, of at least one position, will do.
    """
    count = grid[0] * grid[1]
    length = order.shape[-1] if order.ndim else 0
    if order.dtype != torch.int64 or not (1 <= length <= count if cut else length == count):
        raise ValueError(
            f"an order for the grid {grid[0]} x {grid[1]} holds {'at most ' if cut else ''}{count} int64 positions, "
            f"got {order.dtype} of shape {tuple(order.shape)}"
        )
    rows = order.reshape(-1, length).cpu()
    sorted_rows, places = rows.sort(dim=-1, stable=True)
    outside = (rows < 0) | (rows >= count)
    repeated = torch.zeros_like(outside)
    repeated.scatter_(1, places[:, 1:], sorted_rows[:, 1:] == sorted_rows[:, :-1])
    wrong = (outside | repeated).nonzero()
    if len(wrong):
        row, place = wrong[0].tolist()
        what = f"is outside 0..{count - 1}" if outside[row, place] else "occurs twice"
        raise ValueError(f"not a permutation: entry {place} of order {row}, {int(rows[row, place])}, {what}")


def check_grid(grid: Any) -> None:
    """Raise a ValueError unless a grid is two whole numbers from 1."""
    sides = tuple(grid) if isinstance(grid, Iterable) else ()
    if len(sides) != 2 or not all(is_whole_number(side, 1) for side in sides):
        raise ValueError(f"grid must be rows and columns, two whole numbers from 1, got {grid!r}")


def invert(order: Tensor) -> Tensor:
    """Return the place of each raster position in the sequence: invert(order)[..., order[..., i]] = i. (..., N)."""
    return order.argsort(-1)


def gather(x: Tensor, order: Tensor) -> Tensor:
    """Permute raster space to order space along dimension 1. x: (B, N) or (B, N, D); order: (B, N)."""
    return x.gather(1, order if x.ndim == 2 else order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def scatter(x: Tensor, order: Tensor) -> Tensor:
    """Permute order space to raster space along dimension 1, as the inverse of `gather`: (B, N) or (B, N, D)."""
    return gather(x, invert(order))


# order modes by name; `make` adds those that a seed makes
FIXED = {"raster": raster, "reversed": reverse, "columns": columns, "hierarchical": hierarchical, "halton": halton}
SEEDED = ("random", "locality")
MODES = (*FIXED, *SEEDED)


def make(
    mode: str,
    grid: Grid,
    seeds: Tensor,
    sizes: Sequence[int] | None = None,
    thresholds: tuple[float, float] = (1.0, 2.0),
    known: Tensor | None = None,
) -> Tensor:
    """Return one order for each seed, by its mode, one of MODES: (*S,) -> (*S, N), on the device of the seeds.

    sizes, thresholds, known: of `locality`, which orders a batch (B,).
    """
    if mode == "random":
        return random(grid, seeds)
    if mode == "locality":
        return locality(grid, seeds.flatten(), sizes, thresholds, known).view(*seeds.shape, -1)
    if mode not in FIXED:
        raise ValueError(f"unknown order mode {mode!r}, expected one of {', '.join(MODES)}")
    return FIXED[mode](grid).to(seeds.device).expand(*seeds.shape, -1)
