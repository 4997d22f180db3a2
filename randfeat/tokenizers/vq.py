"""What convolutional VQ tokenizers share: latents from an encoder, the nearest code of each, pixels from a decoder.

Modules carry the names of the official checkpoints, so those load as they are. Shapes: E channels of a code, V codes.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Tokenizer, nearest

# pixels of the images that go through the network at a time, which holds about 2.5 kB for each: four images of
# 256 x 256 on a CPU, where more are no faster, and 32 elsewhere
AT_ONCE = {"cpu": 1 << 18}
AT_ONCE_ELSEWHERE = 1 << 21


def group_norm(width: int) -> nn.GroupNorm:
    """In 32 groups: width must be a multiple of 32."""
    return nn.GroupNorm(32, width, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    """SiLU of what a norm has just made: in its place, unless gradients want it. Large tensors are slow to come by."""
    return F.silu(x, inplace=not x.requires_grad)


class Codebook(nn.Module):
    """The codes, (V, E). The name of its one parameter is that of official checkpoints."""

    def __init__(self, vocab_size: int, code_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, code_dim)


class VQTokenizer(Tokenizer):
    """A tokenizer with `quantize`, a codebook, between an encoder and a decoder."""

    quantize: Codebook

    @abstractmethod
    def latents(self, images: Tensor) -> Tensor:
        """Images (B, channels, H, W) in [0, 1] -> (B, E, h, w), before they are quantised."""

    @abstractmethod
    def pixels(self, codes: Tensor) -> Tensor:
        """Codes (B, E, h, w) -> images (B, channels, H, W), about in [0, 1] but not clamped."""

    def normalised(self, codes: Tensor) -> Tensor:
        """How codes and latents (..., E) are compared and used: as they are, unless a tokenizer says otherwise."""
        return codes

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        parts = images.split(_images_at_once(images.device, images.shape[2] * images.shape[3]))
        return torch.cat([self._nearest_codes(part) for part in parts])

    def _nearest_codes(self, images: Tensor) -> Tensor:
        codebook = self.quantize.embedding.weight
        with torch.autocast(images.device.type, enabled=False):  # in half precision other codes would be nearest
            # channels last, as the codes are: convolutions are faster so
            latents = self.latents(images.to(codebook).contiguous(memory_format=torch.channels_last))
            latents = latents.permute(0, 2, 3, 1)
            found = nearest(self.normalised(latents.flatten(0, 2)), self.normalised(codebook))
        return found.view(latents.shape[:3])

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) -> their codes (B, E, h, w), channels last in memory."""
        return self.normalised(self.quantize.embedding(tokens)).permute(0, 3, 1, 2)

    def decode(self, tokens: Tensor) -> Tensor:
        parts = tokens.split(_images_at_once(tokens.device, tokens.shape[1] * tokens.shape[2] * self.stride**2))
        return torch.cat([self.pixels(self.codes(part)).float().clamp(0, 1) for part in parts])


def _images_at_once(device: torch.device, pixels: int) -> int:
    return max(1, AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE) // max(1, pixels))
