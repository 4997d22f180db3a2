"""Growth of time and memory with batch, tokens, orders, classes, images and vectors: one side, no peers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from randfeat.probes import KNN, LinearProbe

from benchmarks.cases import Axis, Case, Setting
from benchmarks.jobs import probes
from benchmarks.jobs.data import IMAGENET, store_of
from benchmarks.jobs.sampling import WAYS
from benchmarks.jobs.training import batch_of, by_us
from benchmarks.networks import fresh, tokens_of
from randfeat import FeatureSpec, Index
from randfeat.inference import likelihood, readout
from randfeat.inference.sampling import sample
from randfeat.inference.successive_halving import rank_classes
from randfeat.models import packed

SAMPLES = 50_000  # that a Frechet distance is computed of
SPEC = "raster/full/token/L0.5/mean/mean"


def growth(setting: Setting) -> Iterator[Case]:
    """Yield the sizes of each series, and what ImageNet asks for: 1,281,167 images, 1,000 classes, 50,000 samples."""
    size = setting.size
    batches = setting.pick((1, 2), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64))
    sides = setting.pick((4, 8), (8, 12, 16, 24, 32), (8, 12, 16, 20, 24, 32))
    many = setting.pick((200, 400), (2_500, 5_000, 10_000, 20_000, 40_000), (20_000, 40_000, 80_000, 160_000, 320_000))
    classes = setting.pick((2, 4), (4, 8, 16, 32, 64), (16, 32, 64, 125, 250, 500, 1000))
    for name in ("randar", "arpg"):
        drawing = partial(sampling, name, size)
        yield from series(f"sampling, {name} {size}", "images at once", batches, partial(drawing, None), SAMPLES)
        tokens = [side * side for side in sides]
        yield from series(f"sampling one, {name} {size}", "tokens", tokens, partial(drawing, 1))
        yield from series(f"reading one, {name} {size}", "tokens", tokens, partial(reading, name, size, "tokens"))
        make = partial(reading, name, size, "images")
        yield from series(f"reading, {name} {size}", "images", batches, make, IMAGENET)
    orders = setting.pick((1, 2), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32))
    yield from series(f"reading one, randar {size}", "orders", orders, partial(reading, "randar", size, "orders"))
    for name, halving in (("all classes", False), ("successive halving", True)):
        make = partial(classifying, size, halving)
        yield from series(f"likelihood, randar {size}, 64 tokens, {name}", "classes", classes, make, 1000)
    yield from series(f"training step, randar {size}", "images", batches[:5], partial(training, size), IMAGENET)
    dim = setting.pick(16, 128, 768)
    yield from series("k-NN of 500 queries", "vectors", many, partial(knn, dim), IMAGENET)
    yield from series("linear probe, 20 classes", "vectors", many, partial(linear, dim), IMAGENET)
    for name, searched in (("build an index", False), ("search 500 in an index", True)):
        yield from series(name, "vectors", many, partial(index, setting, dim, searched), IMAGENET)
    yield from series("read 1,024 of a token cache", "images", many, partial(cached, setting), IMAGENET)


def series(
    name: str, unit: str, sizes: Sequence[int], make: Callable[[int], Callable[[], Any]], at: float | None = None
) -> Iterator[Case]:
    for value in sizes:
        axis = Axis(f"{name}: {unit}", unit, value, at)
        yield Case(f"{name}, {value:,} {unit}", partial(make, value), units=value, unit=unit.split()[0], axis=axis)


def sampling(name: str, size: str, images: int | None, value: int) -> Callable[[], Any]:
    """Return a call that samples `value` images, or where their number is given some of `value` tokens; a third of the
    tokens in steps.
    """
    own = {} if images is None else {"grid": (round(value**0.5),) * 2}
    network = packed.inference_copy(fresh(name, size, **own))
    seeds = torch.arange(value if images is None else images)
    how = replace(WAYS[name][1], steps=max(1, network.num_tokens * 88 // 256))
    return partial(sample, network, seeds, seeds, how)


def reading(name: str, size: str, what: str, value: int) -> Callable[[], Any]:
    own = {"grid": (round(value**0.5),) * 2} if what == "tokens" else {}
    network = packed.inference_copy(fresh(name, size, **own))
    spec = SPEC.replace("raster", f"random*{value}") if what == "orders" else SPEC
    tokens = tokens_of(network, value if what == "images" else 1)
    return partial(readout.read, network, tokens, [FeatureSpec.parse(spec)])


def classifying(size: str, halving: bool, classes: int) -> Callable[[], Any]:
    network = packed.inference_copy(fresh("randar", size, grid=(8, 8), num_classes=classes))
    call = rank_classes if halving else likelihood.class_log_prob
    return partial(call, network, tokens_of(network, 1), None, 2)


def training(size: str, images: int) -> Callable[[], Any]:
    model = fresh("randar", size, dropout=0.1).train()
    return by_us(model, batch_of(model, images), False, False)


def knn(dim: int, rows: int) -> Callable[[], Any]:
    bank, labels, queries = probes.clustered(rows, 500, dim)
    return partial(KNN(20).fit(bank, labels).predict, queries)


def linear(dim: int, rows: int) -> Callable[[], Any]:
    return partial(LinearProbe().fit, *probes.features(rows, 20, 1.0, dim))


def index(setting: Setting, dim: int, searched: bool, rows: int) -> Callable[[], Any]:
    bank, _, queries = probes.clustered(rows, 500, dim)
    place, names = setting.scratch / f"grown{rows}", [str(row) for row in range(rows)]

    def build() -> Index:
        shutil.rmtree(place, ignore_errors=True)
        return Index.build(place, bank, names)

    return partial(build().search, queries, 10) if searched else build


def cached(setting: Setting, images: int) -> Callable[[], Any]:
    store = store_of(setting.scratch / f"cache{images}", images)
    rows = torch.randint(images, (1024,), generator=torch.Generator().manual_seed(0)).sort().values.numpy()
    return lambda: store.tokens[rows].astype("int64")
