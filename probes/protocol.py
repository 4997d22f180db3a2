"""Types that tasks share: labelled features, a feature set of train and test, the protocol of a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANCE = "chance (noise)"  # name of features of noise


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images of a split.

    features: by feature spec, each (n, d), or (n, D, h, w) for the attentive probe. labels: (n,), names of any type.
    paths: (n,), the unique name of each image. groups: (n,) or None, such as the writer of each image.
    """

    features: Mapping[str, NDArray[np.floating]]
    labels: NDArray[Any]
    paths: NDArray[np.str_]
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of train and test under one name. baseline: whether to beat it. fingerprints: of features and data."""

    name: str
    train: Labelled
    test: Labelled
    baseline: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """Evaluation settings that all records of a table share.

    seed: of splits, draws and starts. draws: resamples of the bootstrap. held_out: share of train to choose on.
    search: search scalings, components, C and k; if False, take the first of each. pcas: numbers of components to
    search, None keeps all. shots, shot_draws: images per class, and number of draws. runs: starts of k-means.
    recipe: "mae", "dinov2" or "capi" trains linear probes as published, see `HeadRecipe`, instead of logistic
    regression. device: where torch computes.
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
        """Return the settings as JSON values."""
        return asdict(self) | {"pcas": list(self.pcas)}


def noise(data: FeatureSet, seed: int = 0) -> FeatureSet:
    """Return chance as a baseline: features of noise, dense if those of `data` are."""
    rng = np.random.default_rng(seed)

    def part(own: Labelled) -> Labelled:
        dense = any(np.ndim(x) == 4 for x in own.features.values())
        shape = (len(own), 16, 2, 2) if dense else (len(own), 16)
        return Labelled({"noise": rng.standard_normal(shape, dtype=np.float32)}, own.labels, own.paths, own.groups)

    return FeatureSet(CHANCE, part(data.train), part(data.test), baseline=True)
