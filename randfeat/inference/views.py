"""Views of an image that its likelihood is averaged over: moved, mirrored, cropped, or with jittered tokens.

A tokenizer cuts an image where it stands, and how likely the tokens are depends on that. Each of K orders reads
another view, which takes no pass more than K orders of one view, but one run of the tokenizer for each view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tokenizers import Tokenizer
from ..utils import rng
from ..utils.checks import check_whole_number, is_finite_number
from .readout import sub_patch_shifts

_CROP, _JITTER = 8, 9  # parts of the seeds


@dataclass(frozen=True)
class Views:
    """Views that the orders of a likelihood read, the same for all images and classes.

    shifts: sub-patch shifts a side: order k reads the image at place k of shifts * shifts, then again from the first.
    flip: every second order reads the mirrored image, at the mirrored place.
    crop: least share of a side that is kept by random crops, one for each order but the first; 1 is off. Theirs is .8
        in `yandex-research/ar-classifier` (arXiv 2603.19122).
    jitter: Gaussian noise that is added to the latents before they become tokens (likelihood smoothing, arXiv
        2510.12060), in their standard deviations; other noise for each order but the first, which reads the tokens as
        they are; 0 is off.
    """

    shifts: int = 1
    flip: bool = False
    crop: float = 1.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        check_whole_number("shifts", self.shifts, 1)
        if not isinstance(self.flip, bool):
            raise ValueError(f"flip is True or False, got {self.flip!r}")
        if not (is_finite_number(self.crop) and 0.1 <= self.crop <= 1):
            raise ValueError(f"crop is the share of a side that is kept at least, from 0.1 to 1, got {self.crop}")
        if not (is_finite_number(self.jitter) and self.jitter >= 0):
            raise ValueError(f"jitter is a number of standard deviations from 0, got {self.jitter}")

    def count(self, orders: int) -> int:
        """Return how many different views so many orders read."""
        if self.crop < 1 or self.jitter:
            return orders
        return min(orders, self.shifts**2 * (2 if self.flip else 1))

    def larger(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of the images that `encode` takes: what is cropped from them loses no detail."""
        height, width = size
        return math.ceil(height / self.crop), math.ceil(width / self.crop)

    def encode(self, tokenizer: Tokenizer, pixels: Tensor, size: tuple[int, int], orders: int, seed: int = 0) -> Tensor:
        """Return the tokens of images in each view: int64 (B, count, N), of which order k reads view k modulo count.

        pixels: (B, C, H, W) in [0, 1], of the height and width `larger`. size: height and width of a view. seed: of
        the random crops and the noise.
        """
        return torch.stack([self._view(tokenizer, pixels, size, k, seed) for k in range(self.count(orders))], 1)

    def _view(self, tokenizer: Tokenizer, pixels: Tensor, size: tuple[int, int], k: int, seed: int) -> Tensor:
        """Return the tokens of view k: int64 (B, N)."""
        image = self._cropped(pixels, size, k, seed)
        mirrored = self.flip and k % 2 == 1
        if self.shifts > 1:
            places = self.shifts**2
            place = (k // 2 if self.flip else k) % places
            image = sub_patch_shifts(image, tokenizer.stride, self.shifts)[:, place]
        image = image.flip(3) if mirrored else image
        if self.jitter and k:
            return tokenizer.encode_jittered(image, self.jitter, rng.derive(seed, _JITTER, k)).flatten(1)
        return tokenizer.encode(image).flatten(1)

    def _cropped(self, pixels: Tensor, size: tuple[int, int], k: int, seed: int) -> Tensor:
        """Return the part of images that view k shows, the whole images in the first: (B, C, *size)."""
        if self.crop == 1:
            return pixels
        part = pixels
        if k:
            share, down, right = rng.uniform(rng.derive(seed, _CROP, k), 3).tolist()
            share = self.crop + share * (1 - self.crop)
            height, width = (max(one, round(full * share)) for one, full in zip(size, pixels.shape[2:], strict=True))
            top, left = (
                int(drawn * (full - one + 1))
                for drawn, full, one in zip((down, right), pixels.shape[2:], (height, width), strict=True)
            )
            part = pixels[..., top : top + height, left : left + width]
        if tuple(part.shape[2:]) == tuple(size):
            return part
        return F.interpolate(part, size, mode="bicubic", antialias=True).clamp(0, 1)
