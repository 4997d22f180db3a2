"""Framing: a picture of any size on the grid of tokens of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from ...models.orders import Grid
from ...utils.checks import check_whole_number

Fit = Literal["around", "whole", "tile"]
Span = tuple[int, int]  # of pixels along an axis, the last one outside


@dataclass(frozen=True)
class View:
    """A box of a picture, and the grid of tokens on which a model sees it.

    box: left, top, right, bottom in pixels; beyond the picture its edges are repeated, and those of its mask.
    """

    box: tuple[int, int, int, int]
    grid: Grid

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return the content of the box: (H, W, ...) -> (bottom - top, right - left, ...)."""
        left, top, right, bottom = self.box
        rows = np.arange(top, bottom).clip(0, array.shape[0] - 1)
        columns = np.arange(left, right).clip(0, array.shape[1] - 1)
        return array[rows][:, columns]

    def scaled(self, pixels: np.ndarray, stride: int) -> Image.Image:
        """Return the box's pixels, resized to `stride` pixels a token."""
        rows, columns = self.grid
        return _resized(Image.fromarray(pixels), (columns * stride, rows * stride))

    def back(self, made: Image.Image) -> np.ndarray:
        """Return a picture of the grid, resized to the box: uint8 (bottom - top, right - left, ...)."""
        left, top, right, bottom = self.box
        return np.asarray(_resized(made, (right - left, bottom - top)))

    def half_token(self) -> int:
        """Return half the shorter side of a token in pixels of the picture, rounded."""
        left, top, right, bottom = self.box
        rows, columns = self.grid
        return round(min((bottom - top) / rows, (right - left) / columns) / 2)

    def bias(self, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the bias of each token, (rows, columns, V): of the cell that its middle lies in.

        cells: (any rows, any columns, V), laid over a picture of this size, height and width; beyond it the nearest.
        """
        if cells.shape[:2] == (1, 1):
            return cells.expand(*self.grid, -1)
        left, top, right, bottom = self.box
        rows, columns = (
            ((start + (np.arange(count) + 0.5) * (stop - start) / count) / side * of).astype(int).clip(0, of - 1)
            for start, stop, count, side, of in zip(
                (top, left), (bottom, right), self.grid, size, cells.shape[:2], strict=True
            )
        )
        return cells[rows][:, columns]

    def inside(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the intersection of box and picture: rows and columns of the picture, then of the box.

        size: height and width of the picture.
        """
        left, top, right, bottom = self.box
        rows, columns = slice(max(top, 0), min(bottom, size[0])), slice(max(left, 0), min(right, size[1]))
        return (rows, columns), (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )


@dataclass(frozen=True)
class Framing:
    """Settings of framing: the part of a picture that the model sees, and the tokens that it makes anew.

    fit:
        "around" sees one window of the model's aspect, the smallest that holds the mask and a margin, but not smaller
            than the model's own size where the picture allows that, nor larger than what covers the picture. It is
            scaled to the model's size and back.
        "whole" sees the whole picture so, however small the mask.
        "tile" leaves the scale as it is: windows of the model's size slide over the mask, the one with most known
            tokens first, and each sees what those before it made.
        What lies beyond the picture is its edge, repeated.
    margin: free on each side of the mask, for "around" as a share of the mask's side, for "tile" of the model's.
    cover: a token is made anew if more than this share of its area is masked; at 0, if any of it is.
    grow: so many more tokens around these are made anew.
    overlap: the share of the grid's side that two windows of "tile" have in common.
    feather: pixels of the picture, see `masks.paste`; None: half the side of a token as the picture shows it.
    """

    fit: Fit = "around"
    margin: float = 0.5
    cover: float = 0.0
    grow: int = 0
    overlap: float = 0.5
    feather: int | None = None

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        for name, end in (("cover", 1.0), ("overlap", 1.0), ("margin", math.inf)):
            share: Any = getattr(self, name)
            if not isinstance(share, Real) or not 0 <= float(share) < end:
                expected = "0 or more" if name == "margin" else "a share, from 0 to less than 1"
                raise ValueError(f"{name} must be {expected}, got {share!r}")
        check_whole_number("grow", self.grow, 0)
        if self.feather is not None:
            check_whole_number("feather", self.feather, 0)

    def step(self, grid: Grid) -> Grid:
        """Tokens from one window of "tile" to the next, down and to the right."""
        rows, columns = (max(1, side - round(side * self.overlap)) for side in grid)
        return rows, columns

    def view(self, mask: np.ndarray, grid: Grid, stride: int, corner: tuple[int, int] = (0, 0)) -> View:
        """Return the view that the model has of a picture with this mask, bool (H, W), not empty.

        grid: the model's. corner: row and column of a pixel that shall be the first of a token, for "tile".
        """
        size, sides = (mask.shape[0], mask.shape[1]), (grid[0] * stride, grid[1] * stride)
        masked = [_span(np.flatnonzero(mask.any(axis))) for axis in (1, 0)]
        if self.fit == "tile":
            margins = [round(self.margin * side) for side in sides]
            (top, bottom), (left, right) = (
                _aligned(masked[axis], size[axis], sides[axis], margins[axis], stride, corner[axis]) for axis in (0, 1)
            )
            return View((left, top, right, bottom), ((bottom - top) // stride, (right - left) // stride))
        scale = whole = max(size[axis] / sides[axis] for axis in (0, 1))
        if self.fit == "around":
            lengths = [stop - start for start, stop in masked]
            wanted = max(lengths[axis] * (1 + 2 * self.margin) / sides[axis] for axis in (0, 1))
            scale = min(max(wanted, 1), whole)
        (top, bottom), (left, right) = (
            _placed(masked[axis], size[axis], max(1, round(sides[axis] * scale))) for axis in (0, 1)
        )
        return View((left, top, right, bottom), grid)


def as_framing(framing: str | Framing) -> Framing:
    """Return a framing, given as it is or by the name of its fit."""
    return framing if isinstance(framing, Framing) else Framing(framing)  # type: ignore[arg-type]


def _span(places: np.ndarray) -> Span:
    """Return the span from the first place to behind the last."""
    return int(places[0]), int(places[-1]) + 1


def _placed(masked: Span, extent: int, length: int) -> Span:
    """Return a span of a length around the masked one, in 0..extent if it fits there, else with 0..extent centred."""
    start = (sum(masked) - length) // 2
    start = min(max(start, 0), extent - length) if length <= extent else (extent - length) // 2
    return start, start + length


def _aligned(masked: Span, extent: int, side: int, margin: int, stride: int, corner: int) -> Span:
    """Return the masked span with a margin within 0..extent, in whole tokens from the corner, at least a side long."""
    start, stop = max(masked[0] - margin, 0), min(masked[1] + margin, extent)
    if stop - start < side:
        start, stop = max(_placed(masked, extent, side)[0], 0), masked[1]
    start -= (start - corner) % stride
    return start, start + max(side, math.ceil((stop - start) / stride) * stride)


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture of a size, width and height; unchanged where it has that."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
