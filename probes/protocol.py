"""Labelled features of train and of test, and how everything of one table is measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of one part of the data.

    features: one reading or several by name, each (n, d), or (n, D, h, w) for the attentive probe. labels: (n,) of
    whatever names the classes have. paths: (n,), the unique name of each image. groups: (n,) or None.
    """

    features: Mapping[str, NDArray[np.floating]]
    labels: NDArray[Any]
    paths: NDArray[np.str_]
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features under one name, of train and of test. fingerprints: of features and data, where they are known."""

    name: str
    train: Labelled
    test: Labelled
    baseline: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How everything of one table is measured.

    seed: of splits, draws and starts. draws: of the bootstrap. held_out: share of train to choose on. search: whether
    scalings, components, C and k are searched; else the first of each. pcas: of that search, None keeps all.
    shots, shot_draws: images for each class, and how often they are drawn. runs: of k-means. recipe: "mae", "dinov2" or
    "capi" trains linear probes as published, see `HeadRecipe`, instead of logistic regression.
    device: of what goes through torch.
    """

    seed: int = 0
    draws: int = 2000
    held_out: float = 0.2
    search: bool = True
    pcas: tuple[int | None, ...] = (None, 64)
    shots: int = 5
    shot_draws: int = 20
    runs: int = 5
    recipe: str | None = None
    device: str = "cpu"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"pcas": list(self.pcas)}


def noise(data: FeatureSet, seed: int = 0) -> FeatureSet:
    """Chance, as a baseline: features that are noise, dense ones where those of `data` are."""
    rng = np.random.default_rng(seed)

    def part(own: Labelled) -> Labelled:
        dense = any(np.ndim(x) == 4 for x in own.features.values())
        shape = (len(own), 16, 2, 2) if dense else (len(own), 16)
        return Labelled({"noise": rng.standard_normal(shape, dtype=np.float32)}, own.labels, own.paths, own.groups)

    return FeatureSet("chance (noise)", part(data.train), part(data.test), baseline=True)
