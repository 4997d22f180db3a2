"""ARPG (arXiv 2503.10568): a first pass over the tokens makes keys and values, a second one queries them by position.

The first half reads class, x_0, x_1, ... causally and projects its output to one set of keys and values. In the
second half one query for each wanted position (the mask token, rotated to that position) attends to them, never to
another query, so any number of positions can be predicted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import orders
from .base import Context, Generator, State, Stream
from .control import conditioned
from .layers import CLASS_PLACE, KVCache, rope_at, rotate


class ARPG(Generator):
    """ARPG as a `Generator`; see there for the arguments. `depth` is the number of blocks of each half."""

    contexts = ("causal", "echo", "full", "after")
    default_spec = "raster/full/query/L-1/mean/mean"
    default_dense_spec = "raster/full/query/L0.67/none/mean"
    # the official sampler lets the tokens of one step see each other, though training was strictly causal
    within_step = ("group", "causal")
    fixed_shapes = True
    official_names: ClassVar = {
        "embedding.weight": ("embeddings.weight",),
        **{
            f"{ours}.*.{part}.weight": tuple(f"layers.{theirs}.*.{name}.weight" for name in names)
            for ours, theirs, qkv in (
                ("blocks", "self_dec", {"attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v")}),
                ("cross_blocks", "cross_dec", {"attn.q": ("attn.to_q",)}),
            )
            for part, names in {
                **qkv,
                "attn.proj": ("attn.proj",),
                "norm1": ("attn_norm",),
                "norm2": ("ffn_norm",),
                "mlp.w1": ("ffn.w1",),
                "mlp.w2": ("ffn.w2",),
                "mlp.w3": ("ffn.w3",),
            }.items()
        },
        "kv_norm.weight": ("layers.norm.weight",),
        "kv.weight": ("layers.to_k.weight", "layers.to_v.weight"),
        "norm.weight": ("norm.weight",),
        "head.weight": ("head.weight",),
    }

    def build(self) -> None:
        if self.num_kv_heads != self.num_heads:
            raise ValueError("ARPG has no grouped-query attention: leave num_kv_heads out")
        # rows: tokens, the mask token, classes, the null class, and one that official checkpoints hold but never use
        self.embedding = nn.Embedding(self.vocab_size + self.num_classes + 3, self.embed_dim)
        self.blocks = self.new_blocks(self.self_attention)
        self.kv_norm = nn.RMSNorm(self.embed_dim, self.norm_eps)
        self.kv = nn.Linear(self.embed_dim, 2 * self.embed_dim, bias=False)
        self.cross_blocks = self.new_blocks(self.cross_attention)
        self.norm = nn.RMSNorm(self.embed_dim, self.norm_eps)
        self.head = nn.Linear(self.embed_dim, self.vocab_size, bias=False)

    @property
    def label_rows(self) -> tuple[str, int]:
        return "embedding.weight", self.vocab_size + 1

    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        self.check_order(order, cut=True)
        condition = self.check_condition(condition, len(tokens))
        table, label = self.rope(tokens.device), self.labels(label, len(tokens))
        # the last token predicts nothing
        x, places = self._content(label, orders.gather(tokens, order)[:, :-1], order[:, :-1])
        rope = rope_at(table, places)
        for block in self.blocks:
            x = block(x, rope, causal=True)
        k, v = self._shared(x, rope)
        target = rope_at(table, order)
        y = self._queries(order, target, condition)
        for block in self.cross_blocks:
            y = block(y, target, k, v, causal=True)  # query i sees the class and x_0 .. x_{i-1}
        return self.norm(y)

    def states(
        self,
        tokens: Tensor,
        label: Tensor,
        order: Tensor,
        layers: Sequence[int],
        context: Context,
        stream: Stream,
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        table, count = self.rope(tokens.device), order.shape[1]
        copies = 2 if context == "echo" else 1
        x, places = self._content(label, orders.gather(tokens, order).repeat(1, copies), order.repeat(1, copies))
        rope = rope_at(table, places)
        if stream == "token":
            return self.through(self.blocks, x, rope, layers, slice(-count, None), causal=context != "full")
        for block in self.blocks:
            x = block(x, rope, causal=context != "full")
        k, v = self._shared(x, rope)
        causal = context in ("causal", "echo")
        if causal:
            k, v = k[:, :, :-1], v[:, :, :-1]  # no query before the end may see the last token
        target, states = rope_at(table, order), {}
        y = self._queries(order, target, condition)
        for i, block in enumerate(self.cross_blocks[: max(layers)], 1):
            y = states[i] = block(y, target, k, v, causal=causal)
        return [states[i] for i in layers]

    def start(
        self,
        label: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        within_step: str | None = None,
        table: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> State:
        within_step = self.check_within_step(within_step)
        table = self.rope(label.device) if table is None else table
        condition = self.check_condition(condition, len(label), len(table) - 1)
        if tokens is None or positions is None:
            tokens = positions = label.new_empty(len(label), 0)
        x, places = self._content(self.labels(label, len(label)), tokens, positions)
        # the last layer of the cache holds the shared keys and values; the last token is fed as a draft only
        cache = KVCache(self.depth + 1, len(table))
        return State(cache, table, x, places, within_step, condition=condition)

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        causal = state.within_step == "causal"
        x, places = state.waiting, state.waiting_at
        if state.asked is None or tokens is None:
            causal = True  # class and known tokens are read as in training
        else:
            x, places = self.dropout(self.embedding(tokens)), state.asked
        rope = rope_at(state.table, places)
        mask = state.cache.follow(x.shape[1], x.device, together=not causal)
        for i, block in enumerate(self.blocks):
            x = block(x, rope, mask=mask, causal=causal, cache=state.cache, layer=i)
        k, v = state.cache.extend(self.depth, *self._shared(x, rope))
        state.cache.commit(x.shape[1])
        state.asked = queries
        target = rope_at(state.table, queries)
        y = self._queries(queries, target, state.condition)
        mask = state.cache.followed(x.device)
        for block in self.cross_blocks:
            y = block(y, target, k, v, mask=mask)
        return self.head(self.norm(y))

    def verify(self, state: State, tokens: Tensor, positions: Tensor, done: Tensor) -> Tensor:
        x, rope = self.dropout(self.embedding(tokens)), rope_at(state.table, positions[:, :-1])
        mask = state.cache.place(done, x.shape[1])  # class, x_0, x_1, ...: x_i is at 1 + i
        for i, block in enumerate(self.blocks):
            x = block(x, rope, mask=mask, cache=state.cache, layer=i)
        k, v = state.cache.extend(self.depth, *self._shared(x, rope))
        asked = positions[:, 1:]
        target = rope_at(state.table, asked)
        y = self._queries(asked, target, state.condition)
        for block in self.cross_blocks:
            y = block(y, target, k, v, mask=mask)  # query i sees what the token before it sees
        return self.head(self.norm(y))

    def _content(self, label: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs of class and tokens, and their positions: (B,), (B, m), (B, m) -> (B, 1 + m, D), (B, 1 + m)."""
        ids = torch.cat((label.unsqueeze(1) + (self.vocab_size + 1), tokens), 1)
        return self.dropout(self.embedding(ids)), nn.functional.pad(positions, (1, 0), value=CLASS_PLACE)

    def _shared(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the one set of keys (rotated) and values, each (B, H, L, E), that every cross block attends to."""
        k, v = self.kv(self.kv_norm(x)).unflatten(-1, (2 * self.num_heads, -1)).transpose(1, 2).chunk(2, 1)
        return rotate(k, rope), v

    def _queries(self, positions: Tensor, rope: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the mask token's embedding for each position, plus the condition there: (B, n) -> (B, n, D).

        rope: of the positions, with which the blocks rotate queries.
        """
        return conditioned(self._mask.expand(*positions.shape, -1), condition, positions)

    @property
    def _mask(self) -> Tensor:
        return self.embedding.weight[self.vocab_size]


class PositionedARPG(ARPG):
    """ARPG whose queries begin with their position, which is not part of the paper or of published weights.

    A query of ARPG is the same vector at all positions, and tells its own by rotation alone, which acts on the weights
    of attention. The first one has the class alone to attend to, at any weight the same, so ARPG predicts the first
    token of an image without regard to its position, and the next few with little. On small grids these are a good part
    of an image (docs/results/fashion.md). Here the vector itself is rotated, head by head, as RandAR's instruction
    tokens are; there are no more parameters.
    """

    official_names: ClassVar = {}

    def _queries(self, positions: Tensor, rope: Tensor, condition: Tensor | None = None) -> Tensor:
        batch, count = positions.shape  # `len` would be a constant in an exported program
        heads = self._mask.view(self.num_heads, 1, -1).expand(batch, -1, count, -1)
        return conditioned(rotate(heads, rope).transpose(1, 2).flatten(2), condition, positions)
