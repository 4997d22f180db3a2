"""Canvas: a grid of tokens of any size, which a model of a smaller grid completes window by window.

Windows share the tokens of the canvas: the tokens that one has drawn are known to the next. The tokenizer, too, sees
windows of the model's size, which overlap by a quarter: memory does not grow with the picture, and it sees pictures of
the size that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ...models import Generator
from ...models.orders import Grid
from ...tokenizers import Tokenizer
from ...utils import rng
from ..sampling import UNKNOWN, Sampling, sample
from ..sampling import decode as decode_tokens

Window = tuple[slice, slice]  # rows and columns of tokens


def complete(
    model: Generator,
    tokens: Tensor,
    known: Tensor,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    condition: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return tokens with the unknown ones drawn given the known ones, which come back unchanged: int64 (B, N).

    tokens: (B, N) in raster space; known: bool (N,) or (B, N), as many in each image; label, seeds: (B,). condition,
    bias: as in `sampling.decode`. A model of raster order alone sees the past only: its tokens do not depend on known
    tokens further on.
    """
    return sample(model, label, seeds, sampling, None, tokens.masked_fill(~known, UNKNOWN), condition, bias)


def paint(
    model: Generator,
    tokens: Tensor,
    known: Tensor,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    step: Grid = (1, 1),
    control: Tensor | None = None,
    bias: Tensor | None = None,
) -> Iterator[Tensor]:
    """Complete a canvas at least as large as the model's grid; yield it after each step: (B, rows, columns), UNKNOWN
    where no token is drawn yet.

    tokens: (B, rows, columns); known: bool (rows, columns); label, seeds: (B,). step: rows and columns from one window
    to the next. control: condition images (B, c, H, W) of the canvas; bias: of its tokens, (rows, columns, V) or (B,
    rows, columns, V): each window takes its part of both. One window after the other is completed as by `complete`:
    the first with `seeds`, others with seeds derived from them.
    """
    canvas = tokens.to(model.device).masked_fill(~known.to(model.device), UNKNOWN)
    yield canvas
    for number, window in enumerate(windows(known.cpu().numpy(), model.grid, step)):
        own = seeds if number == 0 else rng.derive(seeds, 5, number)
        given = canvas[:, window[0], window[1]].flatten(1)
        condition = _condition(model, control, window)
        favoured = None if bias is None else bias[..., window[0], window[1], :].flatten(-3, -2)
        for made in decode_tokens(model, label, own, sampling, known=given, condition=condition, bias=favoured):
            canvas = canvas.clone()
            canvas[:, window[0], window[1]] = made.tokens.unflatten(1, model.grid)
            yield canvas


def _condition(model: Generator, control: Tensor | None, window: Window) -> Tensor | None:
    """Return the condition tokens of a window, from condition images of the canvas: (B, N, D)."""
    if control is None:
        return None
    assert model.control is not None  # `painting.check_control` has looked
    rows, columns = _of_pixels(
        window, model.config["control"]["patch"]
    )  # the control of an inference copy is a mere function
    with torch.no_grad():
        return model.control(control[:, :, rows, columns])


def windows(known: np.ndarray, grid: Grid, step: Grid) -> list[Window]:
    """Return windows that leave nothing unknown, in the sequence in which to complete them.

    The window with the fewest unknown tokens comes first; once chosen, its tokens count as known. known: bool (rows,
    columns), no smaller than the grid.
    """
    unknown, sequence = ~known, []
    places = [window for window in tiles(known.shape, grid, step) if unknown[window].any()]
    while places:
        window = min(places, key=lambda place: unknown[place].sum())
        unknown[window] = False
        sequence.append(window)
        places = [place for place in places if unknown[place].any()]
    return sequence


def tiles(shape: tuple[int, ...], grid: Grid, step: Grid) -> list[Window]:
    """Return all windows of a grid on a canvas of a shape (rows, columns), row by row."""
    return [
        (slice(top, top + grid[0]), slice(left, left + grid[1]))
        for top in _starts(shape[0], grid[0], step[0])
        for left in _starts(shape[1], grid[1], step[1])
    ]


def _starts(length: int, side: int, step: int) -> list[int]:
    """Return where windows of `side` tokens begin along an axis; the last one ends where the axis ends."""
    return [*range(0, length - side, step), length - side]


# pixels --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def encode(tokenizer: Tokenizer, pixels: Tensor, grid: Grid) -> Tensor:
    """Return the tokens of the pixels (B, channels, H, W) of a canvas: int64 (B, rows, columns).

    Each is from the window whose middle is nearest. grid: of a window.
    """
    stride = tokenizer.stride
    shape = pixels.shape[2] // stride, pixels.shape[3] // stride
    tokens = torch.zeros(len(pixels), *shape, dtype=torch.int64, device=pixels.device)
    best = torch.zeros(shape, device=pixels.device)
    middle = _middle(grid).to(pixels.device)
    for window in tiles(shape, grid, _most_of(grid)):
        rows, columns = _of_pixels(window, stride)
        made = tokenizer.encode(pixels[:, :, rows, columns])
        better = middle > best[window]
        best[window] = torch.where(better, middle, best[window])
        tokens[:, window[0], window[1]] = torch.where(better, made, tokens[:, window[0], window[1]])
    return tokens


@torch.no_grad()
def decode(pixels_of: Callable[[Tensor], Tensor], tokens: Tensor, grid: Grid, stride: int) -> Tensor:
    """Return the pixels of the tokens (B, rows, columns) of a canvas: (B, channels, H, W) in [0, 1].

    Windows are blended where they overlap.

    pixels_of: decodes windows, (B, N) of the grid -> (B, channels, grid times stride).
    """
    shape = tokens.shape[1:]
    if tuple(shape) == tuple(grid):
        return pixels_of(tokens.flatten(1))
    weight = _middle((grid[0] * stride, grid[1] * stride)).to(tokens.device)
    total = torch.zeros(shape[0] * stride, shape[1] * stride, device=tokens.device)
    summed: Tensor | None = None
    for window in tiles(shape, grid, _most_of(grid)):
        part = pixels_of(tokens[:, window[0], window[1]].flatten(1)).float()
        if summed is None:
            summed = part.new_zeros(*part.shape[:2], *total.shape)
        rows, columns = _of_pixels(window, stride)
        summed[:, :, rows, columns] += part * weight
        total[rows, columns] += weight
    assert summed is not None
    return (summed / total).clamp(0, 1)


def _most_of(grid: Grid) -> Grid:
    """Return the step between windows that overlap by a quarter."""
    rows, columns = (max(1, side - side // 4) for side in grid)
    return rows, columns


def _of_pixels(window: Window, stride: int) -> Window:
    """Return a window of tokens as rows and columns of pixels."""
    rows, columns = (slice(part.start * stride, part.stop * stride) for part in window)
    return rows, columns


def _middle(shape: Grid) -> Tensor:
    """Return blending weights of a window, highest in the middle and above 0 throughout: float (h, w)."""
    rows, columns = (torch.minimum(torch.arange(n) + 1, n - torch.arange(n)).float() for n in shape)
    return rows[:, None] * columns
