"""Layers of generators: rotary embeddings, attention with a cache, SwiGLU, transformer blocks.

Shapes: B batch, L inputs, S keys, H heads, K key-value heads, E channels of a head, D = H * E, N tokens of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASS_PLACE = -1  # the "raster position" of the class token in a rope table
QUERIES_AT_ONCE = 128  # queries of a part of causal attention on a CPU


def rope_table(grid: tuple[int, int], head_dim: int, base: float, device: torch.device) -> Tensor:
    """Return the table of a 2-D rotary embedding: (1 + N, E/2) unit complex numbers in single precision, one per angle.

    The first half of the angles grows with the row, the second with the column. Row 0 is the class token's and is zero
    (not one), as the official weights of RandAR, ARPG and LlamaGen expect: its rotated query and key vanish.
    The table is tiny and computed for each call, so no module holds a buffer that a cast to bfloat16 would round.
    """
    frequencies = _frequencies(head_dim, base, device)
    return _table(*(torch.arange(side, device=device, dtype=torch.float32)[:, None] * frequencies for side in grid))


def stretched_rope_table(
    grid: tuple[int, int], factors: tuple[int, int], boundary: int, head_dim: int, base: float, device: torch.device
) -> Tensor:
    """Return the table of a grid `factors` times as high and as wide as the trained `grid`, M positions: (1 + M, E/2).

    The `boundary` fastest frequencies of an axis are as in training. The slower ones are stretched: their angles from
    the first trained position to the last are spread over the large grid (RandAR's resolution extrapolation, after
    NTK-aware scaling of rotary embeddings).
    """
    frequencies = _frequencies(head_dim, base, device)
    fast = torch.arange(len(frequencies), device=device) < boundary
    axes = []
    for side, factor in zip(grid, factors, strict=True):
        as_trained = torch.arange(side * factor, device=device, dtype=torch.float32)[:, None]
        stretched = torch.linspace(0, side - 1, side * factor, device=device)[:, None]
        axes.append(torch.where(fast, as_trained, stretched) * frequencies)
    return _table(*axes)


def _frequencies(head_dim: int, base: float, device: torch.device) -> Tensor:
    """Return the frequencies of one axis, the fastest first: (E/4,)."""
    half = head_dim // 2
    return base ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)


def _table(row: Tensor, col: Tensor) -> Tensor:
    """Return the table (1 + h * w, E/2) of the angles of each row (h, E/4) and of each column (w, E/4)."""
    angles = torch.cat(torch.broadcast_tensors(row[:, None], col[None]), -1).flatten(0, 1)
    return F.pad(torch.polar(torch.ones_like(angles), angles), (0, 0, 1, 0))


def rope_at(table: Tensor, positions: Tensor) -> Tensor:
    """Return the table's rows at raster positions (CLASS_PLACE for the class token): (B, L) -> (B, L, E/2)."""
    return table[positions + 1]


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate adjacent channel pairs, in float32. x: (B, H, L, E); rope: (B, L, E/2), or its real view (B, L, E/2, 2).

    One product of complex numbers is several times faster on a CPU than four on strided halves. torch's compiler fuses
    the four into one loop, but knows no complex numbers.
    """
    if not rope.is_complex():
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = rope.unsqueeze(1).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).type_as(x)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope.unsqueeze(1)).flatten(-2).type_as(x)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Return scaled dot-product attention. q: (B, H, L, E); k, v: (B, K, S, E); mask: bool (L, S), or
    (B, 1, L, S), True = attended.

    `causal` without a mask aligns the last query with the last key, so queries behind cached keys attend to all of
    those. dropout: probability with which an attention weight is dropped.
    """
    if causal and mask is None and q.shape[2] != k.shape[2]:
        mask = causal_mask(q.shape[2], k.shape[2], q.device)
    # in parts the backward pass of bfloat16 is slower
    in_parts = q.device.type == "cpu" and not (q.requires_grad and q.dtype == torch.bfloat16)
    if causal and mask is None and q.shape[2] > QUERIES_AT_ONCE and in_parts and not dropout:
        return _attend_in_parts(q, k, v)
    causal = causal and mask is None
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, enable_gqa=bool(q.shape[1] != k.shape[1])
    )


