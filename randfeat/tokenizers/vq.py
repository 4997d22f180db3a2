"""Base class of convolutional tokenizers: latents from an encoder, quantised to codes, pixels from a decoder.

Modules have the names of the official checkpoints, so these load as they are. Shapes: E channels of a code, V codes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Tokenizer, with_noise
from .quantizers import Quantizer

# pixels of images that go through the network at a time, each of which takes about 2.5 kB there: four images of
# 256 x 256 on a CPU, where more are no faster, and 32 on other devices
AT_ONCE = {"cpu": 1 << 18}
AT_ONCE_ELSEWHERE = 1 << 21


def group_norm(width: int, groups: int = 32) -> nn.GroupNorm:
    """Return a norm in groups, whose number must divide the width."""
    return nn.GroupNorm(groups, width, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    """Return SiLU of a norm's output, in place where no gradient needs that: large tensors are slow to allocate."""
    return F.silu(x, inplace=not x.requires_grad)


class VQTokenizer(Tokenizer):
    """Tokenizer with a quantiser, `quantize`, between an encoder and a decoder.

    `latents`, `quantize` and `pixels` one after another are differentiable: that is how it is trained.
    """

    quantize: Quantizer

    @abstractmethod
    def latents(self, images: Tensor) -> Tensor:
        """Return the latents (B, E, h, w) of images (B, channels, H, W) in [0, 1], before quantisation."""

    @abstractmethod
    def pixels(self, codes: Tensor) -> Tensor:
        """Return the images (B, channels, H, W) of codes (B, E, h, w), about in [0, 1] but not clamped."""

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        if torch.compiler.is_exporting():  # a program computes all at once, their number is not known, and no autocast
            return self._nearest_codes(images)
        parts = images.split(_images_at_once(images.device, images.shape[2] * images.shape[3]))
        return torch.cat([self._tokens(part) for part in parts])

    def encode_jittered(self, images: Tensor, jitter: float, seed: Tensor) -> Tensor:
        self.check_images(images)
        parts = images.split(_images_at_once(images.device, images.shape[2] * images.shape[3]))
        return torch.cat([self._tokens(part, lambda latents: with_noise(latents, jitter, seed)) for part in parts])

    def _tokens(self, images: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the tokens of images that go through the network at once. change: of the latents."""
        with torch.autocast(images.device.type, enabled=False):  # half precision would change the nearest codes
            return self._nearest_codes(images, change)

    def _nearest_codes(self, images: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        # channels last, as the codes are, which makes convolutions faster
        images = images.to(next(self.parameters())).contiguous(memory_format=torch.channels_last)
        latents = self.latents(images)
        return self.quantize.indices((latents if change is None else change(latents)).permute(0, 2, 3, 1))

    def codes(self, tokens: Tensor) -> Tensor:
        """Return the codes (B, E, h, w) of tokens (B, h, w), channels last in memory."""
        return self.quantize.codes(tokens).permute(0, 3, 1, 2)

    def decode(self, tokens: Tensor) -> Tensor:
        parts = tokens.split(_images_at_once(tokens.device, tokens.shape[1] * tokens.shape[2] * self.stride**2))
        return torch.cat([self.pixels(self.codes(part)).float().clamp(0, 1) for part in parts])


def _images_at_once(device: torch.device, pixels: int) -> int:
    """Return how many images of `pixels` pixels each go through the network at a time."""
    return max(1, AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE) // max(1, pixels))
