"""An image at several places less than a token apart. A tokenizer cuts an image where it stands: moved by half a token,
the same picture has other tokens, and a mean over such places is steadier than the features of any one of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted(pixels: Tensor, stride: int, count: int) -> Tensor:
    """Images (B, C, H, W) at `count` x `count` places that divide a token of `stride` pixels: (B, count², C, H, W).

    The places lie around where the image is, and its edge fills what opens. Raises a ValueError for more places than
    pixels.
    """
    if not 1 <= count <= stride:
        raise ValueError(f"{count} shifts a side: a token of {stride} pixels has 1 to {stride}")
    moves = [math.floor(stride * (2 * i + 1 - count) / (2 * count) + 0.5) for i in range(count)]
    edge, (height, width) = max(map(abs, moves)), pixels.shape[2:]
    padded = F.pad(pixels, (edge,) * 4, mode="replicate")
    corners = [(edge - down, edge - right) for down in moves for right in moves]
    return torch.stack([padded[..., y : y + height, x : x + width] for y, x in corners], 1)


def joined(features: Tensor) -> Tensor:
    """Of the places of an image, in the order of `shifted`: the mean of vectors (B, count², F), or of maps
    (B, count², D, h, w) a finer one, (B, D, count * h, count * w)."""
    if features.ndim == 3:
        return features.mean(1)
    side = math.isqrt(features.shape[1])
    finer = features.unflatten(1, (side, side)).flip(1, 2)  # an image that is moved down is read further up
    return finer.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
