"""RAR, randomized autoregressive visual generation (arXiv 2411.00776): each input says where the next token lies.

The sequence is cls, class, x_0, x_1, ..., each with the learned embedding of its own position and, except for the
first, the target-aware one of the position that comes next. The prediction of x_i is read at the token before it, so
the states depend on the next position and there is no query stream. Norms are shifted and scaled by a vector of class
and place in the sequence (adaLN, arXiv 2212.09748).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import orders
from .base import Context, Generator, State, Stream
from .layers import CLASS_PLACE, Block, KVCache, SelfAttention

# rows that official tables have beyond those of an image
SPARE_POSITIONS, SPARE_STEPS = 1024, 100
TOKENS = 2  # place of the first token in the sequence, and row of raster position 0 in a table of positions


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class AdaLNBlock(Block):
    """Block of a vision transformer whose norms are shifted and scaled, and whose parts are gated, by a vector."""

    def __init__(self, attn: nn.Module, dim: int, ffn_dim: int, eps: float, dropout: float) -> None:
        super().__init__(attn, dim, ffn_dim, eps, dropout, gelu=True)
        self.modulation = nn.Linear(dim, 6 * dim)

    def _forward(self, x: Tensor, rope: Tensor | None, *args: Tensor, **kwargs: Any) -> Tensor:
        """Return (B, L, D), or some rows of it. kwargs: of the attention, and `vector`, (B, L, D)."""
        rows, vector = kwargs.get("rows"), kwargs.pop("vector")
        shift, scale, gate, *second = self.modulation(F.silu(vector)).chunk(6, -1)
        added = self.dropout(self.attn(modulated(self.norm1(x), shift, scale), rope, *args, **kwargs))
        if rows is not None:
            x, gate, *second = (part[:, rows] for part in (x, gate, *second))
        x = x + gate * added
        shift, scale, gate = second
        return x + gate * self.dropout(self.mlp(modulated(self.norm2(x), shift, scale)))


@dataclass
class RARState(State):
    """State of sampling with the embedding of the class, which modulates every place."""

    label: Tensor = field(kw_only=True)  # (B, D)


class RAR(Generator):
    """RAR as a `Generator`; see there for the arguments.

    It decodes one token a step, in any order; the published weights ended their training on raster order alone, which
    is the default. `dropout` acts on attention weights, on what each sub-block adds and inside the MLP.
    """

    contexts = ("causal", "echo", "full")
    streams = ("token",)
    order_modes = ("raster", *(mode for mode in orders.MODES if mode != "raster"))
    within_step = ("causal",)
    rotary, zero_head, one_token_a_step, target_aware = False, False, True, True
    norm_eps = 1e-6
    # matrices that published training left without weight decay
    not_decayed: ClassVar = (
        *("embedding.weight", "position_embedding", "target_embedding", "step_embedding"),
        "modulation.weight",
    )
    official_names: ClassVar = {
        "cls_token": ("cls_token",),
        "embedding.weight": ("embeddings.weight",),
        "position_embedding": ("pos_embed",),
        "target_embedding": ("target_aware_pos_embed",),
        "step_embedding": ("timesteps_embeddings",),
        **{
            f"{ours}.{kind}": (f"{theirs}.{kind}",)
            for ours, theirs in {
                **{
                    f"blocks.*.{part}": f"blocks.*.{part}"
                    for part in ("norm1", "attn.qkv", "attn.q_norm", "attn.k_norm", "attn.proj")
                },
                **{f"blocks.*.{part}": f"blocks.*.{part}" for part in ("norm2", "mlp.fc1", "mlp.fc2")},
                "blocks.*.modulation": "blocks.*.adaLN_modulation.1",
                "modulation": "adaln_before_head.adaLN_modulation.1",
                "head": "lm_head",
            }.items()
            for kind in ("weight", "bias")
        },
    }

    def build(self) -> None:
        if self.num_kv_heads != self.num_heads:
            raise ValueError("RAR has no grouped-query attention: leave num_kv_heads out")
        width = self.embed_dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        # rows: tokens, a mask token that is never used, classes, the null class
        self.embedding = nn.Embedding(self.vocab_size + self.num_classes + 2, width)
        # rows: cls, class, raster positions
        self.position_embedding = nn.Parameter(torch.empty(1, self.num_tokens + SPARE_POSITIONS, width))
        self.target_embedding = nn.Parameter(torch.empty(1, self.num_tokens + SPARE_POSITIONS, width))
        self.step_embedding = nn.Parameter(torch.empty(1, self.num_tokens + SPARE_STEPS, width))
        self.blocks = nn.ModuleList(
            AdaLNBlock(self.self_attention(), width, self.ffn_dim, self.norm_eps, self.dropout.p)
            for _ in range(self.depth)
        )
        self.norm = nn.LayerNorm(width, self.norm_eps, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, self.vocab_size)

    @property
    def label_rows(self) -> tuple[str, int]:
        return "embedding.weight", self.vocab_size + 1

    def self_attention(self) -> SelfAttention:
        return SelfAttention(
            self.embed_dim,
            self.num_heads,
            self.num_kv_heads,
            bias=True,
            qk_norm=self.norm_eps,
            dropout=self.dropout.p,
        )

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise matrices and tables by a normal distribution of std 0.02, cut off at 2; the cls token, biases and
        all that modulates with zeros, as published.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):
                nn.init.ones_(parameter)
            elif parameter.ndim == 1 or "modulation" in name or name == "cls_token":
                nn.init.zeros_(parameter)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)

    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        self.check_order(order, cut=True)
        self.check_condition(condition, len(tokens))
        # the last token predicts nothing
        read, embedded = orders.gather(tokens, order)[:, :-1], self._class(self.labels(label, len(tokens)))
        x = self._sequence(embedded, read, order[:, :-1], order)
        vector = self._vector(embedded, torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            x = block(x, None, vector=vector, causal=True)
        return self.normed(x[:, 1:], vector[:, 1:])

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
        count, copies = order.shape[1], 2 if context == "echo" else 1
        read, places, embedded = orders.gather(tokens, order), order.repeat(1, copies), self._class(label)
        # behind the last token of the first pass comes the first of the second
        x = self._sequence(embedded, read.repeat(1, copies), places, places)
        place = torch.arange(TOKENS + count, device=x.device)
        # both passes have the same places in the sequence
        vector = self._vector(embedded, torch.cat((place, *[place[TOKENS:]] * (copies - 1))))
        rows = slice(-count, None)
        return self.through(self.blocks, x, None, layers, rows, vector=vector, causal=context != "full")

    def start(
        self,
        label: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        within_step: str | None = None,
        table: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> RARState:
        within_step = self.check_within_step(within_step)
        self.check_table(table)
        self.check_condition(condition, len(label))
        if tokens is None or positions is None:
            tokens = positions = label.new_empty(len(label), 0)
        embedded = self._class(self.labels(label, len(label)))
        x = self._sequence(embedded, tokens, positions, positions)  # the first step says what follows the last
        places = F.pad(positions, (TOKENS, 0), value=CLASS_PLACE)
        cache = KVCache(self.depth, self.num_tokens + 1)  # the last token decoded is never fed
        return RARState(cache, x.new_empty(0), x, places, within_step, label=embedded)

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        assert isinstance(state, RARState)  # `start` made it
        if queries.shape[1] != 1:
            raise ValueError(f"RAR decodes one token a step, {queries.shape[1]} were asked for")
        x = state.waiting
        if state.asked is not None and tokens is not None:
            x = self.embedding(tokens) + self.position_embedding[0, TOKENS + state.asked]
        x = torch.cat((x[:, :-1], x[:, -1:] + self.target_embedding[0, TOKENS + queries]), 1)
        before, fed = state.cache.length, x.shape[1]
        vector = self._vector(state.label, torch.arange(before, before + fed, device=x.device))
        for i, block in enumerate(self.blocks):
            # of the deepest block only what the head reads
            rows = slice(-1, None) if i == self.depth - 1 else None
            x = block(x, None, vector=vector, causal=True, cache=state.cache, layer=i, rows=rows)
        state.cache.commit(fed)
        state.asked = queries
        return self.head(self.normed(x, vector[:, -1:]))

    def normed(self, x: Tensor, vector: Tensor) -> Tensor:
        """Return the input of the head: states after the last block and their vectors, (B, n, D) -> (B, n, D)."""
        scale, shift = self.modulation(F.silu(vector)).chunk(2, -1)
        return modulated(self.norm(x), shift, scale)

    def _class(self, label: Tensor) -> Tensor:
        """Return the embeddings of labels (B,): (B, D)."""
        return self.embedding(label + (self.vocab_size + 1))

    def _vector(self, label: Tensor, places: Tensor) -> Tensor:
        """Return what modulates the places (n,) of the sequence, cls being 0, for class vectors (B, D): (B, n, D)."""
        return label.unsqueeze(1) + self.step_embedding[0, places]

    def _sequence(self, label: Tensor, tokens: Tensor, positions: Tensor, following: Tensor) -> Tensor:
        """Return inputs of cls, class and tokens: (B, D), (B, m), (B, m), (B, f) -> (B, 2 + m, D).

        following: positions that follow the class and the first f - 1 tokens; f is m, or m + 1.
        """
        x = torch.cat((label.unsqueeze(1), self.embedding(tokens)), 1)
        x = x + self.position_embedding[0, F.pad(positions + TOKENS, (1, 0), value=TOKENS - 1)]
        targets = self.target_embedding[0, following + TOKENS]
        x = x + F.pad(targets, (0, 0, 0, x.shape[1] - targets.shape[1]))
        first = self.cls_token + self.position_embedding[:, :1]
        return torch.cat((first.expand(x.shape[0], -1, -1), x), 1)
