"""Correspondence of one unit: points of an image are found, by its features, in the image turned, zoomed and moved.

The feature spec is chosen on train, and scored on test once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from randfeat.probes import code_maps, hog_maps, place_maps

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec

from .material import Material
from .material import read as read_material
from .models import MODELS, to_inputs
from .units import Job, extraction_costs, feature_specs, kinds, opened, write
from .warps import warped_pck

IMAGES = 300  # of train and of test
FILES = RECORD, SCORES = "warped.json", "warped.npz"
ALPHA = 0.1  # largest error of a found point, as a share of the longer side
Maps = Callable[[np.ndarray], np.ndarray]


def dense(family: str) -> dict[str, FeatureSpec]:
    """Return the feature specs of a family without their pooling, each once, by the first spec that leads to it."""
    specs: dict[FeatureSpec, str] = {}
    for name in feature_specs(family):
        specs.setdefault(replace(FeatureSpec.parse(name), pool="none"), name)
    return {name: spec for spec, name in specs.items()}


def classical(material: Material) -> dict[str, Maps]:
    """Return the baselines without a network; the first one uses the position of a cell only."""

    def codes(images: np.ndarray) -> np.ndarray:
        return code_maps(material.encoded(images).numpy(), material.codebook, material.grid)

    return {
        "same place": lambda images: place_maps(len(images), material.grid),
        "token codes": codes,
        "HOG": lambda images: hog_maps(images, material.grid),
    }


def found(maps: Maps, material: Material, rows: np.ndarray) -> np.ndarray:
    """Return the share of points found in each image: (n,)."""
    return warped_pck(material.pictures[some(rows)], maps, alphas=(ALPHA,)).scores()[:, 0]


def some(rows: np.ndarray) -> np.ndarray:
    """Return at most IMAGES rows at even distances, and so from all groups: (n, ...) -> (m, ...)."""
    return rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).round().astype(int)]


def run(job: Job, line: int = 0) -> Path:
    """Score one unit: warped.json holds the chosen feature specs, warped.npz the scores of each image."""
    if (done := job.folder / RECORD).exists():
        return done
    material, model = read_material(job.set, job.material), MODELS[job.model]
    reader, _ = opened(model, material, job)

    def maps(spec: FeatureSpec) -> Maps:
        return lambda images: readout.read(reader, to_inputs(model, material, images).long(), [spec])[0].numpy()

    specs, costs = dense(model.family), extraction_costs(model, material, job.size)
    train = {name: found(maps(spec), material, material.ranked) for name, spec in specs.items()}
    chosen = {
        kind: max(names, key=lambda name: train[name].mean())
        for kind, names in kinds({name: costs[name] for name in specs}).items()
    }
    test = {kind: found(maps(specs[name]), material, material.tested) for kind, name in chosen.items()}
    return write(job.folder, chosen, test | {f"train|{name}": right for name, right in train.items()}, FILES)


def run_classical(job: Job, line: int = 0) -> Path:
    """Score the baselines without a network in the same way."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)
    makers = classical(material)
    train = {name: found(maps, material, material.ranked) for name, maps in makers.items()}
    best = max(train, key=lambda name: train[name].mean())
    test = {name: found(maps, material, material.tested) for name, maps in makers.items()}
    return write(job.folder, {"any": best}, test | {f"train|{name}": right for name, right in train.items()}, FILES)
