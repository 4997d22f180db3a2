"""Base class of tokenizers: images in [0, 1] to a grid of token indices, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Tokenizer(nn.Module, ABC):
    """Base of every tokenizer, built from plain keywords, which `config` keeps."""

    config: dict[str, Any]
    vocab_size: int
    channels: int  # of the images: 1 grey, 3 colour
    stride: int  # pixels per token, in each direction
    unused: ClassVar[tuple[str, ...]] = ()  # entries of official checkpoints that are not read here

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return the tokens of images (B, channels, H, W) in [0, 1], H and W divisible by the stride.

        Returns int64 (B, H / stride, W / stride).
        """

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Return images (B, channels, h * stride, w * stride) in [0, 1] of tokens, int64 (B, h, w)."""

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


def nearest(x: Tensor, codebook: Tensor, at_once: int = 1 << 24) -> Tensor:
    """Return the code nearest to each vector by Euclidean distance: (n, E), (V, E) -> int64 (n,).

    at_once: number of distances in memory at a time, instead of all n * V.
    """
    # |x - code|^2 / 2 without the vector's own square, which is the same for every code
    bias = codebook.square().sum(1) / 2
    chunks = x.split(max(1, at_once // len(codebook)))
    return torch.cat([(bias - chunk @ codebook.T).argmin(1) for chunk in chunks])
