"""Generators: RandAR, ARPG, LPD, RAR and LlamaGen, by name and published size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .arpg import ARPG, PositionedARPG
from .base import Context, Generator, State, Stream
from .control import Control
from .llamagen import LlamaGen
from .lpd import LPD
from .randar import RandAR
from .rar import RAR
from .sizes import SIZES

MODELS: dict[str, type[Generator]] = {
    "arpg": ARPG,
    "arpg_positioned": PositionedARPG,
    "llamagen": LlamaGen,
    "lpd": LPD,
    "randar": RandAR,
    "rar": RAR,
}

__all__ = [
    "ARPG",
    "LPD",
    "MODELS",
    "RAR",
    "SIZES",
    "Context",
    "Control",
    "Generator",
    "LlamaGen",
    "PositionedARPG",
    "RandAR",
    "State",
    "Stream",
    "create",
    "name_of",
    "size_of",
]


def create(name: str, **config: Any) -> Generator:
    """Return a generator with fresh weights by its registered name or that of a published size, such as `randar_l`.

    config: keywords of `Generator`, which override those of the size.
    """
    if name in SIZES:
        name, size = SIZES[name]
        config = size | config
    if name not in MODELS:
        known = ", ".join((*sorted(MODELS), *SIZES))
        raise ValueError(f"unknown model {name!r}, expected one of {known}")
    return MODELS[name](**config)


def name_of(generator: Generator) -> str:
    """Return the registered name of a generator's class."""
    return next(name for name, cls in MODELS.items() if type(generator) is cls)


def size_of(name: str, config: Mapping[str, Any]) -> str | None:
    """Return the published size, such as `randar_l`, of a model by its registered name and keywords; None without one.

    Missing keywords fit every size: the number of heads, for instance, cannot be read from weights.
    """
    sizes = (size for size, (model, own) in SIZES.items() if model == name and own.items() <= {**own, **config}.items())
    return next(sizes, None)
