"""LPD, locality-aware parallel decoding (arXiv 2507.01957): groups of tokens that are asked for together.

The sequence is class, x_0, x_1, ..., and behind it a query for each wanted position: the mask token with the learned
embedding of that position. A token sees the class and the tokens before it, a query those and the queries of its own
group, no token ever a query. In training and in sampling alike the tokens of one group see each other, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import orders
from .base import Context, Generator, State, Stream
from .control import conditioned
from .layers import CLASS_PLACE, KVCache, SelfAttention, causal_mask

INPUT_NORM_EPS = 1e-6


class LPD(Generator):
    """LPD as a `Generator`; see there for the arguments.

    The rows of `forward` are those of groups of one token, the chain rule of an order; `pre_logits` takes the sizes of
    other groups. `dropout` acts on what each sub-block adds and inside the MLP, not on embeddings, as published.
    """

    contexts = ("causal", "echo", "full", "after")
    default_spec = "raster/full/query/L-1/mean/mean"
    default_dense_spec = "raster/full/query/L0.67/none/mean"
    # group: tokens and queries of one step see each other, as in training with groups. causal: neither do
    within_step = ("group", "causal")
    rotary, zero_head, grouped = False, False, True
    norm_eps = 1e-6
    official_rows: ClassVar = {"fake_latent": 1}
    official_names: ClassVar = {
        "label_embedding.weight": ("class_emb.weight", "fake_latent"),
        "token_embedding.weight": ("token_emb.weight",),
        "mask_token": ("mask_token",),
        "position_embedding": ("pos_embed",),
        **{
            f"{ours}.{kind}": (f"{theirs}.{kind}",)
            for ours, theirs in {
                "input_norm": "z_proj_ln",
                **{
                    f"blocks.*.{part}": f"blocks.*.{part}"
                    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
                },
                "norm": "norm",
            }.items()
            for kind in ("weight", "bias")
        },
        "head.weight": ("head.weight",),
    }

    def build(self) -> None:
        if self.num_kv_heads != self.num_heads:
            raise ValueError("LPD has no grouped-query attention: leave num_kv_heads out")
        self.label_embedding = nn.Embedding(self.num_classes + 1, self.embed_dim)
        self.token_embedding = nn.Embedding(self.vocab_size, self.embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        # row 0 is the class's, row 1 + r that of raster position r
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + self.num_tokens, self.embed_dim))
        self.input_norm = nn.LayerNorm(self.embed_dim, INPUT_NORM_EPS)
        self.blocks = self.new_blocks(self.self_attention)
        self.norm = nn.LayerNorm(self.embed_dim, self.norm_eps)
        self.head = nn.Linear(self.embed_dim, self.vocab_size, bias=False)

    def self_attention(self) -> SelfAttention:
        return SelfAttention(self.embed_dim, self.num_heads, self.num_kv_heads, bias=True)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise linear layers, the head too, by Xavier's uniform rule with biases of zero, all embeddings normally
        with std 0.02, as published.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        embeddings = (self.label_embedding.weight, self.token_embedding.weight)
        for parameter in (*embeddings, self.mask_token, self.position_embedding):
            nn.init.normal_(parameter, std=0.02, generator=generator)

    def pre_logits(
        self,
        tokens: Tensor,
        label: Tensor | None,
        order: Tensor,
        condition: Tensor | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the input of the head, as `Generator.pre_logits` does.

        sizes: of the groups in turn, which sum to the length n of the order; None is groups of one token.
        """
        self.check_order(order, cut=True)
        condition, count = self.check_condition(condition, len(tokens)), order.shape[1]
        if sizes is not None and (sum(sizes) != count or min(sizes) < 1):
            raise ValueError(f"sizes of groups are whole numbers from 1 that sum to {count}, got {list(sizes)}")
        last = 1 if sizes is None else sizes[-1]
        # the tokens of the last group predict nothing
        read = orders.gather(tokens, order)[:, : count - last]
        x = self._content(self.labels(label, len(tokens)), read, order[:, : count - last])
        x = torch.cat((x, self._queries(order, condition)), 1)
        group = torch.arange(count, device=order.device)
        if sizes is not None:
            numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes), output_size=count)
            group = numbers.to(order.device)
        mask = group_mask(group[: count - last], group)
        for block in self.blocks:
            x = block(x, None, mask=mask)
        return self.norm(x[:, -count:])

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
        x = self._content(label, orders.gather(tokens, order).repeat(1, copies), order.repeat(1, copies))
        rows = slice(-count, None)
        if stream == "token":
            return self.through(self.blocks, x, None, layers, rows, causal=context != "full")
        place = torch.arange(copies * count, device=order.device)
        behind = {"causal": 0, "full": 1, "echo": count, "after": count}[context]
        mask = group_mask(place * (context != "full"), behind + place[:count])
        x = torch.cat((x, self._queries(order, condition)), 1)
        return self.through(self.blocks, x, None, layers, rows, mask=mask)

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
        self.check_table(table)
        condition = self.check_condition(condition, len(label))
        if tokens is None or positions is None:
            tokens = positions = label.new_empty(len(label), 0)
        x = self._content(self.labels(label, len(label)), tokens, positions)
        places = F.pad(positions, (1, 0), value=CLASS_PLACE)
        # class, tokens before the step and its queries: the last tokens are never fed
        cache = KVCache(self.depth, 1 + self.num_tokens)
        return State(cache, x.new_empty(0), x, places, within_step, condition=condition)

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        together, x = state.within_step == "group", state.waiting
        first = state.asked is None or tokens is None  # which reads class and known tokens causally
        if state.asked is not None and tokens is not None:
            x = self._embedded(self.token_embedding(tokens), state.asked)
        fed, asked, before = x.shape[1], queries.shape[1], state.cache.length
        x = torch.cat((x, self._queries(queries, state.condition)), 1)
        mask = causal_mask(fed + asked, before + fed + asked, x.device)
        if together and not first:
            mask[:fed, : before + fed] = True
        mask[fed:, before + fed :] = True if together else torch.eye(asked, dtype=torch.bool, device=x.device)
        for i, block in enumerate(self.blocks):
            # of the deepest block only what the head reads
            rows = slice(fed, None) if i == self.depth - 1 else None
            x = block(x, None, mask=mask, cache=state.cache, layer=i, rows=rows)
        state.cache.commit(fed)  # the next step overwrites the queries
        state.asked = queries
        return self.head(self.norm(x))

    def verify(self, state: State, tokens: Tensor, positions: Tensor, done: Tensor) -> Tensor:
        count = tokens.shape[1]
        x = self._embedded(self.token_embedding(tokens), positions[:, :-1])
        x = torch.cat((x, self._queries(positions[:, 1:], state.condition)), 1)
        seen = state.cache.place(done, count)  # class, x_0, x_1, ...: x_i is at 1 + i
        # query i sees what the token before it sees, and itself
        itself = torch.eye(count, dtype=torch.bool, device=x.device).expand(x.shape[0], 1, -1, -1)
        mask = torch.cat((torch.cat((seen, torch.zeros_like(itself)), -1), torch.cat((seen, itself), -1)), -2)
        for i, block in enumerate(self.blocks):
            rows = slice(count, None) if i == self.depth - 1 else None
            x = block(x, None, mask=mask, cache=state.cache, layer=i, rows=rows, beside=count)
        return self.head(self.norm(x))

    def _embedded(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return inputs (B, m, D) of vectors (B, m, D) at positions (B, m), CLASS_PLACE for the class."""
        return self.input_norm(x + self.position_embedding[0, positions - CLASS_PLACE])

    def _content(self, label: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return inputs of class and tokens: (B,), (B, m), (B, m) -> (B, 1 + m, D)."""
        x = torch.cat((self.label_embedding(label).unsqueeze(1), self.token_embedding(tokens)), 1)
        return self._embedded(x, F.pad(positions, (1, 0), value=CLASS_PLACE))

    def _queries(self, positions: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return a query for each position: (B, n) -> (B, n, D)."""
        return conditioned(self._embedded(self.mask_token, positions), condition, positions)


def group_mask(read: Tensor, asked: Tensor) -> Tensor:
    """Return the mask of class, tokens and queries, bool (L, L), L = 1 + m + n, from the numbers of their groups.

    read: (m,), of the tokens; asked: (n,), of the queries. A token sees the class and all tokens of groups up to its
    own; a query the class, all tokens of groups before its own, and the queries of its own.
    """
    read = F.pad(read, (1, 0), value=-1)  # the class
    tokens = F.pad(read <= read.unsqueeze(1), (0, len(asked)))
    queries = torch.cat((read < asked.unsqueeze(1), asked == asked.unsqueeze(1)), 1)
    return torch.cat((tokens, queries))


def resized_positions(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the position table of another grid, to go on training there: (1, 1 + N, D) -> (1, 1 + M, D).

    The class keeps its row, the others are resized bicubically, as in the official code.
    """
    image = table[:, 1:].transpose(1, 2).unflatten(2, trained)
    resized = F.interpolate(image, size=grid, mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], resized.flatten(2).transpose(1, 2)), 1)
