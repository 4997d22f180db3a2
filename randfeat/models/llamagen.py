"""LlamaGen's class-conditional GPT (arXiv 2406.06525), the raster-order baseline of random-order models.

The sequence is class, x_0, x_1, ..., x_{N-2}, each token rotated to its own position. The prediction of x_i is read at
the token before it, so the network is not told which position comes next: it knows raster order only, decodes one token
a step and has no query stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Context, Generator, State, Stream
from .layers import CLASS_PLACE, KVCache, rope_at
from .randar import RandAR


class LlamaGen(Generator):
    """LlamaGen's GPT as a `Generator`, in raster order only; see there for the arguments."""

    order_modes = ("raster",)
    contexts = ("causal", "echo", "full")
    streams = ("token",)
    within_step = ("causal",)
    one_token_a_step = True
    # RandAR's official code grew from LlamaGen's and kept its names
    official_names: ClassVar = {ours: name for ours, name in RandAR.official_names.items() if ours != "instruction"}
    unused: ClassVar = ("freqs_cis",)  # a table of rotary embeddings, which some versions of the official code saved

    def build(self) -> None:
        self.label_embedding = nn.Embedding(self.num_classes + 1, self.embed_dim)
        self.token_embedding = nn.Embedding(self.vocab_size, self.embed_dim)
        self.blocks = self.new_blocks(self.self_attention)
        self.norm = nn.RMSNorm(self.embed_dim, self.norm_eps)
        self.head = nn.Linear(self.embed_dim, self.vocab_size, bias=False)

    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        self.check_order(order, cut=True)
        self.check_condition(condition, len(tokens))
        # the last token predicts nothing
        read = tokens[:, : order.shape[1] - 1]
        x, places = self._sequence(self.labels(label, len(tokens)), read, order[:, :-1])
        rope = rope_at(self.rope(tokens.device), places)
        for block in self.blocks:
            x = block(x, rope, causal=True)
        return self.norm(x)

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
        copies = 2 if context == "echo" else 1
        x, places = self._sequence(label, tokens.repeat(1, copies), order.repeat(1, copies))
        rope, rows = rope_at(self.rope(tokens.device), places), slice(-order.shape[1], None)
        return self.through(self.blocks, x, rope, layers, rows, causal=context != "full")

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
        self.check_condition(condition, len(label))
        table = self.rope(label.device) if table is None else table
        if tokens is None or positions is None:
            tokens = positions = label.new_empty(len(label), 0)
        self._check_next(positions, 0)
        x, places = self._sequence(self.labels(label, len(label)), tokens, positions)
        # the last token decoded is never fed
        return State(KVCache(self.depth, len(table) - 1), table, x, places, within_step)

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        x, places = state.waiting, state.waiting_at
        if state.asked is not None and tokens is not None:
            x, places = self.dropout(self.token_embedding(tokens)), state.asked
        if queries.shape[1] != 1:
            raise ValueError(f"LlamaGen decodes one token a step, {queries.shape[1]} were asked for")
        self._check_next(queries, state.cache.length + x.shape[1] - 1)  # without the class
        rope = rope_at(state.table, places)
        for i, block in enumerate(self.blocks):
            x = block(x, rope, causal=True, cache=state.cache, layer=i)
        state.cache.commit(x.shape[1])
        state.asked = queries
        return self.head(self.norm(x[:, -1:]))

    def _check_next(self, positions: Tensor, first: int) -> None:
        """Raise a ValueError unless positions (B, n) are those from `first` on; on the CPU only, see `labels`."""
        expected = torch.arange(first, first + positions.shape[1])
        if positions.device.type == "cpu" and (positions != expected).any():
            raise ValueError(f"LlamaGen goes on in raster order: expected positions {expected.tolist()}")

    def _sequence(self, label: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs of class and tokens, and their positions: (B,), (B, m), (B, m) -> (B, 1 + m, D), (B, 1 + m)."""
        x = torch.cat((self.label_embedding(label).unsqueeze(1), self.token_embedding(tokens)), 1)
        return self.dropout(x), nn.functional.pad(positions, (1, 0), value=CLASS_PLACE)