def _attend_in_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention in parts, without most of the products with masked keys that a CPU would compute."""
    parts, end = [], k.shape[2] - q.shape[2]
    for queries in q.split(QUERIES_AT_ONCE, 2):
        end += queries.shape[2]
        parts.append(attend(queries, k[:, :, :end], v[:, :, :end], causal=True))
    return torch.cat(parts, 2)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return a mask, bool (L, S): query i attends to keys 0 .. S - L + i."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class KVCache:
    """Preallocated keys and values of `depth` layers, for `capacity` inputs. It is an argument, not part of a module.

    `extend` writes behind the first `length` entries and returns all entries up to the new ones; only `commit` advances
    `length`, so entries that a step does not commit are overwritten by the next. `place` lets each image of the batch
    write at slots of its own instead, where images differ in the number of entries that are still valid.
    """

    def __init__(self, depth: int, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.slots: Tensor | None = None
        self.keys: list[Tensor | None] = [None] * depth
        self.values: list[Tensor | None] = [None] * depth

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B, K, L, E) of a layer and return views (B, K, length + L, E)."""
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:  # the first keys determine batch, heads, dtype and device
            batch, heads, _, channels = k.shape
            # zeros: a masked entry counts nothing, but only if it is finite
            keys, values = (k.new_zeros(batch, heads, self.capacity, channels) for _ in range(2))
            self.keys[layer], self.values[layer] = keys, values
        if self.slots is not None:
            end, slots = self.length, self.slots[:, None, :, None].expand_as(k)
            keys.scatter_(2, slots, k)
            values.scatter_(2, slots, v)
            return keys[:, :, :end], values[:, :, :end]
        end = self.length + k.shape[2]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def follow(self, fed: int, device: torch.device, asked: int = 0, together: bool = False) -> Tensor | None:
        """Return the mask of the next `fed` inputs and of `asked` ones behind them: each attends to those before it and
        itself, or those `together` to all. bool (L, S), or None where attention needs none.
        """
        if together or not self.length:
            return None
        return causal_mask(fed + asked, self.length + fed + asked, device)

    def followed(self, device: torch.device) -> Tensor | None:
        """Return the mask of queries that attend to all that is cached and fed: bool (1, S), or None for all keys."""
        return None

    def commit(self, count: int) -> None:
        """Keep the next `count` entries that every layer has written."""
        self.length += count

    def place(self, first: Tensor, count: int) -> Tensor:
        """Let the next `count` inputs of each image be written from its slot `first` (B,) on, over what is there, and
        return their causal mask, bool (B, 1, L, S): an input attends to its own slot and those before it.

        Inputs beyond the capacity share the last slot.
        """
        slots = first.unsqueeze(1) + torch.arange(count, device=first.device)
        self.slots = slots.clamp(max=self.capacity - 1)
        self.length = int(self.slots.max()) + 1
        return (torch.arange(self.length, device=first.device) <= self.slots.unsqueeze(-1)).unsqueeze(1)

    def keep(self, rows: Tensor) -> None:
        """Keep some images of the batch, by their indices (n,)."""
        self.keys = [None if keys is None else keys[rows] for keys in self.keys]
        self.values = [None if values is None else values[rows] for values in self.values]


@dataclass
class State:
    """State of a generator between two sampling steps. It owns the cache, so nothing remains in the network."""

    cache: KVCache
    table: Tensor  # the rope table, (1 + N, E/2)
    waiting: Tensor  # (B, L, D) inputs for the first step: class and known tokens
    waiting_at: Tensor  # (B, L) their raster positions
    within_step: str  # how the tokens that one step decoded see each other
    asked: Tensor | None = None  # (B, n) raster positions that the last step predicted
    condition: Tensor | None = None  # (B, N, D) in raster space

    def keep(self, rows: Tensor) -> None:
        """Keep some images of the batch, by their indices (n,), after the first step."""
        self.cache.keep(rows)
        if self.condition is not None:
            self.condition = self.condition[rows]


