"""Biases: numbers that are added to the logits of tokens, and so favour some and forbid others.

A bias is added after guidance and before temperature and filters: above 0 favours a token, -inf forbids it. A model's
own functions take one for each of its positions, `checked_bias`; functions of pictures of any size take cells that are
laid over the picture, `checked_cells`, see `editing.framing.View.bias`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import Generator


def checked_bias(bias: Tensor, batch: int, model: Generator) -> Tensor:
    """Return a bias of tokens for each image: (B, N, V).

    bias: (V,) for all positions, (h, w, V) by rows and columns of the model's grid, (N, V) by raster position, or (B,
    N, V) for each image. Raises a ValueError for another shape, values that are NaN or +inf, and a position where all
    tokens are forbidden.
    """
    rows, columns = model.grid
    shape = (batch, model.num_tokens, model.vocab_size)
    if tuple(bias.shape) == (rows, columns, model.vocab_size):
        bias = bias.flatten(0, 1)
    if tuple(bias.shape) not in (shape, shape[1:], shape[2:]):
        raise ValueError(
            f"a bias has the shape (V,), (h, w, V), (N, V) or (B, N, V) with B = {shape[0]}, N = h * w = {rows} * "
            f"{columns} and V = {shape[2]}, got {tuple(bias.shape)}"
        )
    _check_values(bias)
    if len(wrong := _forbidden(bias)):
        *image, place = [0, 0, *wrong][-2:]
        where = f"position {place}, row {place // columns} and column {place % columns}, of image {image[0]}"
        raise ValueError(f"the bias forbids every token at {where}: leave one")
    return bias.float().expand(shape)


def checked_cells(bias: Tensor, vocab_size: int) -> Tensor:
    """Return a bias of pictures as cells that are laid over the picture: (rows, columns, V).

    bias: (V,) for all places, or any number of rows and columns of cells, (rows, columns, V). Raises a ValueError for
    another shape, values that are NaN or +inf, and a cell where all tokens are forbidden.
    """
    if bias.ndim not in (1, 3) or bias.shape[-1] != vocab_size or not bias.numel():
        raise ValueError(
            f"a bias of pictures has the shape (V,), or (rows, columns, V) of cells laid over the picture, with V = "
            f"{vocab_size}, got {tuple(bias.shape)}"
        )
    _check_values(bias)
    if len(wrong := _forbidden(bias)):
        where = f" in row {wrong[0]} and column {wrong[1]}" if len(wrong) == 2 else ""
        raise ValueError(f"the bias forbids every token{where}: leave one")
    return bias.float().reshape(*bias.shape[:-1] or (1, 1), vocab_size)


def _check_values(bias: Tensor) -> None:
    if not bias.is_floating_point() or (bias.isnan() | (bias == torch.inf)).any():
        raise ValueError("a bias holds floats, finite or -inf for a forbidden token: it has others")


def _forbidden(bias: Tensor) -> list[int]:
    """Return the indices (all but the last) of the first place where all tokens are forbidden, [0] of a bias (V,);
    nothing where there is none.
    """
    found = (torch.atleast_2d(bias) == -torch.inf).all(-1).nonzero()
    return found[0].tolist() if len(found) else []
