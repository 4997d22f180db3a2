"""Reading: features of an image from a network that is causal, with context on all sides.

A `FeatureSpec` says how, as a value and as a string: `orders/context/stream/layers/pool/merge[/label]`, for instance
`raster+reversed/causal/query/L6/grid2/concat` or `random*4/echo/token/L3,L6/mean/mean`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from . import orders, seeding
from .models import Context, Generator, Stream

GRAMMAR = "orders/context/stream/layers/pool/merge[/label], such as raster+reversed/causal/query/L6/grid2/concat"
_PASS = re.compile(r"(?P<mode>[a-z]+)(\*(?P<count>\d{1,4}))?(@(?P<seed>\d{1,18}))?(?P<per_image>:per-image)?")
_ALIASES = {"bidirectional": "raster+reversed"}
Merge = Literal["mean", "concat"]


@dataclass(frozen=True)
class Pass:
    """One reading of the image: an order mode, and for random ones the seed that makes the order."""

    mode: str
    seed: tuple[int, int] = (0, 0)  # (the user's seed, number of the draw)
    per_image: bool = False


@dataclass(frozen=True)
class FeatureSpec:
    """How a feature is read. Immutable, hashable; `str` prints it in the grammar and `parse` reads it back.

    orders: passes joined by `+`: `raster`, `reversed`, `columns`, `hierarchical`, `random*K` (K random orders, the
        same for every image), `random*K@SEED`, `random*K:per-image` (orders that depend on the image's tokens);
        `bidirectional` is short for `raster+reversed`.
    context: what a token may see: `causal`, `echo`, `full`, `after` (see `Generator.hidden`).
    stream: `token` or `query`.
    layers: 1-based blocks whose output is read.
    pool: `mean`, `max`, `last` (the last place of the order), `gridG` (G x G cells, concatenated) or `none` (a
        dense map).
    merge: how passes and layers become one vector, `mean` or `concat`.
    label: class given while reading; None, the default, is the null class.
    """

    orders: str = "raster"
    context: Context = "causal"
    stream: Stream = "token"
    layers: tuple[int, ...] = (1,)
    pool: str = "mean"
    merge: Merge = "mean"
    label: int | None = None

    def __post_init__(self) -> None:
        for alias, meaning in _ALIASES.items():
            object.__setattr__(self, "orders", re.sub(rf"\b{alias}\b", meaning, self.orders))
        self.passes  # noqa: B018  raises for a wrong order
        if self.context not in get_args(Context):
            raise ValueError(f"context {self.context!r} is none of {', '.join(get_args(Context))}")
        if self.stream not in get_args(Stream):
            raise ValueError(f"stream {self.stream!r} is none of {', '.join(get_args(Stream))}")
        if not self.layers or min(self.layers) < 1:
            raise ValueError(f"layers are numbered from 1 and one at least is read, got {self.layers}")
        if not re.fullmatch(r"mean|max|last|none|grid[1-9]\d*", self.pool):
            raise ValueError(f"pool {self.pool!r} is none of mean, max, last, none, gridG (such as grid2)")
        if self.merge not in get_args(Merge):
            raise ValueError(f"merge {self.merge!r} is none of {', '.join(get_args(Merge))}")
        if self.label is not None and self.label < 0:
            raise ValueError(f"a label is a class index from 0, got {self.label}; None is the null class")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The readings that `orders` names."""
        passes: list[Pass] = []
        for part in self.orders.split("+"):
            match = _PASS.fullmatch(part)
            if not match or match["mode"] not in orders.MODES:
                raise ValueError(f"order {part!r} is none of {', '.join(orders.MODES)}, random*K, bidirectional")
            if match["mode"] != "random" and match[0] != match["mode"]:
                raise ValueError(f"order {part!r}: only random takes a count, a seed or per-image")
            if match["count"] and not int(match["count"]):
                raise ValueError(f"order {part!r}: at least one order is read")
            for draw in range(int(match["count"] or 1)):
                passes.append(Pass(match["mode"], (int(match["seed"] or 0), draw), bool(match["per_image"])))
        return tuple(passes)

    def __str__(self) -> str:
        layers = ",".join(f"L{layer}" for layer in self.layers)
        parts = [self.orders, self.context, self.stream, layers, self.pool, self.merge]
        return "/".join(parts if self.label is None else [*parts, f"label{self.label}"])

    @classmethod
    def parse(cls, text: str | FeatureSpec) -> FeatureSpec:
        """Reads the grammar; a ValueError says which part is wrong."""
        if isinstance(text, FeatureSpec):
            return text
        parts = text.strip().split("/")
        if len(parts) not in (6, 7):
            raise ValueError(f"feature spec {text!r} has {len(parts)} parts, expected {GRAMMAR}")
        layers, label = parts[3].split(","), parts[6] if len(parts) == 7 else None
        if not all(re.fullmatch(r"L\d+", layer) for layer in layers):
            raise ValueError(f"layers {parts[3]!r} in a feature spec are written L6 or L6,L12")
        if label is not None and not re.fullmatch(r"label\d+", label):
            raise ValueError(f"label {label!r} in a feature spec is written label3; leave it out for the null class")
        return cls(
            parts[0],
            cast(Context, parts[1]),
            cast(Stream, parts[2]),
            tuple(int(layer[1:]) for layer in layers),
            parts[4],
            cast(Merge, parts[5]),
            None if label is None else int(label[5:]),
        )


@torch.no_grad()
def read(model: Generator, tokens: Tensor, specs: Sequence[FeatureSpec], batch_size: int = 256) -> list[Tensor]:
    """Features of tokens (B, N): for each spec float32 on the CPU, (B, F), or (B, F, h, w) where pool is `none`.

    All passes of a batch are one call, and specs that differ only in layers, pool and merge share it. The model is
    read in evaluation mode and given back in the mode it came in.
    """
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, spec in enumerate(specs):
        if spec.label is not None and spec.label >= model.num_classes:
            raise ValueError(f"feature spec {spec}: the model has {model.num_classes} classes, counted from 0")
        groups[(spec.passes, spec.context, spec.stream, spec.label)].append(i)
    results: dict[int, list[Tensor]] = defaultdict(list)
    with model.evaluating():
        for (passes, context, stream, label), members in groups.items():
            layers = sorted({layer for i in members for layer in specs[i].layers})
            for chunk in tokens.split(max(1, batch_size // len(passes))):
                chunk = chunk.to(model.device)
                order = torch.stack([pass_order(p, model, chunk) for p in passes])  # (P, B, N)
                flat = chunk.repeat(len(passes), 1)
                labels = None if label is None else torch.full((len(flat),), label, device=model.device)
                states = model.hidden(flat, labels, order.flatten(0, 1), layers, context, stream)
                by_layer = dict(zip(layers, states, strict=True))
                for i in members:
                    read_out = [
                        pool(by_layer[layer], order.flatten(0, 1), model.grid, specs[i].pool)
                        .float()
                        .unflatten(0, (len(passes), -1))
                        for layer in specs[i].layers
                    ]
                    results[i].append(merge(torch.cat(read_out), specs[i].merge).cpu())
    return [torch.cat(results[i]) for i in range(len(specs))]


def pass_order(reading: Pass, model: Generator, tokens: Tensor) -> Tensor:
    """The order of a pass for each image of tokens (B, N): (B, N)."""
    if reading.per_image:  # a function of the image, not of its place in a batch
        places = torch.arange(tokens.shape[1], device=tokens.device)
        seeds = seeding.derive(*reading.seed, seeding.derive(places, tokens).sum(1))
    else:
        seeds = seeding.derive(*reading.seed).to(tokens.device).expand(len(tokens))
    return orders.make(reading.mode, model.grid, seeds)


def pool(states: Tensor, order: Tensor, grid: tuple[int, int], how: str) -> Tensor:
    """States (B, N, D) in raster space -> (B, F), or (B, D, h, w) for `none`."""
    if how == "mean":
        return states.mean(1)
    if how == "max":
        return states.amax(1)
    if how == "last":
        return states[torch.arange(len(states), device=states.device), order[:, -1]]
    dense = states.transpose(1, 2).unflatten(2, grid)
    if how == "none":
        return dense
    cells = int(how.removeprefix("grid"))
    if cells > min(grid):
        raise ValueError(f"pool {how} asks for more cells than the {grid[0]} x {grid[1]} grid has rows or columns")
    return F.adaptive_avg_pool2d(dense, cells).flatten(1)


def merge(readings: Tensor, how: str) -> Tensor:
    """(passes and layers, B, F, ...) -> (B, F', ...)."""
    return readings.mean(0) if how == "mean" else torch.cat(readings.unbind(0), 1)
