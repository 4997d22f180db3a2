"""Sampling without pictures, beside the official code and a raster model that decodes one token a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks import official
from benchmarks.cases import Case, Make, Setting
from benchmarks.networks import GUIDANCE, RASTER, fresh, keywords, plain, prepacked
from randfeat import Guidance, Sampling
from randfeat.inference.sampling import sample
from randfeat.models import orders, packed

WAYS = {
    "randar": ((88, 256), Sampling(schedule="cosine-randar", guidance=Guidance(4.0, "linear"))),
    "arpg": ((20, 32, 64), Sampling(schedule="arccos", guidance=GUIDANCE)),
}


def inputs(name: str, size: str, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels, seeds and orders; ARPG's official code has one order for the batch."""
    seeds, own = torch.arange(batch), keywords(name, size)
    order = orders.random(own["grid"], seeds if name == "randar" else torch.zeros_like(seeds))
    return seeds * 100 % own["num_classes"], seeds, order.contiguous()


def as_pipeline(name: str, size: str, dtype: str, batch: int, how: Sampling) -> Callable[[], Tensor]:
    """Return a call that samples as a pipeline does from its second call on: it looks whether weights have changed."""
    network = prepacked(name, size, dtype)
    label, seeds, order = inputs(name, size, batch)

    def call() -> Tensor:
        packed.signature(network)
        return sample(network, label, seeds, how, order if name in WAYS else None)

    return call


def by_official(name: str, setting: Setting, dtype: str, batch: int, how: Sampling) -> Callable[[], Tensor]:
    theirs = official.build(fresh(name, setting.size, dtype), setting.peers[name])
    label, _, order = inputs(name, setting.size, batch)
    return official.sampler(theirs, label, order, how)


def equal_tokens(name: str, setting: Setting, dtype: str, batch: int, how: Sampling) -> dict[str, Any]:
    """Return the share of greedy tokens that are those of the official code: all in float32, while bfloat16 rounds
    differently and one other token changes all that follow.
    """
    greedy = replace(how, top_k=1)
    ours = as_pipeline(name, setting.size, dtype, batch, greedy)()
    theirs = by_official(name, setting, dtype, batch, greedy)()
    return {"greedy tokens equal": float((ours == theirs).float().mean())}


def first_call(name: str, size: str, dtype: str, batch: int, how: Sampling) -> Callable[[], Tensor]:
    model = plain(name, size, dtype)
    label, seeds, order = inputs(name, size, batch)
    return lambda: sample(model, label, seeds, how, order)


def sampling(setting: Setting) -> Iterator[Case]:
    """Yield steps x guidance x batch; the raster model has the same guidance and batch."""
    size = setting.size
    for dtype in setting.dtypes:
        for batch in setting.pick((2,), (1, 8), (1, 8, 64)):
            for name, (steps, base) in WAYS.items():
                for step in steps:
                    for guided in (True, False):
                        yield _case(setting, name, size, dtype, batch, step, guided, base)


def _case(
    setting: Setting, name: str, size: str, dtype: str, batch: int, steps: int, guided: bool, base: Sampling
) -> Case:
    grid = keywords(name, size)["grid"]
    how = replace(base, steps=max(1, steps * grid[0] * grid[1] // 256))
    raster, peers = RASTER, dict[str, Make]()
    if not guided:
        how, raster = replace(how, guidance=Guidance()), replace(RASTER, guidance=Guidance())
    elif name in setting.peers:
        peers["official"] = lambda: by_official(name, setting, dtype, batch, how)
    if name == "randar" and steps < 256:
        one_by_one = replace(how, steps=None, schedule="one-by-one")
        peers["a token a step"] = lambda: as_pipeline(name, size, dtype, batch, one_by_one)
    peers["raster, a token a step"] = lambda: as_pipeline("llamagen", size, dtype, batch, raster)
    peers["first call, which packs"] = lambda: first_call(name, size, dtype, batch, how)

    def facts() -> Mapping[str, Any]:
        return equal_tokens(name, setting, dtype, batch, how) if "official" in peers and batch <= 8 else {}

    return Case(
        f"{name} {size} {dtype}, {steps} steps, batch {batch}, {'guidance' if guided else 'no guidance'}",
        lambda: as_pipeline(name, size, dtype, batch, how),
        peers,
        units=batch,
        dtype=dtype,
        facts=facts,
    )
