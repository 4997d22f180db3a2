"""RandAR (arXiv 2412.01827): a decoder-only transformer with a position-instruction token before each token.

The sequence is class, q_0, x_0, q_1, x_1, ... with q_i an instruction token (one learned vector, rotated to the
position that comes next) and x_i the token at that position. The prediction of x_i is read at q_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from . import orders
from .base import ASKED_BEHIND, Context, Generator, State, Stream
from .control import conditioned
from .layers import CLASS_PLACE, KVCache, causal_mask, rope_at, rotate


@dataclass
class RandARState(State):
    """State of sampling with the instruction tokens of the grid."""

    instructions: Tensor = field(kw_only=True)  # (N, D), one for each position


class RandAR(Generator):
    """RandAR as a `Generator`; see there for the arguments."""

    contexts = ("causal", "echo", "full", "after", "bare")
    default_spec = "raster/full/query/L-1/mean/mean"
    default_dense_spec = "raster/full/query/L0.67/none/mean"
    within_step = ("causal",)
    fixed_shapes = True
    inputs_per_token = 2
    known_inputs = slice(2, None, 2)  # class, q_0, x_0, q_1, x_1, ...
    official_names: ClassVar = {
        "instruction": ("pos_instruct_embeddings",),
        "label_embedding.weight": ("cls_embedding.embedding_table.weight",),
        "token_embedding.weight": ("tok_embeddings.weight",),
        "blocks.*.norm1.weight": ("layers.*.attention_norm.weight",),
        "blocks.*.attn.qkv.weight": ("layers.*.attention.wqkv.weight",),
        "blocks.*.attn.proj.weight": ("layers.*.attention.wo.weight",),
        "blocks.*.norm2.weight": ("layers.*.ffn_norm.weight",),
        "blocks.*.mlp.w1.weight": ("layers.*.feed_forward.w1.weight",),
        "blocks.*.mlp.w2.weight": ("layers.*.feed_forward.w2.weight",),
        "blocks.*.mlp.w3.weight": ("layers.*.feed_forward.w3.weight",),
        "norm.weight": ("norm.weight",),
        "head.weight": ("output.weight",),
    }

    def build(self) -> None:
        self.label_embedding = nn.Embedding(self.num_classes + 1, self.embed_dim)
        self.token_embedding = nn.Embedding(self.vocab_size, self.embed_dim)
        self.instruction = nn.Parameter(torch.empty(1, self.embed_dim))
        self.blocks = self.new_blocks(self.self_attention)
        self.norm = nn.RMSNorm(self.embed_dim, self.norm_eps)
        self.head = nn.Linear(self.embed_dim, self.vocab_size, bias=False)

    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        self.check_order(order, cut=True)
        condition = self.check_condition(condition, len(tokens))
        table = self.rope(tokens.device)
        read, label = orders.gather(tokens, order), self.labels(label, len(tokens))
        x, places = self._sequence(self._instructions(table), label, read, order, condition)
        x, rope = x[:, :-1], rope_at(table, places[:, :-1])  # the last token predicts nothing
        for block in self.blocks:
            x = block(x, rope, causal=True)
        return self.norm(x[:, 1::2])

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
        table, read = self.rope(tokens.device), orders.gather(tokens, order)
        instructions = self._instructions(table)
        x, places = self._sequence(instructions, label, read, order, condition)
        if context == "bare":
            x, places = (torch.cat((part[:, :1], part[:, self.known_inputs]), 1) for part in (x, places))
        first, mask = x.shape[1], None
        if context == "echo":
            again = self._interleaved(instructions, read, order, condition)
            x, places = torch.cat((x, again[0]), 1), torch.cat((places, again[1]), 1)
        elif context in ASKED_BEHIND:
            x = torch.cat((x, conditioned(instructions[order], condition, order)), 1)
            places = torch.cat((places, order), 1)
            # an extra query sees class, image and itself: among the extra queries the mask is the identity
            mask = causal_mask(x.shape[1], x.shape[1], x.device)
            mask[first:, first:] = torch.eye(order.shape[1], dtype=torch.bool, device=x.device)
        if context in ASKED_BEHIND:
            rows = slice(first, None)
        else:
            offset = first if context == "echo" else 1
            rows = slice(offset + (stream == "token"), None, 2)
        return self.through(self.blocks, x, rope_at(table, places), layers, rows, mask=mask, causal=context != "full")

    def start(
        self,
        label: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        within_step: str | None = None,
        table: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> RandARState:
        within_step = self.check_within_step(within_step)
        table = self.rope(label.device) if table is None else table
        condition = self.check_condition(condition, len(label), len(table) - 1)
        if tokens is None or positions is None:
            tokens = positions = label.new_empty(len(label), 0)
        instructions = self._instructions(table)
        x, places = self._sequence(instructions, self.labels(label, len(label)), tokens, positions, condition)
        cache = KVCache(self.depth, 2 * len(table) - 1)
        return RandARState(cache, table, x, places, within_step, condition=condition, instructions=instructions)

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        assert isinstance(state, RandARState)  # `start` made it
        x, places = state.waiting, state.waiting_at
        if state.asked is not None and tokens is not None:
            x, places = self._interleaved(state.instructions, tokens, state.asked, state.condition)
            x, places = x[:, 1:], places[:, 1:]  # the first q is in the cache, and saw all tokens that it may see
        # the later queries of this step do not see its tokens, so the next step overwrites them
        kept = x.shape[1] + 1
        x = torch.cat((x, conditioned(state.instructions[queries], state.condition, queries)), 1)
        rope = rope_at(state.table, torch.cat((places, queries), 1))
        mask = state.cache.follow(kept - 1, x.device, queries.shape[1])
        for i, block in enumerate(self.blocks):
            # of the deepest block only what the head reads
            rows = slice(-queries.shape[1], None) if i == self.depth - 1 else None
            x = block(x, rope, mask=mask, causal=True, cache=state.cache, layer=i, rows=rows)
        state.cache.commit(kept)
        state.asked = queries
        return self.head(self.norm(x))

    def verify(self, state: State, tokens: Tensor, positions: Tensor, done: Tensor) -> Tensor:
        assert isinstance(state, RandARState)  # `start` made it
        x, places = self._interleaved(state.instructions, tokens, positions[:, :-1], state.condition)
        # without the q of the last token decoded, which is in the cache, and with one behind the drafts
        last = positions[:, -1:]
        x = torch.cat((x[:, 1:], conditioned(state.instructions[last], state.condition, last)), 1)
        rope = rope_at(state.table, torch.cat((places[:, 1:], last), 1))
        mask = state.cache.place(2 * done, x.shape[1])  # class, q_0, x_0, q_1, x_1, ...: x_i is at 2 + 2i
        for i, block in enumerate(self.blocks):
            rows = slice(1, None, 2) if i == self.depth - 1 else None
            x = block(x, rope, mask=mask, cache=state.cache, layer=i, rows=rows)
        return self.head(self.norm(x))

    def _instructions(self, table: Tensor) -> Tensor:
        """Return the instruction token of each position: the shared vector, each head rotated to it. (N, D)."""
        vector = self.instruction.view(1, self.num_heads, 1, -1).expand(-1, -1, len(table) - 1, -1)
        return rotate(vector, table[None, 1:]).transpose(1, 2).flatten(2)[0]

    def _interleaved(
        self, instructions: Tensor, tokens: Tensor, positions: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return q_0, x_0, q_1, x_1, ... and their positions: tokens, positions (B, m) -> (B, 2m, D), (B, 2m)."""
        asked = conditioned(instructions[positions], condition, positions)
        x = torch.stack((asked, self.dropout(self.token_embedding(tokens))), 2)
        return x.flatten(1, 2), positions.repeat_interleave(2, 1)

    def _sequence(
        self,
        instructions: Tensor,
        label: Tensor,
        tokens: Tensor,
        positions: Tensor,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the class token followed by `_interleaved`: inputs (B, 1 + 2m, D) and their positions (B, 1 + 2m)."""
        x, places = self._interleaved(instructions, tokens, positions, condition)
        x = torch.cat((self.label_embedding(label).unsqueeze(1), x), 1)
        return x, nn.functional.pad(places, (1, 0), value=CLASS_PLACE)