class SelfAttention(nn.Module):
    """Multi-head self-attention; with fewer key-value heads it is grouped-query attention.

    bias: whether both projections have one. qk_norm: eps of a LayerNorm over each head's query and key; None for none.
    dropout: of attention weights, in training.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int,
        bias: bool = False,
        qk_norm: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.dropout = num_heads, num_kv_heads, dropout
        width = dim // num_heads
        self.qkv = nn.Linear(dim, (num_heads + 2 * num_kv_heads) * width, bias=bias)
        self.q_norm = None if qk_norm is None else nn.LayerNorm(width, qk_norm)
        self.k_norm = None if qk_norm is None else nn.LayerNorm(width, qk_norm)
        self.proj = nn.Linear(dim, dim, bias=bias)

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
        rows: slice | None = None,
        beside: int = 0,
    ) -> Tensor:
        """Return attention of x (B, L, D): (B, L, D), or some rows of it.

        rope: rotary positions of x, or None. cache, layer: keys and values to extend. beside: of the inputs so many at
        the end are not put into the cache; their keys stand behind it.
        """
        heads = (self.num_heads + self.num_kv_heads, self.num_kv_heads)
        qk, v = self.qkv(x).unflatten(-1, (-1, x.shape[-1] // self.num_heads)).transpose(1, 2).split(heads, 1)
        q, k = (qk if rope is None else rotate(qk, rope)).split((self.num_heads, self.num_kv_heads), 1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).type_as(v), self.k_norm(k).type_as(v)
        if cache is not None:
            kept = k.shape[2] - beside
            past = cache.extend(layer, k[:, :, :kept], v[:, :, :kept])
            k, v = (torch.cat((a, b[:, :, kept:]), 2) if beside else a for a, b in zip(past, (k, v), strict=True))
        if rows is not None:
            if causal and mask is None:
                mask = causal_mask(q.shape[2], k.shape[2], q.device)
            q, mask = q[:, :, rows], None if mask is None else mask[..., rows, :]
        dropout = self.dropout if self.training else 0.0
        return self.proj(attend(q, k, v, mask, causal, dropout).transpose(1, 2).flatten(-2))


class CrossAttention(nn.Module):
    """Cross-attention with keys and values that several blocks share (ARPG's second half)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Tensor, rope: Tensor, k: Tensor, v: Tensor, causal: bool = False, mask: Tensor | None = None
    ) -> Tensor:
        q = rotate(self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2), rope)
        return self.proj(attend(q, k, v, mask, causal).transpose(1, 2).flatten(-2))


class SwiGLU(nn.Module):
    """Feed-forward layer w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class MLP(nn.Module):
    """Feed-forward layer fc2(gelu(fc1 x)) with biases and the exact GELU, dropout behind that."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dropout(F.gelu(self.fc1(x))))


def ffn_width(dim: int, multiple: int = 256) -> int:
    """Return the hidden width that gives SwiGLU the size of a 4x layer: 8/3 of the width, rounded up to a multiple."""
    return -(-(8 * dim // 3) // multiple) * multiple


class Block(nn.Module):
    """Pre-norm residual block around any attention; dropout acts on what each part adds to the residual stream.

    gelu: the block of a vision transformer, with LayerNorm and `MLP` instead of RMSNorm and SwiGLU.
    """

    def __init__(self, attn: nn.Module, dim: int, ffn_dim: int, eps: float, dropout: float, gelu: bool = False) -> None:
        super().__init__()
        norm = nn.LayerNorm if gelu else nn.RMSNorm
        self.norm1 = norm(dim, eps)
        self.attn = attn
        self.norm2 = norm(dim, eps)
        self.mlp = MLP(dim, ffn_dim, dropout) if gelu else SwiGLU(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)
        self.checkpointing = False  # whether activations are recomputed in the backward pass

    def forward(self, x: Tensor, rope: Tensor | None, *args: Tensor, **kwargs: Any) -> Tensor:
        """Return (B, L, D) of x (B, L, D), or some `rows` of it. Other arguments are those of the attention."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, rope, *args, use_reentrant=False, **kwargs)
        return self._forward(x, rope, *args, **kwargs)

    def _forward(self, x: Tensor, rope: Tensor | None, *args: Tensor, **kwargs: Any) -> Tensor:
        added = self.dropout(self.attn(self.norm1(x), rope, *args, **kwargs))
        rows = kwargs.get("rows")
        x = (x if rows is None else x[:, rows]) + added
        return x + self.dropout(self.mlp(self.norm2(x)))
