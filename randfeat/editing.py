"""Editing: the sampling loop with known tokens first in the order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .models import Generator
from .sampling import UNKNOWN, Sampling, sample


def token_mask(mask: Tensor, stride: int) -> Tensor:
    """Tokens to make anew: those with at least one masked pixel. bool (H, W) -> bool (H / stride, W / stride)."""
    return F.max_pool2d(mask[None, None].float(), stride)[0, 0] > 0


def complete(
    model: Generator, tokens: Tensor, known: Tensor, label: Tensor, seeds: Tensor, sampling: Sampling
) -> Tensor:
    """Draws the unknown tokens given the known ones, which come back unchanged.

    tokens: (B, N) in raster space; known: bool (N,) or (B, N), as many in each image; label, seeds: (B,).
    A model of raster order alone sees the past only: what it draws does not depend on known tokens further on.
    Returns (B, N).
    """
    return sample(model, label, seeds, sampling, known=tokens.masked_fill(~known, UNKNOWN))


def paste(original: Tensor, made: Tensor, mask: Tensor) -> Tensor:
    """The made pixels where the mask is set, the original ones, bit for bit, elsewhere. (B, C, H, W); bool (H, W)."""
    return torch.where(mask, made, original)
