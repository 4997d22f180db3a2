"""Patch tokenizer: a token is the nearest of V patches, which k-means finds in seconds, without a network.

With patches of one pixel it is a palette, as iGPT's (Chen et al., ICML 2020).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Tokenizer, check_channels, checked_range, nearest, with_noise


class PatchTokenizer(Tokenizer):
    """Tokenizer with a codebook of p x p patches.

    Args:
        vocab_size: patches in the codebook.
        patch: side p of a patch in pixels.
        channels: of the images; 1 is grey, 3 is colour.
        value_range: see `Tokenizer`.
    """

    codebook: Tensor  # (V, channels * p * p)

    def __init__(self, vocab_size: int, patch: int, channels: int, value_range: Sequence[float] | None = None) -> None:
        super().__init__()
        check_channels(channels)
        self.config = {"vocab_size": vocab_size, "patch": patch, "channels": channels}
        self.vocab_size, self.stride, self.channels = vocab_size, patch, channels
        self.value_range = checked_range(value_range)
        if self.value_range is not None:
            self.config["value_range"] = [*self.value_range]
        self.register_buffer("codebook", torch.zeros(vocab_size, channels * patch * patch))

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.config.items() if name == "value_range"}

    @classmethod
    def fit(
        cls,
        images: Tensor,
        vocab_size: int,
        patch: int,
        seed: int = 0,
        value_range: Sequence[float] | None = None,
    ) -> PatchTokenizer:
        """Return a tokenizer with a codebook from k-means over the patches of images (B, channels, H, W) in [0, 1].

        value_range: of the files that the images were read from, see `Tokenizer`. The codebook is smaller than
        `vocab_size` where the images have fewer distinct patches. Raises a ValueError for images of other shapes or
        values.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        tokenizer = cls(vocab_size, patch, images.shape[1], value_range)
        tokenizer.check_images(images)
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"image values must lie in [0, 1], got {images.min():.3g} to {images.max():.3g}: divide them by the "
                "largest that there can be"
            )
        patches = F.unfold(images.float(), patch, stride=patch).transpose(1, 2).flatten(0, 1).cpu().numpy()
        distinct = np.unique(patches, axis=0)
        if len(distinct) <= vocab_size:
            codebook = distinct
        else:
            # one thread, so that the codebook does not depend on their number; the warning is about Windows
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "KMeans is known to have a memory leak")
                codebook = KMeans(vocab_size, n_init=1, random_state=seed).fit(patches).cluster_centers_
        tokenizer = cls(len(codebook), patch, images.shape[1], value_range)
        tokenizer.codebook.copy_(torch.from_numpy(codebook))
        return tokenizer

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        h, w = images.shape[2] // self.stride, images.shape[3] // self.stride
        patches = F.unfold(images.to(self.codebook), self.stride, stride=self.stride).transpose(1, 2)
        return nearest(patches.flatten(0, 1), self.codebook).view(-1, h, w)

    def encode_jittered(self, images: Tensor, jitter: float, seed: Tensor) -> Tensor:
        self.check_images(images)  # the latents are the patches, so the noise is added to the pixels
        return self.encode(with_noise(images, jitter, seed))

    def decode(self, tokens: Tensor) -> Tensor:
        h, w = tokens.shape[1:]
        patches = self.codebook[tokens.flatten(1)].transpose(1, 2)
        return F.fold(patches, (h * self.stride, w * self.stride), self.stride, stride=self.stride).clamp(0, 1)
