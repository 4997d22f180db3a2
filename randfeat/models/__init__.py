"""The generators, by name."""

from __future__ import annotations

from typing import Any

from .arpg import ARPG
from .base import Context, Generator, State, Stream
from .randar import RandAR

MODELS: dict[str, type[Generator]] = {"arpg": ARPG, "randar": RandAR}

__all__ = ["ARPG", "MODELS", "Context", "Generator", "RandAR", "State", "Stream", "create", "name_of"]


def create(name: str, **config: Any) -> Generator:
    """A generator with fresh weights by its registered name; `config` are the keywords of `Generator`."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(sorted(MODELS))}")
    return MODELS[name](**config)


def name_of(generator: Generator) -> str:
    """The registered name of a generator's class."""
    return next(name for name, cls in MODELS.items() if type(generator) is cls)
