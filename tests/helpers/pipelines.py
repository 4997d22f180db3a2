"""Small pipelines of patches of 2 x 2 pixels and two by three tokens, with random weights."""

from __future__ import annotations

from typing import Any

import tiny
import torch

from randfeat import Guidance, Pipeline, Sampling
from randfeat.tokenizers import PatchTokenizer

SIZE = (4, 6)  # two by three tokens of two by two pixels
NAMES = ["cat", "dog", "cow"]
HOW = Sampling(3, guidance=Guidance(2))


def patches(channels: int) -> PatchTokenizer:
    fitted_to = torch.rand(6, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    return PatchTokenizer.fit(fitted_to, 7, 2)


def make_pipeline(name: str = "randar", channels: int = 1, sampling: Any = None, **config: Any) -> Pipeline:
    return Pipeline(patches(channels), tiny.model(name, (2, 3), **config), NAMES, sampling)


def make_sampler(channels: int = 3, seed: int = 0, num_classes: int = 3) -> Pipeline:
    """Return a RandAR that samples in three steps with guidance unless told otherwise."""
    generator = tiny.model("randar", (2, 3), seed, num_classes=num_classes)
    return Pipeline(patches(channels), generator, NAMES[:num_classes], sampling=HOW)
