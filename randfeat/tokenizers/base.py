"""Base class of tokenizers: images in [0, 1] to a grid of token indices, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..utils import rng
from ..utils.checks import check_whole_number, is_finite_number


class Tokenizer(nn.Module, ABC):
    """Base of every tokenizer, built from plain keywords, which `config` keeps.

    value_range: None for pictures of 8 bits, grey or RGB; (low, high) for files of any number of channels, whose values
    from low to high become 0 to 1. It is a matter of reading files: images are in [0, 1] here.
    """

    config: dict[str, Any]
    vocab_size: int
    channels: int  # of the images: 1 grey, 3 colour
    value_range: tuple[float, float] | None = None
    stride: int  # pixels per token, in each direction
    unused: ClassVar[tuple[str, ...]] = ()  # entries of official checkpoints that are not read here

    @property
    def settings(self) -> dict[str, Any]:
        """Entries of `config` that change tokens or images and leave no trace in the weights; none by default."""
        return {}

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the tokens of images (B, channels, H, W) in [0, 1], H and W divisible by the stride.

        Returns int64 (B, H / stride, W / stride).
        """

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Return images (B, channels, h * stride, w * stride) in [0, 1] of tokens, int64 (B, h, w)."""

    def encode_jittered(self, images: Tensor, jitter: float, seed: Tensor) -> Tensor:
        """Return the tokens of images as `encode`, of latents to which Gaussian noise is added before they are
        quantised, the same for all images.

        jitter: standard deviation of the noise, in those of each image's latents. seed: int64 (). With it tokens change
        to others of which the image might as well have been made. Raises a ValueError for a tokenizer without latents.
        """
        raise ValueError(f"{type(self).__name__} has no latents that noise could be added to: leave the jitter out")

    def check_images(self, images: Tensor) -> None:
        """Raise a ValueError unless images are float (B, channels, H, W), with H and W divisible by the stride."""
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"expected images (B, {self.channels}, H, W), got {tuple(images.shape)}")
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(
                f"height and width must be divisible by {self.stride}, "
                f"got {images.shape[2]} x {images.shape[3]}: resize or crop the images"
            )
        if not images.is_floating_point():
            raise ValueError(f"expected floating-point images in [0, 1], got {images.dtype}: divide by 255")


def checked_range(value_range: Sequence[float] | None) -> tuple[float, float] | None:
    """Return a value range as two floats, or None. Raises a ValueError unless it is two finite numbers, low < high."""
    if value_range is None:
        return None
    low_high = tuple(value_range)
    if len(low_high) != 2 or not all(map(is_finite_number, low_high)) or not low_high[0] < low_high[1]:
        raise ValueError(f"a value range is two numbers LOW < HIGH, got {value_range}")
    return float(low_high[0]), float(low_high[1])


def check_channels(channels: int) -> None:
    """Raise a ValueError unless `channels` is a whole number from 1."""
    check_whole_number("channels", channels, 1)


def with_noise(latents: Tensor, jitter: float, seed: Tensor) -> Tensor:
    """Return latents (B, E, h, w) with Gaussian noise, see `Tokenizer.encode_jittered`."""
    drawn = rng.normal(seed, latents[0].numel()).to(latents)
    return latents + jitter * latents.flatten(1).std(1).view(-1, 1, 1, 1) * drawn.view(latents[0].shape)


def nearest(x: Tensor, codebook: Tensor, at_once: int = 1 << 24) -> Tensor:
    """Return the code nearest to each vector by Euclidean distance: (n, E), (V, E) -> int64 (n,).

    at_once: number of distances in memory at a time, instead of all n * V.
    """
    # |x - code|^2 / 2 without the vector's own square, which is the same for every code
    bias = codebook.square().sum(1) / 2
    # a program that torch records computes all at once: its number of vectors is not known
    recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()
    chunks = [x] if recorded else x.split(max(1, at_once // len(codebook)))
    return torch.cat([(bias - chunk @ codebook.T).argmin(1) for chunk in chunks])
