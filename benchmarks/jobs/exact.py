"""Exact sampling beside one token a step, on the models of the package: time, and network calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import randfeat
from benchmarks.cases import Case, Setting
from randfeat import Guidance, Sampling
from randfeat.inference.sampling import decode, sample
from randfeat.models import Generator, orders
from randfeat.utils import rng


def exact(setting: Setting) -> Iterator[Case]:
    """Yield numbers of images at a time, and with the first of them the calls."""
    for name in setting.pick(("fashion-arpg",), ("fashion-arpg",), ("fashion-arpg", "fashion-randar")):
        count, drafts = setting.pick((2, (8,)), (20, (16,)), (200, (4, 8, 16, 48)))
        for number, images in enumerate(setting.pick((1,), (1, 8), (1, 8, 32))):
            peers = {"a token a step": partial(sampler, name, images, False)}
            facts = dict if number else partial(all_calls, name, count, drafts)
            yield Case(f"{name}, {images} at a time", partial(sampler, name, images, True), peers, images, facts=facts)


def opened(name: str) -> tuple[Generator, Sampling]:
    pipeline = randfeat.load(name)
    return pipeline.inference_generator(), replace(pipeline.sampling, sweeps=0)


def sampler(name: str, images: int, is_exact: bool) -> Callable[[], Tensor]:
    model, how = opened(name)
    label, seeds = torch.arange(images) % model.num_classes, torch.arange(images)
    return partial(sample, model, label, seeds, replace(how, exact=is_exact))


def all_calls(name: str, images: int, drafts: tuple[int, ...]) -> Mapping[str, Any]:
    """Return the mean calls of an image by the number of drafts that a call checks, and of any-subset speculation,
    which checks all drafts that are left but accepts them by rejection sampling (arXiv 2504.20456).
    """
    model, own = opened(name)
    found = {}
    for guidance in (own.guidance, Guidance()):
        how = replace(own, guidance=guidance)
        for draft in drafts:
            taken = calls(model, replace(how, exact=True, draft=draft), images)
            found[f"calls, guidance {guidance.scale:g}, {draft} drafts"] = taken
        found[f"calls, guidance {guidance.scale:g}, by rejection"] = rejection_calls(model, how, images)
    return found


def calls(model: Generator, how: Sampling, images: int) -> float:
    """Return the mean calls of an image."""
    *_, last = decode(model, torch.arange(images) % model.num_classes, torch.arange(images), how)
    return float(last.calls.float().mean())


@torch.inference_mode()
def rejection_calls(model: Generator, how: Sampling, images: int) -> float:
    """Return the mean calls of an image where drafts are accepted by rejection sampling.

    Without a cache: every call reads the whole image, with the drafts of the call before.
    """
    label, seeds, count = torch.arange(images) % model.num_classes, torch.arange(images), model.num_tokens
    order, generator = orders.random(model.grid, rng.derive(seeds, 0)), torch.Generator().manual_seed(0)
    both, place = torch.cat((label, torch.full_like(label, model.num_classes))), torch.arange(count)
    scale = torch.tensor([how.guidance.at(i, 1, count) for i in range(count)]).unsqueeze(1)

    def distribution(raw: Tensor) -> Tensor:
        conditional, without = raw.chunk(2)
        return how.filtered(torch.lerp(without, conditional, scale)).softmax(-1)

    def drawn(weights: Tensor) -> Tensor:
        return torch.multinomial(weights.flatten(0, 1), 1, generator=generator).view(images, count)

    drafted = distribution(model.step(model.start(both), None, order.repeat(2, 1)))
    drafts, taken, done = drawn(drafted), torch.ones(images), torch.ones(images, dtype=torch.int64)
    while (done < count).any():
        tokens = orders.scatter(drafts, order)
        right = distribution(model(tokens.repeat(2, 1), both, order.repeat(2, 1)))
        shares = [part.gather(-1, drafts.unsqueeze(-1)).squeeze(-1) for part in (right, drafted)]
        accepted = torch.rand(images, count, generator=generator) * shares[1] < shares[0]
        wrong = (place >= done.unsqueeze(1)) & ~accepted
        first = torch.where(wrong.any(1), wrong.int().argmax(1), count).unsqueeze(1)
        anew = drawn((right - drafted).clamp(min=0) + 1e-20)
        drafts = torch.where(place == first, anew, torch.where(place > first, drawn(right), drafts))
        drafted = torch.where((place > first).unsqueeze(-1), right, drafted)
        taken += done < count
        done = torch.maximum(done, (first.squeeze(1) + 1).clamp(max=count))
    return float(taken.mean())
