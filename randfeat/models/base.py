"""Base class of generators: networks that read and decode the tokens of an image in any order.

Shapes: B images, N = h * w tokens, V vocabulary, D width. Tokens are given by raster position; the logits of a
teacher-forced forward are in the sequence of the order; hidden states are by raster position. A label is a class index,
or `num_classes` for the null class; None is the null class for every image. A condition is one vector (D) for each
position, which `control` makes of an image; zeros, like None, are no condition.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..utils.checks import check_whole_number
from . import orders
from .control import Control
from .layers import Block, CrossAttention, SelfAttention, State, ffn_width, rope_table

# bytes of the residual stream that are read at once on a CPU; more would not stay in its caches
BYTES_AT_ONCE = 2 * 2**20
Context = Literal["causal", "echo", "full", "after", "bare"]
ASKED_BEHIND = ("after", "bare")  # contexts of extra queries behind the image: they have no token stream
Stream = Literal["token", "query"]


class Generator(nn.Module, ABC):
    """Base of every generator, built from plain keywords, which `config` keeps.

    Args:
        grid: rows and columns of tokens. Any h x w.
        vocab_size: size V of the tokenizer's codebook.
        num_classes: labelled classes; 0 makes a generator that never sees a label.
        embed_dim: width D.
        depth: blocks of a stream (ARPG has this many in each of its two halves).
        num_heads: attention heads. D / num_heads must be divisible by 4 where positions are rotations.
        num_kv_heads: key-value heads; fewer than num_heads is grouped-query attention.
        ffn_dim: hidden width of SwiGLU, by default 8/3 of D rounded up to a multiple of 256; of an MLP, by default 4 D.
        dropout: probability in training, on token embeddings and on what each sub-block adds.
        control: keywords of `add_control`, for a generator with an adapter for condition images.
    """

    # the contexts and streams that a model has; others are a ValueError with these lists
    contexts: ClassVar[tuple[str, ...]]
    streams: ClassVar[tuple[str, ...]] = ("token", "query")
    # default feature specs (see `readout.FeatureSpec`) of an image and of its positions: the best of one pass in
    # docs/reading.md
    default_spec: ClassVar[str] = "raster/causal/token/L0.5/mean/mean"
    default_dense_spec: ClassVar[str] = "raster/causal/token/L0.5/none/mean"
    # order modes of reading and decoding, the default first
    order_modes: ClassVar[tuple[str, ...]] = ("random", *orders.FIXED, "locality")
    # parameter names here -> in official checkpoints; several are stacked along dimension 0; * stands for a number
    official_names: ClassVar[dict[str, tuple[str, ...]]]
    head: nn.Linear  # from `pre_logits` to logits
    zero_head: ClassVar[bool] = True  # whether fresh weights predict nothing
    official_rows: ClassVar[dict[str, int]] = {}  # of tensors that are stacked with others of another size
    unused: ClassVar[tuple[str, ...]] = ()  # entries of official checkpoints that are not read here
    rotary: ClassVar[bool] = True  # else positions are learned, in blocks of a vision transformer
    norm_eps: float = 1e-5
    one_token_a_step: ClassVar[bool] = False  # the prediction of a token is read at the one before
    target_aware: ClassVar[bool] = False  # whether a token's state depends on the position of the next
    # whether `pre_logits` takes the sizes of groups of tokens that are decoded together, and training draws them
    grouped: ClassVar[bool] = False
    inputs_per_token: ClassVar[int] = 1
    # the known tokens among the inputs of the first step
    known_inputs: ClassVar[slice] = slice(1, None)
    # modes of attention among the tokens that one sampling step decoded, the default first
    within_step: ClassVar[tuple[str, ...]]
    # whether `step` works with a `FixedCache`, where the token of place i of the order is in slot
    # inputs_per_token * (1 + i)
    fixed_shapes: ClassVar[bool] = False

    def __init__(
        self,
        grid: tuple[int, int],
        vocab_size: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        ffn_dim: int | None = None,
        dropout: float = 0.0,
        norm_eps: float | None = None,
        rope_base: float = 10000.0,
        control: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        sizes = dict(vocab_size=vocab_size, embed_dim=embed_dim, depth=depth, num_heads=num_heads)
        for name, size in sizes.items():
            check_whole_number(name, size, 1)
        orders.check_grid(grid)
        if num_classes < 0:
            raise ValueError(f"num_classes must be 0 or more, got {num_classes}")
        num_kv_heads = num_kv_heads or num_heads
        ffn_dim = ffn_dim or (ffn_width(embed_dim) if self.rotary else 4 * embed_dim)
        if num_heads < 1 or embed_dim % num_heads or (self.rotary and (embed_dim // num_heads) % 4):
            what = "a whole number" + " divisible by 4" * self.rotary
            raise ValueError(f"embed_dim {embed_dim} over num_heads {num_heads} must be {what}")
        if num_heads % num_kv_heads:
            raise ValueError(f"num_heads {num_heads} must be a multiple of num_kv_heads {num_kv_heads}")
        self.config: dict[str, Any] = dict(
            grid=[*grid],
            vocab_size=vocab_size,
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            ffn_dim=ffn_dim,
            dropout=dropout,
            norm_eps=self.norm_eps if norm_eps is None else norm_eps,
            **({"rope_base": rope_base} if self.rotary else {}),
        )
        self.grid = (grid[0], grid[1])
        self.vocab_size, self.num_classes = vocab_size, num_classes
        self.embed_dim, self.depth = embed_dim, depth
        self.num_heads, self.num_kv_heads, self.ffn_dim = num_heads, num_kv_heads, ffn_dim
        self.norm_eps, self.rope_base = self.config["norm_eps"], rope_base
        self.dropout = nn.Dropout(dropout)
        self.build()
        self.init_weights()
        self.control: Control | None = None
        if control is not None:
            self.add_control(**control)

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def raster_only(self) -> bool:
        """True for a model that knows raster order only, one token after the other."""
        return self.order_modes == ("raster",)

    @property
    def many_orders(self) -> bool:
        """True where each seed has an order of its own by default, so that a mean over several is of use."""
        return self.order_modes[0] in orders.SEEDED

    @property
    def label_rows(self) -> tuple[str, int]:
        """Name of the parameter that embeds labels, and its row of class 0; the null class follows the last class."""
        return "label_embedding.weight", 0

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    # implemented by each generator ----------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> None:
        """Make the modules and parameters; `init_weights` fills them."""

    @abstractmethod
    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the input of the head for the logits of `forward`, after the final norm: (B, n, D) in order space."""

    @abstractmethod
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
        """Return the states of `hidden`, whose arguments are checked here, but in order space."""

    @abstractmethod
    def start(
        self,
        label: Tensor,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        within_step: str | None = None,
        table: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> State:
        """Begin to sample: label (B,), with known tokens (B, m) at raster positions (B, m) if there are any.

        The first step reads known tokens causally, in the given sequence. within_step: mode of attention among the
        tokens of a later step, one of the class's `within_step`, by default the first. table: rope table of another
        grid, to which positions then refer; by default that of the trained grid. condition: (B, N, D).
        """

    @abstractmethod
    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        """Take one sampling step and return its logits (B, n, V).

        tokens: (B, m), the values at the positions that the last step predicted, in the same sequence; None in the
        first step. queries: (B, n), the raster positions to predict next.
        """

    def verify(self, state: State, tokens: Tensor, positions: Tensor, done: Tensor) -> Tensor:
        """Return the logits (B, n, V) of the next n steps of one token each, were the drafts of their tokens right.

        It takes the place of `step` after the first. done: (B,), tokens that each image has decoded, 1 at least.
        tokens: (B, n), the last of these, then n - 1 drafts. positions: (B, n + 1), those of all these and of the token
        behind them. Row i predicts the token at `positions[:, i + 1]`. No draft is kept: the next call gives all from
        its `done` on again. Rows beyond the end of an image, of any token and position, do no harm. Exact sampling
        refuses a class that does not have it.
        """
        raise NotImplementedError

    # shared by all ---------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return teacher-forced logits: tokens (B, N) in raster space, label (B,), order (B, n) -> (B, n, V) in order
        space.

        Row i predicts the token at `order[:, i]` from the class and the tokens at earlier places only, in training
        and evaluation alike. An order may be cut short, n <= N: no row depends on how many follow. condition: (B, N, D)
        in raster space, `control(images)`; row i depends on those at places <= i at least.
        """
        return self.head(self.pre_logits(tokens, label, order, condition))

    def hidden(
        self,
        tokens: Tensor,
        label: Tensor | None,
        order: Tensor,
        layers: Sequence[int],
        context: Context = "causal",
        stream: Stream = "token",
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the states after blocks `layers` (1-based, before the final norm), each (B, N, D) in raster space.

        All N tokens are fed, and nothing deeper than max(layers) runs. context: `causal`, as in training; `echo`, a
        second pass over the image in the same order, behind the first; `full`, attention without a mask; `after`, one
        extra query per position behind the whole image (stream `query` only); `bare`, the same behind an image without
        the queries that RandAR has before each token, at no more than the cost of `causal`. condition: as in `forward`.
        Raises a ValueError for layers, contexts and streams that the model does not have.
        """
        self.check_spec(layers, context, stream)
        self.check_order(order)
        count, label = self.images_at_once(), self.labels(label, len(tokens))
        condition = self.check_condition(condition, len(tokens))
        parts = []
        for rows in (slice(first, first + count) for first in range(0, len(tokens), count)):
            given = None if condition is None else condition[rows]
            parts.append(self.states(tokens[rows], label[rows], order[rows], layers, context, stream, given))
        return [orders.scatter(torch.cat(states), order) for states in zip(*parts, strict=True)]

    def through(
        self, blocks: nn.ModuleList, x: Tensor, rope: Tensor | None, layers: Sequence[int], rows: slice, **how: Any
    ) -> list[Tensor]:
        """Return some rows of the states after `layers`: inputs (B, L, D) -> each (B, n, D).

        Nothing deeper is computed, and of the deepest block only those rows.
        """
        states, deepest = {}, max(layers)
        for i, block in enumerate(blocks[: deepest - 1], 1):
            x = block(x, rope, **how)
            states[i] = x[:, rows]
        states[deepest] = blocks[deepest - 1](x, rope, rows=rows, **how)
        return [states[i] for i in layers]

    def images_at_once(self) -> int:
        """Return the number of images that `hidden` reads at once; results depend on it by rounding only."""
        if self.device.type != "cpu":
            return sys.maxsize
        inputs = self.num_tokens * self.inputs_per_token
        return max(1, BYTES_AT_ONCE // (inputs * self.embed_dim * self.dtype.itemsize))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Set evaluation mode in this block, and the former mode after it."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def rope(self, device: torch.device) -> Tensor:
        """Return the rope table of the grid, (1 + N, E/2)."""
        return rope_table(self.grid, self.embed_dim // self.num_heads, self.rope_base, device)

    def labels(self, label: Tensor | None, batch: int) -> Tensor:
        """Return the label of each image, the null class for None: (B,).

        Labels are checked on the CPU only, as orders are: elsewhere the host would wait for the device.
        """
        if label is None:
            return torch.full((batch,), self.num_classes, device=self.device)
        if label.device.type == "cpu" and ((label < 0) | (label > self.num_classes)).any():
            wrong = label[(label < 0) | (label > self.num_classes)][0]
            raise ValueError(f"label {int(wrong)} is outside 0..{self.num_classes}, whose last is the null class")
        return label

    def add_control(self, **config: Any) -> None:
        """Add a fresh adapter for condition images, `control`; see `Control` for the keywords.

        Until it is trained, no condition changes features or samples.
        """
        if "query" not in self.streams:
            raise ValueError(f"{type(self).__name__} asks for no position, so no condition can say what is there")
        if self.control is not None:
            raise ValueError(f"this {type(self).__name__} has control by {self.control.kind} already")
        adapter = Control(grid=self.grid, embed_dim=self.embed_dim, **config)
        self.control = adapter.to(self.device, self.dtype)
        self.config["control"] = adapter.config

    def check_condition(self, condition: Tensor | None, batch: int, positions: int | None = None) -> Tensor | None:
        """Return a condition that `control` made; a ValueError where there is no control, or for another shape.

        positions: of the grid that is sampled, by default the trained one.
        """
        if condition is None:
            return None
        if self.control is None:
            raise ValueError(
                f"this {type(self).__name__} has no control that makes conditions: leave it out, or train one"
            )
        expected = (batch, positions or self.num_tokens, self.embed_dim)
        if tuple(condition.shape) != expected:
            raise ValueError(f"a condition has the shape {expected}, got {tuple(condition.shape)}: control(images)")
        return condition

    def check_order(self, order: Tensor, cut: bool = False) -> None:
        """Raise a ValueError unless each order is a permutation (checked on the CPU only, see `labels`), and the raster
        order for a model that knows no other.

        cut: whether the beginning of a permutation will do.
        """
        if order.device.type == "cpu":
            orders.validate(order, self.grid, cut)
        if not self.raster_only or order.is_meta:  # meta tensors have no values
            return
        if (order != orders.raster(self.grid)[: order.shape[-1]].to(order.device)).any():
            raise ValueError(f"{type(self).__name__} knows one order, raster: another one was given")

    def check_order_mode(self, mode: str | None) -> str:
        """Return the order mode, the default for None; a ValueError lists the modes of the model."""
        if mode is not None and mode not in self.order_modes:
            raise ValueError(f"order {mode!r} is none of {type(self).__name__}'s: {', '.join(self.order_modes)}")
        return mode or self.order_modes[0]

    def check_spec(self, layers: Sequence[int], context: str, stream: str) -> None:
        """Raise a ValueError that lists the possible values, unless the model has these layers, context and stream."""
        if context not in self.contexts:
            raise ValueError(f"context {context!r} is none of {type(self).__name__}'s: {', '.join(self.contexts)}")
        if stream not in self.streams:
            raise ValueError(f"stream {stream!r} is none of {type(self).__name__}'s: {', '.join(self.streams)}")
        if context in ASKED_BEHIND and stream != "query":
            raise ValueError(f"context {context!r} has no token stream: its states are those of the extra queries")
        if not layers or min(layers) < 1 or max(layers) > self.depth:
            raise ValueError(f"layers are numbered 1 to {self.depth}, got {list(layers)}")

    def check_table(self, table: Tensor | None) -> None:
        """Raise a ValueError where a model of learned positions is given the rope table of another grid."""
        if table is not None and not self.rotary:
            raise ValueError(f"{type(self).__name__} has learned positions of its own grid, and knows no other")

    def check_within_step(self, within_step: str | None) -> str:
        """Return the mode within a step, the default for None; a ValueError lists the modes of the model."""
        if within_step is not None and within_step not in self.within_step:
            raise ValueError(
                f"within_step {within_step!r} is none of {type(self).__name__}'s: {', '.join(self.within_step)}"
            )
        return within_step or self.within_step[0]

    def new_blocks(self, attention: Callable[[], nn.Module]) -> nn.ModuleList:
        """Return `depth` blocks, each with a new attention module."""
        return nn.ModuleList(
            Block(attention(), self.embed_dim, self.ffn_dim, self.norm_eps, self.dropout.p, not self.rotary)
            for _ in range(self.depth)
        )

    def self_attention(self) -> SelfAttention:
        return SelfAttention(self.embed_dim, self.num_heads, self.num_kv_heads)

    def cross_attention(self) -> CrossAttention:
        return CrossAttention(self.embed_dim, self.num_heads)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise matrices normally with std 0.02, norms to ones, and the head to zeros, as both papers do."""
        for name, parameter in self.named_parameters():
            if name == "head.weight":
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                nn.init.ones_(parameter)
