"""Correspondence of one unit: the points of an image are looked for in the same image turned, zoomed and moved, by the
states at its positions. Which reading does that is chosen on train, and it is scored on test once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from randfeat.probes import code_maps, hog_maps, place_maps

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec

from .contenders import CONTENDERS, as_seen
from .material import Material
from .material import read as read_material
from .units import Job, kinds, opened, reading_costs, readings, write
from .warps import warped_pck

IMAGES = 300  # of train, and of test
FILES = RECORD, SCORES = "warped.json", "warped.npz"
ALPHA = 0.1  # of the longer side of an image: how near is found
Maps = Callable[[np.ndarray], np.ndarray]


def dense(family: str) -> dict[str, FeatureSpec]:
    """Return the readings of a family without their pooling, each once, by the first one that is read so."""
    specs: dict[FeatureSpec, str] = {}
    for name in readings(family):
        specs.setdefault(replace(FeatureSpec.parse(name), pool="none"), name)
    return {name: spec for spec, name in specs.items()}


def classical(material: Material) -> dict[str, Maps]:
    """What finds points without a network; the first knows where a cell lies and nothing else."""

    def codes(images: np.ndarray) -> np.ndarray:
        return code_maps(material.encoded(images).numpy(), material.codebook, material.grid)

    return {
        "same place": lambda images: place_maps(len(images), material.grid),
        "token codes": codes,
        "HOG": lambda images: hog_maps(images, material.grid),
    }


def found(maps: Maps, material: Material, rows: np.ndarray) -> np.ndarray:
    """Return the share of its points that is found, of each image. (n,)"""
    return warped_pck(material.pictures[some(rows)], maps, alphas=(ALPHA,)).scores()[:, 0]


def some(rows: np.ndarray) -> np.ndarray:
    """IMAGES of them at most, from all groups: they lie side by side. (n, ...) -> (m, ...)"""
    return rows[np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).round().astype(int)]


def run(job: Job, line: int = 0) -> Path:
    """As `units.run`: warped.json says which readings were chosen, warped.npz has the scores of each image."""
    if (done := job.folder / RECORD).exists():
        return done
    material, contender = read_material(job.set, job.material), CONTENDERS[job.contender]
    reader, _ = opened(contender, material, job)

    def maps(spec: FeatureSpec) -> Maps:
        return lambda images: readout.read(reader, as_seen(contender, material, images).long(), [spec])[0].numpy()

    specs, costs = dense(contender.family), reading_costs(contender, material, job.size)
    train = {name: found(maps(spec), material, material.ranked) for name, spec in specs.items()}
    chosen = {
        kind: max(names, key=lambda name: train[name].mean())
        for kind, names in kinds({name: costs[name] for name in specs}).items()
    }
    test = {kind: found(maps(specs[name]), material, material.tested) for kind, name in chosen.items()}
    return write(job.folder, chosen, test | {f"train|{name}": right for name, right in train.items()}, FILES)


def run_classical(job: Job, line: int = 0) -> Path:
    """Return the same for what nobody trains."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)
    makers = classical(material)
    train = {name: found(maps, material, material.ranked) for name, maps in makers.items()}
    best = max(train, key=lambda name: train[name].mean())
    test = {name: found(maps, material, material.tested) for name, maps in makers.items()}
    return write(job.folder, {"any": best}, test | {f"train|{name}": right for name, right in train.items()}, FILES)
