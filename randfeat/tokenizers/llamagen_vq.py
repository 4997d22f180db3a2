"""LlamaGen's VQ tokenizer (arXiv 2406.06525), whose tokens RandAR and ARPG use, too.

A VQGAN of residual blocks with attention at the lowest resolution, and a codebook of few channels, compared by angle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import quantizers
from .base import check_channels, checked_range
from .vq import VQTokenizer, group_norm, swish

Norm = Callable[[int], nn.Module]  # of a width
WIDE = 64  # channels from which the interpolation and convolution of `Upsample` are faster as one on a CPU
# rows of a kernel that fall on each of two rows of pixels, for the upper row that comes of one and for the lower
SUMS = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))

PUBLISHED = dict(channels=3, norm_groups=32, quantizer="vq", l2_norm=True, levels=None, value_range=None)
VQ16, VQ8 = (1, 1, 2, 2, 4), (1, 2, 2, 4)  # multipliers of the published tokenizers of 16 and of 8 pixels a token


class LlamaGenVQ(VQTokenizer):
    """LlamaGen's VQGAN, by default the official VQ-16; `multipliers=VQ8` makes VQ-8.

    Args:
        vocab_size: codes in the codebook, by default 16,384.
        code_dim: channels E of a code, by default 8. FSQ and LFQ have both from `levels` and from one another.
        width: of the convolutions at full resolution, a multiple of `norm_groups`.
        multipliers: of the width, one for each level; the resolution halves from one level to the next.
        num_res_blocks: residual blocks of an encoder level; a decoder level has one more.
        latent_dim: channels between encoder and decoder and the 1x1 convolutions to and from codes.
        channels: of the images.
        norm_groups: of the group norms.
        quantizer: a name of `quantizers.QUANTIZERS`.
        l2_norm: whether codes are compared by angle; the official code calls it codebook_l2_norm.
        levels: of FSQ.
        value_range: see `Tokenizer`.
    """

    unused: ClassVar = ("quantize.codebook_used",)  # statistics of training

    def __init__(
        self,
        vocab_size: int | None = None,
        code_dim: int | None = None,
        width: int = 128,
        multipliers: Sequence[int] = VQ16,
        num_res_blocks: int = 2,
        latent_dim: int = 256,
        channels: int = 3,
        norm_groups: int = 32,
        quantizer: str = "vq",
        l2_norm: bool = True,
        levels: Sequence[int] | None = None,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels)
        quantize = quantizers.create(quantizer, vocab_size, code_dim, l2_norm, levels)
        self.vocab_size, self.stride = quantize.vocab_size, 2 ** (len(multipliers) - 1)
        self.channels, self.value_range = channels, checked_range(value_range)
        self.config = dict(
            vocab_size=quantize.vocab_size,
            code_dim=quantize.code_dim,
            width=width,
            multipliers=[*multipliers],
            num_res_blocks=num_res_blocks,
            latent_dim=latent_dim,
        )
        added = dict(  # in the config where they are not as published, as files were written before they were here
            channels=channels,
            norm_groups=norm_groups,
            quantizer=quantizer,
            l2_norm=l2_norm,
            levels=levels and [*levels],
            value_range=self.value_range and [*self.value_range],
        )
        self.config |= {name: value for name, value in added.items() if value != PUBLISHED[name]}
        widths, norm = [width * m for m in multipliers], partial(group_norm, groups=norm_groups)
        self.encoder = Encoder(widths, width, num_res_blocks, latent_dim, channels, norm)
        self.decoder = Decoder(widths[::-1], num_res_blocks + 1, latent_dim, channels, norm)
        self.quantize = quantize
        self.quant_conv = nn.Conv2d(latent_dim, quantize.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(quantize.code_dim, latent_dim, 1)

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.config.items() if name in PUBLISHED and name != "channels"}

    def latents(self, images: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(2 * images - 1))  # the network takes images in [-1, 1]

    def pixels(self, codes: Tensor) -> Tensor:
        return (self.decoder(self.post_quant_conv(codes)) + 1) / 2


class Encoder(nn.Module):
    """Encoder: images (B, channels, H, W) -> (B, out_dim, h, w). widths: of the levels, the shallowest first."""

    def __init__(self, widths: Sequence[int], first: int, blocks: int, out_dim: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, first, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip([first, *widths], widths, strict=False)):
            last = i == len(widths) - 1
            self.conv_blocks.append(Level(before, width, blocks, last, "none" if last else "down", norm))
        self.mid = middle(widths[-1], norm)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Decoder: latents (B, in_dim, h, w) -> images (B, channels, H, W). widths: of the levels, the deepest first."""

    def __init__(self, widths: Sequence[int], blocks: int, in_dim: int, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_dim, widths[0], 3, padding=1)
        self.mid = middle(widths[0], norm)
        self.conv_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            last = i == len(widths) - 1
            self.conv_blocks.append(Level(before, width, blocks, i == 0, "none" if last else "up", norm))
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(swish(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks, each followed by an attention block if `attends`, then a change of resolution."""

    def __init__(self, before: int, width: int, blocks: int, attends: bool, resample: str, norm: Norm) -> None:
        super().__init__()
        self.res = nn.ModuleList(ResidualBlock(before if i == 0 else width, width, norm) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(width, norm) if attends else nn.Identity() for _ in range(blocks))
        self.downsample = Downsample(width) if resample == "down" else nn.Identity()
        self.upsample = Upsample(width) if resample == "up" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.res, self.attn, strict=True):
            x = attn(block(x))
        return self.upsample(self.downsample(x))


def middle(width: int, norm: Norm) -> nn.Sequential:
    """Return the blocks at the lowest resolution, of encoder and decoder."""
    return nn.Sequential(
        ResidualBlock(width, width, norm), AttentionBlock(width, norm), ResidualBlock(width, width, norm)
    )


class ResidualBlock(nn.Module):
    """Two convolutions behind norms, added to the input (through a 1x1 convolution if widths differ)."""

    def __init__(self, before: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(before)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.norm2 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        return self.conv2(swish(self.norm2(h))).add_(self.nin_shortcut(x))


class AttentionBlock(nn.Module):
    """Residual self-attention of one head over all positions of (B, C, h, w)."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).mT.unsqueeze(1) for conv in (self.q, self.k, self.v))  # (B, 1, h * w, C)
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v).squeeze(1).mT.view_as(x))


class Downsample(nn.Module):
    """Strided convolution to half the resolution, padded on the right and at the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour interpolation to twice the resolution, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.shape[1] >= WIDE:
            return convolve_doubled(x, self.conv)
        return self.conv(F.interpolate(x, scale_factor=2))


def convolve_doubled(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return a 3x3 convolution of the nearest-neighbour interpolation of x to twice its resolution, in 4/9 of the work.

    Each of the four pixels that come of one sees 2x2 pixels of x, some twice: a 2x2 convolution with summed weights.
    """
    batch, _, height, width = x.shape
    sums = torch.tensor(SUMS, dtype=conv.weight.dtype)
    kernels = torch.einsum("apk,bql,oikl->abopqi", sums, sums, conv.weight).permute(0, 1, 2, 5, 3, 4)
    rows = []
    for a in (0, 1):
        pixels = [F.conv2d(F.pad(x, (1 - b, b, 1 - a, a)), kernels[a, b], conv.bias) for b in (0, 1)]
        rows.append(torch.stack([each.permute(0, 2, 3, 1) for each in pixels], 3))
    return torch.stack(rows, 2).view(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)
