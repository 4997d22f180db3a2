"""Control: a condition image (edges, depth, segments, a sketch) that says what is wanted at each position.

A small transformer over the patches of a condition image makes one condition token for each token of the image. It is
added to what asks for a position, and nowhere else: RandAR's position-instruction tokens, the mask queries of ARPG's
second pass. The last projection is zero at first, so a pretrained generator starts unchanged (ControlNet, arXiv
2302.05543; for autoregressive generators ControlAR, arXiv 2410.02705).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.checks import check_whole_number
from .layers import Block, SelfAttention, ffn_width, rope_table

HEAD_DIM = 64
ROPE_BASE = 10000.0


class Control(nn.Module):
    """Condition images -> condition tokens.

    Args:
        kind: what it was made for, a name of `conditions.KINDS`.
        grid: rows and columns of tokens.
        embed_dim: width of the generator, so of a condition token.
        patch: pixels on a side that belong to a token; the tokenizer's stride where both images are of one size.
        channels: of a condition image.
        width: of the adapter itself, a multiple of 64, or below 128 of 4.
        depth: blocks in which the patches see each other. The queries of ARPG do not, so without any block each
            position would know of the condition there alone.
    """

    def __init__(
        self,
        kind: str,
        grid: tuple[int, int],
        embed_dim: int,
        patch: int,
        channels: int = 1,
        width: int = 256,
        depth: int = 2,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        for name, size in (("patch", patch), ("channels", channels)):
            check_whole_number(f"{name} of a control", size, 1)
        check_whole_number("width of a control", width, 4)
        check_whole_number("depth of a control", depth, 0)
        # NumPy's integers, which JSON does not take
        patch, channels, width, depth = int(patch), int(channels), int(width), int(depth)
        heads = max(1, width // HEAD_DIM)
        if width % (4 * heads) or (heads > 1 and width % HEAD_DIM):
            raise ValueError(f"width of a control must be a multiple of {HEAD_DIM}, or of 4 and small, got {width}")
        self.config: dict[str, Any] = dict(kind=kind, patch=patch, channels=channels, width=width, depth=depth)
        self.kind, self.grid, self.patch, self.channels = kind, grid, patch, channels
        self.head_dim = width // heads
        self.embed = nn.Linear(channels * patch**2, width, bias=False)
        self.blocks = nn.ModuleList(
            Block(SelfAttention(width, heads, heads), width, ffn_width(width, 64), norm_eps, 0.0) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, norm_eps)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        self.init_weights()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of a condition image, in pixels."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch

    def forward(self, images: Tensor) -> Tensor:
        """Condition images (B, channels, H, W) in [0, 1] -> condition tokens (B, N, D) in raster space."""
        expected = (self.channels, *self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"a condition is an image (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        # around 0, so that an empty patch says something, too
        signed = images.to(next(self.parameters()).dtype) * 2 - 1
        # the residual stream keeps its type under autocast, as the generators' does
        x = self.embed(F.pixel_unshuffle(signed, self.patch).flatten(2).transpose(1, 2)).to(signed.dtype)
        rope = rope_table(self.grid, self.head_dim, ROPE_BASE, images.device)[None, 1:]
        for block in self.blocks:
            x = block(x, rope)
        return self.proj(self.norm(x))

    def init_weights(self) -> None:
        """As generators begin; with zeros in the last projection, which is the only thing that reaches them."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.ones_(parameter)
        nn.init.zeros_(self.proj.weight)
