"""LlamaGen's VQ tokenizer (arXiv 2406.06525), whose tokens RandAR and ARPG use, too.

A VQGAN of residual blocks with attention at the lowest resolution, and a codebook of few channels, compared by angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .vq import Codebook, VQTokenizer, group_norm, swish

VQ16, VQ8 = (1, 1, 2, 2, 4), (1, 2, 2, 4)  # multipliers of the published tokenizers of 16 and of 8 pixels a token


class LlamaGenVQ(VQTokenizer):
    """LlamaGen's VQGAN, by default the official VQ-16; `multipliers=VQ8` makes VQ-8.

    Args:
        vocab_size: codes in the codebook.
        code_dim: channels E of a code.
        width: of the convolutions at full resolution, a multiple of 32.
        multipliers: of the width, one for each level; the resolution halves from one level to the next.
        num_res_blocks: residual blocks of an encoder level; a decoder level has one more.
        latent_dim: channels between encoder and decoder and the 1x1 convolutions to and from codes.
    """

    channels = 3
    unused: ClassVar = ("quantize.codebook_used",)  # statistics of training

    def __init__(
        self,
        vocab_size: int = 16384,
        code_dim: int = 8,
        width: int = 128,
        multipliers: Sequence[int] = VQ16,
        num_res_blocks: int = 2,
        latent_dim: int = 256,
    ) -> None:
        super().__init__()
        self.config = dict(
            vocab_size=vocab_size,
            code_dim=code_dim,
            width=width,
            multipliers=[*multipliers],
            num_res_blocks=num_res_blocks,
            latent_dim=latent_dim,
        )
        self.vocab_size, self.stride = vocab_size, 2 ** (len(multipliers) - 1)
        widths = [width * m for m in multipliers]
        self.encoder = Encoder(widths, width, num_res_blocks, latent_dim)
        self.decoder = Decoder(widths[::-1], num_res_blocks + 1, latent_dim)
        self.quantize = Codebook(vocab_size, code_dim)
        self.quant_conv = nn.Conv2d(latent_dim, code_dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, latent_dim, 1)

    def latents(self, images: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(2 * images - 1))  # the network takes images in [-1, 1]

    def pixels(self, codes: Tensor) -> Tensor:
        return (self.decoder(self.post_quant_conv(codes)) + 1) / 2

    def normalised(self, codes: Tensor) -> Tensor:
        return F.normalize(codes, dim=-1)


class Encoder(nn.Module):
    """Encoder: images (B, 3, H, W) -> (B, out_dim, h, w). widths: of the levels, the shallowest first."""

    def __init__(self, widths: Sequence[int], first: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip([first, *widths], widths, strict=False)):
            last = i == len(widths) - 1
            self.conv_blocks.append(Level(before, width, blocks, last, "none" if last else "down"))
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Decoder: latents (B, in_dim, h, w) -> images (B, 3, H, W). widths: of the levels, the deepest first."""

    def __init__(self, widths: Sequence[int], blocks: int, in_dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_dim, widths[0], 3, padding=1)
        self.mid = middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            last = i == len(widths) - 1
            self.conv_blocks.append(Level(before, width, blocks, i == 0, "none" if last else "up"))
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(swish(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks, each followed by an attention block if `attends`, then a change of resolution."""

    def __init__(self, before: int, width: int, blocks: int, attends: bool, resample: str) -> None:
        super().__init__()
        self.res = nn.ModuleList(ResidualBlock(before if i == 0 else width, width) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(width) if attends else nn.Identity() for _ in range(blocks))
        self.downsample = Downsample(width) if resample == "down" else nn.Identity()
        self.upsample = Upsample(width) if resample == "up" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attn in zip(self.res, self.attn, strict=True):
            x = attn(block(x))
        return self.upsample(self.downsample(x))


def middle(width: int) -> nn.Sequential:
    """Return the blocks at the lowest resolution, of encoder and decoder."""
    return nn.Sequential(ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width))


class ResidualBlock(nn.Module):
    """Two convolutions behind norms, added to the input (through a 1x1 convolution if widths differ)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(before)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        return self.conv2(swish(self.norm2(h))).add_(self.nin_shortcut(x))


class AttentionBlock(nn.Module):
    """Residual self-attention of one head over all positions of (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
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
        return self.conv(F.interpolate(x, scale_factor=2))
