"""Readout of features from a causal network: orders, layers, pooling, and sub-patch shifts of the image.

A `FeatureSpec` names all of it, as a value and as a string: `orders/context/stream/layers/pool/merge[/label][/shifts]`,
such as `raster+reversed/causal/query/L6/grid2/concat` or `random*4/echo/token/L3,L6/mean/mean/shifts2`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Context, Generator, Stream, orders
from ..utils import rng
from ..utils.checks import is_whole_number

GRAMMAR = (
    "orders/context/stream/layers/pool/merge[/label][/shifts], such as raster+reversed/causal/query/L6/grid2/concat"
)
_PASS = re.compile(r"(?P<mode>[a-z]+)(\*(?P<count>\d{1,4}))?(@(?P<seed>\d{1,18}))?(?P<per_image>:per-image)?")
_EXPLICIT = re.compile(r"\[\d+(,\d+)*\]")
_LAYER = re.compile(r"L(-?\d+|0\.\d+)")
_ALIASES = {"bidirectional": "raster+reversed"}
Merge = Literal["mean", "concat"]


@dataclass(frozen=True)
class Pass:
    """One pass over the image: an order mode, and for random orders the seed that makes the order."""

    mode: str  # one of orders.MODES, or "explicit"
    seed: tuple[int, int] = (0, 0)  # (the user's seed, number of the draw)
    per_image: bool = False
    positions: tuple[int, ...] = ()  # of an explicit order


@dataclass(frozen=True)
class FeatureSpec:
    """Feature spec: the way from tokens to a feature. Immutable, hashable; `str` prints it in the grammar and `parse`
    reads it back.

    orders: passes joined by `+`: `raster`, `reversed`, `columns`, `hierarchical`, `halton`, `locality`, `random*K` (K
        random orders, the same for every image), `random*K@SEED`, `random*K:per-image` (orders that depend on the
        image's tokens); `[0,2,1,3]`, a permutation written out; `bidirectional` is short for `raster+reversed`.
    context: the tokens that a token may attend to: `causal`, `echo`, `full`, `after`, `bare` (see `Generator.hidden`).
    stream: `token` or `query`.
    layers: blocks whose output is read, numbered from 1, from the end as -1, -2, ..., or a share of the depth between
        0 and 1, as 0.5. `resolved` gives their numbers in a model.
    pool: `mean`, `max`, `last` (the last position of the order), `gridG` (the means of G x G cells, (D, G, G)
        flattened) or `none` (a dense map).
    merge: how passes and layers become one vector, `mean` or `concat`.
    label: class index that the network is conditioned on; None, the default, is the null class.
    shifts: sub-patch shifts per axis (test-time augmentation): the image is encoded at shifts x shifts places, parts of
        a token apart, see `sub_patch_shifts`; features are their mean, or a map that is so many times finer.

    The defaults are one raster pass and the mean over the positions at half the depth, which every model can do;
    `default` returns a model's own spec.
    """

    orders: str = "raster"
    context: Context = "causal"
    stream: Stream = "token"
    layers: tuple[int | float, ...] = (0.5,)
    pool: str = "mean"
    merge: Merge = "mean"
    label: int | None = None
    shifts: int = 1

    def __post_init__(self) -> None:
        for name in ("orders", "pool"):
            if not isinstance(value := getattr(self, name), str):
                raise ValueError(f"{name} of a feature spec are written as text, got {value!r}")
        if not isinstance(self.layers, (list, tuple)):
            raise ValueError(f"layers of a feature spec are a tuple of numbers, got {self.layers!r}")
        for alias, meaning in _ALIASES.items():
            object.__setattr__(self, "orders", re.sub(rf"\b{alias}\b", meaning, self.orders))
        self.passes  # noqa: B018  raises for a wrong order
        if self.context not in get_args(Context):
            raise ValueError(f"context {self.context!r} is none of {', '.join(get_args(Context))}")
        if self.stream not in get_args(Stream):
            raise ValueError(f"stream {self.stream!r} is none of {', '.join(get_args(Stream))}")
        object.__setattr__(self, "layers", tuple(_layer(layer) for layer in self.layers))
        if not self.layers:
            raise ValueError("a feature spec reads one layer at least")
        if not re.fullmatch(r"mean|max|last|none|grid[1-9]\d*", self.pool):
            raise ValueError(f"pool {self.pool!r} is none of mean, max, last, none, gridG (such as grid2)")
        if self.merge not in get_args(Merge):
            raise ValueError(f"merge {self.merge!r} is none of {', '.join(get_args(Merge))}")
        if self.label is not None and not is_whole_number(self.label, 0):
            raise ValueError(f"a label is a class index from 0, got {self.label}; None is the null class")
        if not is_whole_number(self.shifts, 1):
            raise ValueError(f"shifts are counted from 1, as the image stands, got {self.shifts}")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Passes that `orders` names."""
        passes: list[Pass] = []
        for part in self.orders.split("+"):
            if _EXPLICIT.fullmatch(part):
                passes.append(Pass("explicit", positions=tuple(int(place) for place in part[1:-1].split(","))))
                continue
            match = _PASS.fullmatch(part)
            if not match and re.match(r"random\*\d{5}", part):
                raise ValueError(f"order {part!r}: at most 9999 orders are read")
            if not match or match["mode"] not in orders.MODES:
                raise ValueError(
                    f"order {part!r} is none of {', '.join(orders.MODES)}, random*K, bidirectional, [0,2,1,3]"
                )
            if match["mode"] != "random" and match[0] != match["mode"]:
                raise ValueError(f"order {part!r}: only random takes a count, a seed or per-image")
            if match["count"] and not int(match["count"]):
                raise ValueError(f"order {part!r}: at least one order is read")
            for draw in range(int(match["count"] or 1)):
                passes.append(Pass(match["mode"], (int(match["seed"] or 0), draw), bool(match["per_image"])))
        return tuple(passes)

    def resolved(self, depth: int) -> FeatureSpec:
        """Return the spec for a model of `depth` blocks, with layers as numbers from 1."""
        counted = [round(layer * depth) or 1 if isinstance(layer, float) else layer for layer in self.layers]
        layers = tuple(layer if layer > 0 else depth + 1 + layer for layer in counted)
        if not 1 <= min(layers) <= max(layers) <= depth:
            raise ValueError(f"feature spec {self}: layers are numbered 1 to {depth}")
        return replace(self, layers=layers)

    def __str__(self) -> str:
        layers = ",".join(f"L{layer}" for layer in self.layers)
        parts = [self.orders, self.context, self.stream, layers, self.pool, self.merge]
        label = [] if self.label is None else [f"label{self.label}"]
        return "/".join([*parts, *label, *([] if self.shifts == 1 else [f"shifts{self.shifts}"])])

    @classmethod
    def parse(cls, text: str | FeatureSpec) -> FeatureSpec:
        """Parse the grammar. Raises a ValueError that names the wrong part."""
        if isinstance(text, FeatureSpec):
            return text
        if not isinstance(text, str):
            raise ValueError(f"a feature spec is one line of text, expected {GRAMMAR}, got {text!r}")
        parts = text.strip().split("/")
        if not 6 <= len(parts) <= 8:
            raise ValueError(f"feature spec {text!r} has {len(parts)} parts, expected {GRAMMAR}")
        layers, more = parts[3].split(","), parts[6:]
        shifts = more.pop() if more and more[-1].startswith("shifts") else "shifts1"
        label = more[0] if more else None
        if not all(_LAYER.fullmatch(layer) for layer in layers):
            raise ValueError(f"layers {parts[3]!r} in a feature spec are written L6, or L6,L12, or L-1, or L0.5")
        if label is not None and not re.fullmatch(r"label\d+", label):
            raise ValueError(f"label {label!r} in a feature spec is written label3; leave it out for the null class")
        if len(more) > 1 or not re.fullmatch(r"shifts\d{1,4}", shifts):
            raise ValueError(
                f"feature spec {text!r} ends in a label and shifts, such as label3/shifts2, or one of them"
            )
        return cls(
            parts[0],
            cast(Context, parts[1]),
            cast(Stream, parts[2]),
            tuple(float(layer[1:]) if "." in layer else int(layer[1:]) for layer in layers),
            parts[4],
            cast(Merge, parts[5]),
            None if label is None else int(label[5:]),
            int(shifts[6:]),
        )


def _layer(layer: object) -> int | float:
    """Return a layer as a plain number, a share of the depth rounded to four digits."""
    if is_whole_number(layer) and layer != 0:
        return int(layer)
    if isinstance(layer, float) and 0 < round(layer, 4) < 1:
        return round(float(layer), 4)
    raise ValueError(
        "a layer is a number from 1, from the end as -1, or a share of the depth between 0 and 1 such as 0.5, "
        f"got {layer!r}"
    )


def default(model: Generator) -> FeatureSpec:
    """Return the feature spec that a model's class chose for it."""
    return FeatureSpec.parse(model.default_spec)


def check(model: Generator, spec: FeatureSpec) -> FeatureSpec:
    """Return `spec.resolved` for this model. Raises a ValueError that lists what the model can do, where it cannot do
    this.
    """
    resolved = spec.resolved(model.depth)
    model.check_spec(cast("tuple[int, ...]", resolved.layers), spec.context, spec.stream)
    for each in spec.passes:
        if each.mode == "explicit":
            model.check_order(torch.tensor([each.positions]))
        else:
            model.check_order_mode(each.mode)
    if spec.label is not None and spec.label >= model.num_classes:
        raise ValueError(f"feature spec {spec}: the model has {model.num_classes} classes, counted from 0")
    if spec.pool.startswith("grid") and int(spec.pool.removeprefix("grid")) > min(model.grid):
        rows, columns = model.grid
        raise ValueError(f"pool {spec.pool} asks for more cells than the {rows} x {columns} grid has rows or columns")
    return resolved


@torch.no_grad()
def read(
    model: Generator, tokens: Tensor, specs: Sequence[FeatureSpec], batch_size: int = 256, images: int | None = None
) -> list[Tensor]:
    """Return the features of tokens (B, N): for each spec float32 on the CPU, (B, F), or (B, F, h, w) where pool is
    `none`. Specs with shifts take the tokens of all places, (B, shifts², N).

    All passes of a batch are one call, and specs that differ only in layers, pool and merge share it. The model runs in
    evaluation mode and is given back in the mode it came in. batch_size: passes at a time. images: always so many at a
    time, as far as `batch_size` allows, for a model that is compiled for each shape: where there are fewer, the last
    one is read again, and left out.
    """
    specs = [check(model, spec) for spec in specs]
    places = tokens.shape[1] if tokens.ndim == 3 else 1
    if wrong := next((spec for spec in specs if spec.shifts**2 != places), None):
        raise ValueError(
            f"feature spec {wrong} reads an image at {wrong.shifts**2} places, and the tokens are of {places}"
        )
    if tokens.ndim == 3:
        unshifted = [replace(spec, shifts=1) for spec in specs]
        found = read(model, tokens.flatten(0, 1), unshifted, batch_size, images)
        return [merge_shifts(features.unflatten(0, (-1, places))) for features in found]
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, spec in enumerate(specs):
        groups[(spec.passes, spec.context, spec.stream, spec.label)].append(i)
    results: dict[int, list[Tensor]] = defaultdict(list)
    with model.evaluating():
        for (passes, context, stream, label), members in groups.items():
            layers = sorted({int(layer) for i in members for layer in specs[i].layers})
            size = max(1, batch_size // len(passes))
            for part in tokens.split(size if images is None else min(size, images)):
                chunk, given = part.to(model.device), len(part)
                if images is not None:
                    chunk = torch.cat((chunk, chunk[-1:].expand(min(size, images) - given, -1)))
                order = torch.stack([pass_order(p, model, chunk) for p in passes])  # (P, B, N)
                flat = chunk.repeat(len(passes), 1)
                labels = None if label is None else torch.full((len(flat),), label, device=model.device)
                states = model.hidden(flat, labels, order.flatten(0, 1), layers, context, stream)
                by_layer: dict[int | float, Tensor] = dict(zip(layers, states, strict=True))
                for i in members:
                    features = pool_and_merge(by_layer, order.flatten(0, 1), model.grid, specs[i])
                    results[i].append(features[:given].cpu())
    return [torch.cat(results[i]) for i in range(len(specs))]


def pass_order(one: Pass, model: Generator, tokens: Tensor) -> Tensor:
    """Return the order of a pass for each image of tokens (B, N): int64 (B, N)."""
    if one.mode == "explicit":
        return orders.explicit(one.positions, model.grid).to(tokens.device).expand(tokens.shape[0], -1)
    if one.per_image:  # a function of the image, not of its place in a batch
        places = torch.arange(tokens.shape[1], device=tokens.device)
        seeds = rng.derive(*one.seed, rng.derive(places, tokens).sum(1))
    else:
        seeds = rng.derive(*one.seed).to(tokens.device).expand(tokens.shape[0])
    return orders.make(one.mode, model.grid, seeds)


def pool(states: Tensor, order: Tensor, grid: tuple[int, int], how: str) -> Tensor:
    """Pool states (B, N, D) in raster space: (B, F), or (B, D, h, w) for `none`. order: (B, N), for `last`."""
    if how == "mean":
        return states.mean(1)
    if how == "max":
        return states.amax(1)
    if how == "last":
        return states[torch.arange(states.shape[0], device=states.device), order[:, -1]]
    dense = states.transpose(1, 2).unflatten(2, grid)
    if how == "none":
        return dense
    return F.adaptive_avg_pool2d(dense, int(how.removeprefix("grid"))).flatten(1)


def pool_and_merge(
    by_layer: Mapping[int | float, Tensor], order: Tensor, grid: tuple[int, int], spec: FeatureSpec
) -> Tensor:
    """Return the features (B, F), or (B, F, h, w), at a spec: states (P * B, N, D) of layers, pass after pass.

    order: (P * B, N). float32.
    """
    pooled = [
        pool(by_layer[layer], order, grid, spec.pool).float().unflatten(0, (len(spec.passes), -1))
        for layer in spec.layers
    ]
    return merge(torch.cat(pooled), spec.merge)


def merge(features: Tensor, how: str) -> Tensor:
    """Merge passes and layers: (passes * layers, B, F, ...) -> (B, F', ...)."""
    return features.mean(0) if how == "mean" else torch.cat(features.unbind(0), 1)


# sub-patch shifts ----------------------------------------------------------------------------------------------------


def sub_patch_shifts(pixels: Tensor, stride: int, count: int) -> Tensor:
    """Return images (B, C, H, W) at `count` x `count` places that divide a token of `stride` pixels: (B, count², C, H,
    W).

    A tokenizer cuts an image where it stands: moved by half a token, the same picture has other tokens, and the mean
    over such places is steadier than the features at one. The places lie around where the image is, and its edge fills
    the gap. Raises a ValueError for more places than pixels.
    """
    if not 1 <= count <= stride:
        raise ValueError(f"{count} shifts a side: a token of {stride} pixels has 1 to {stride}")
    moves = [math.floor(stride * (2 * i + 1 - count) / (2 * count) + 0.5) for i in range(count)]
    edge, (height, width) = max(map(abs, moves)), pixels.shape[2:]
    padded = F.pad(pixels, (edge,) * 4, mode="replicate")
    corners = [(edge - down, edge - right) for down in moves for right in moves]
    return torch.stack([padded[..., y : y + height, x : x + width] for y, x in corners], 1)


def merge_shifts(features: Tensor) -> Tensor:
    """Merge the places of an image, in the order of `sub_patch_shifts`: vectors (B, count², F) into their mean (B, F),
    maps (B, count², D, h, w) into a finer one, (B, D, count * h, count * w).
    """
    if features.ndim == 3:
        return features.mean(1)
    side = math.isqrt(features.shape[1])
    finer = features.unflatten(1, (side, side)).flip(1, 2)  # an image that is moved down is read further up
    return finer.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)
