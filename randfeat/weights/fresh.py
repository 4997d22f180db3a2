"""Models with random weights: `random:` before the name of any, the control of what training has added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..utils.checks import check_whole_number
from .loading import ModelParts, load_parts

RANDOM = "random:"


def open_parts(source: str | Path, seed: int = 0, **how: Any) -> ModelParts:
    """Open the parts of a model as `load_parts` does; of `random:MODEL` the generator has random weights of this seed.

    The tokenizer, the names of the classes, the settings of sampling and the feature spec are those of MODEL.
    """
    if not isinstance(source, (str, Path)) or not str(source).removeprefix(RANDOM):
        raise ValueError(f"a model is a directory, a file or a name, got {source!r}")
    check_whole_number("seed", seed)
    if not str(source).startswith(RANDOM):
        return load_parts(source, **how)
    with random_weights(seed):
        trained = load_parts(str(source).removeprefix(RANDOM), **how)
        generator = models.create(models.name_of(trained.generator), **trained.generator.config)
    placed = generator.to(trained.generator.device, trained.generator.dtype)
    return replace(trained, generator=placed, training={})


@contextmanager
def random_weights(seed: int) -> Iterator[None]:
    """Draw the weights of modules that the block makes from a seed, and leave the generator of numbers as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
