"""Control adapter: guides a generator by a condition image, such as edges, depth, segments or a sketch.

A small transformer over the patches of the condition image makes one condition token for each token of the image. It is
added to the query of its position and nowhere else: to RandAR's position-instruction tokens, or to the mask queries of
ARPG's second pass. The last projection starts at zero, so a pretrained generator is unchanged at first (ControlNet,
arXiv 2302.05543; for autoregressive generators ControlAR, arXiv 2410.02705).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.checks import check_whole_number
from . import orders
from .layers import Block, SelfAttention, ffn_width, rope_table

HEAD_DIM = 64
ROPE_BASE = 10000.0


class Control(nn.Module):
    """Transformer from condition images to condition tokens.

    Args:
        kind: of condition, a name of `conditions.KINDS`.
        grid: rows and columns of tokens.
        embed_dim: width of the generator, and of a condition token.
        patch: pixels of a token's side in the condition image; the tokenizer's stride where both images have one size.
        channels: of a condition image.
        width: of the adapter, a multiple of 64, or below 128 of 4.
        depth: transformer blocks, in which the patches attend to each other. ARPG's queries never do, so without a
            block each position would depend on the condition at that position only.
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
        """Return condition tokens (B, N, D) in raster space of condition images (B, channels, H, W) in [0, 1]."""
        expected = (self.channels, *self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"a condition is an image (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        # in [-1, 1], so that an empty patch is no zero input
        signed = images.to(next(self.parameters()).dtype) * 2 - 1
        # the residual stream keeps its type under autocast, as the generators' does
        x = self.embed(F.pixel_unshuffle(signed, self.patch).flatten(2).transpose(1, 2)).to(signed.dtype)
        rope = rope_table(self.grid, self.head_dim, ROPE_BASE, images.device)[None, 1:]
        for block in self.blocks:
            x = block(x, rope)
        return self.proj(self.norm(x))

    def init_weights(self) -> None:
        """Initialise as generators do, but the last projection, the only one that reaches them, to zeros."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.ones_(parameter)
        nn.init.zeros_(self.proj.weight)


def conditioned(queries: Tensor, condition: Tensor | None, positions: Tensor) -> Tensor:
    """Return queries (..., n, D) for positions (B, n), plus the condition (B, N, D) at these: (B, n, D)."""
    return queries if condition is None else queries + orders.gather(condition, positions).to(queries.dtype)
