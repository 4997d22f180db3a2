"""MaskGIT's VQGAN (arXiv 2202.04200) in the form that RandAR and TiTok use: convolutions without attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .quantizers import Codebook
from .vq import VQTokenizer, group_norm, swish


class MaskGITVQ(VQTokenizer):
    """MaskGIT's VQGAN, by default the official f16 tokenizer of 1,024 codes.

    Args:
        vocab_size: codes in the codebook.
        code_dim: channels E of a code, and of the latents.
        width: of the convolutions at full resolution, a multiple of 32.
        multipliers: of the width, one for each level; the resolution halves from one level to the next.
        num_res_blocks: residual blocks of a level.
    """

    channels = 3

    def __init__(
        self,
        vocab_size: int = 1024,
        code_dim: int = 256,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
    ) -> None:
        super().__init__()
        self.config = dict(
            vocab_size=vocab_size,
            code_dim=code_dim,
            width=width,
            multipliers=[*multipliers],
            num_res_blocks=num_res_blocks,
        )
        self.vocab_size, self.stride = vocab_size, 2 ** (len(multipliers) - 1)
        widths = [width * m for m in multipliers]
        self.encoder = Encoder(widths, width, num_res_blocks, code_dim)
        self.decoder = Decoder(widths, num_res_blocks, code_dim)
        self.quantize = Codebook(vocab_size, code_dim)

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def pixels(self, codes: Tensor) -> Tensor:
        return self.decoder(codes)


class Encoder(nn.Module):
    """Encoder: images (B, 3, H, W) -> (B, out_dim, h, w). widths: of the levels, the shallowest first."""

    def __init__(self, widths: Sequence[int], first: int, blocks: int, out_dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            Level(before, width, blocks) for before, width in zip([first, *widths], widths, strict=False)
        )
        self.mid = residual_blocks(widths[-1], widths[-1], blocks)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for i, level in enumerate(self.down):
            x = level(F.avg_pool2d(x, 2) if i else x)
        return self.conv_out(swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Decoder: codes (B, in_dim, h, w) -> images (B, 3, H, W). widths: as of the encoder; level 0 runs last."""

    def __init__(self, widths: Sequence[int], blocks: int, in_dim: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_dim, widths[-1], 3, padding=1)
        self.mid = residual_blocks(widths[-1], widths[-1], blocks)
        deeper = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(
            Level(before, width, blocks, upsamples=i > 0)
            for i, (before, width) in enumerate(zip(deeper, widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(swish(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks, then twice the resolution (nearest neighbours and a convolution) if `upsamples`."""

    def __init__(self, before: int, width: int, blocks: int, upsamples: bool = False) -> None:
        super().__init__()
        self.block = residual_blocks(before, width, blocks)
        self.upsample_conv = nn.Conv2d(width, width, 3, padding=1) if upsamples else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return x if self.upsample_conv is None else self.upsample_conv(F.interpolate(x, scale_factor=2))


def residual_blocks(before: int, width: int, count: int) -> nn.Sequential:
    """Return `count` residual blocks; the first changes the width from `before`."""
    return nn.Sequential(*(ResidualBlock(before if i == 0 else width, width) for i in range(count)))


class ResidualBlock(nn.Module):
    """Two convolutions behind norms, added to the input.

    Where the width changes the input is dropped, and a 1x1 convolution of the result is added to the result. That is no
    true residual, but the official weights were trained so.
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(before)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(width, width, 1, bias=False) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(h))
