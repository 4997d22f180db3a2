"""Learned pooling: AIM's attentive probe, one query that attends to the states at all positions.

Feature spec and training of the probe are chosen on train, and scored on test once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from randfeat.probes import AttentiveProbe, hog_maps

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec

from .material import Material
from .material import read as read_material
from .models import HEADS, MODELS, inputs_of
from .scoring import Task
from .units import Job, extraction_costs, kinds, opened, write

MEASURE = "attentive"
FILES = RECORD, SCORES = "attended.json", "attended.npz"
OURS = tuple(f"raster/{how}/grid4/mean" for how in ("causal/query/L-1", "full/query/L0.67", "full/query/L-1"))
SPECS = {  # some of those in configs/, without their pooling
    "randar": OURS,
    "arpg": OURS,
    "masked": tuple(f"raster/full/token/{layer}/grid4/mean" for layer in ("L0.67", "L0.83", "L-1")),
}
SETTINGS = tuple((rate, epochs) for epochs in (20, 60) for rate in (3e-3, 1e-3, 1e-2))  # the first ranks feature specs
Maps = Callable[[np.ndarray], np.ndarray]  # rows -> states (n, D, h, w)
Setting = tuple[float, int]  # learning rate and epochs


def measure(
    maps: Mapping[str, Maps],
    compete: Mapping[str, Sequence[str]],
    material: Material,
    tried: Sequence[Setting] | None = None,
) -> tuple[dict[str, dict[str, str]], dict[str, np.ndarray]]:
    """Return spec and setting chosen for each kind of feature spec, and whether each test image is classified right.

    tried: settings to choose from, `SETTINGS` by default; the first ranks feature specs.
    """
    tried = SETTINGS if tried is None else tried
    probed, tested = material.probed, material.tested
    y, truth = material.labels[probed], material.labels[tested]
    held = Task(y, material.groups[probed], truth).fold == 0
    states = {name: read(probed) for name, read in maps.items()}

    def held_out(name: str, setting: Setting) -> float:
        x = states[name]
        return float((_fitted(setting, x[~held], y[~held]).predict(x[held]) == y[held]).mean())

    ranked = {name: held_out(name, tried[0]) for name in maps}
    chosen = {kind: max(names, key=ranked.__getitem__) for kind, names in compete.items()}
    settings = {name: max(tried, key=partial(held_out, name)) for name in {*chosen.values()}}
    test = {
        name: _fitted(setting, states[name], y).predict(maps[name](tested)) == truth
        for name, setting in settings.items()
    }
    settings_of = {kind: f"lr={settings[name][0]:g}, {settings[name][1]} epochs" for kind, name in chosen.items()}
    return {"chosen": chosen, "settings": settings_of}, {kind: test[name] for kind, name in chosen.items()}


def _fitted(setting: Setting, x: np.ndarray, y: np.ndarray) -> AttentiveProbe:
    rate, epochs = setting
    return AttentiveProbe(HEADS, rate, epochs=epochs, batch=128).fit(x, y)


def run(job: Job, line: int = 0) -> Path:
    """Score one unit: attended.json holds the choices, attended.npz the scores of each test image."""
    if (done := job.folder / RECORD).exists():
        return done
    material, model = read_material(job.set, job.material), MODELS[job.model]
    reader, _ = opened(model, material, job)
    seen, costs = inputs_of(model, material), extraction_costs(model, material, job.size)

    def maps(spec: str) -> Maps:
        dense = replace(FeatureSpec.parse(spec), pool="none")
        return lambda rows: readout.read(reader, seen[rows].long(), [dense])[0].numpy()

    specs = SPECS[model.family]
    found = measure({spec: maps(spec) for spec in specs}, kinds({spec: costs[spec] for spec in specs}), material)
    return write(job.folder, *found, FILES)


def run_classical(job: Job, line: int = 0) -> Path:
    """Score the cells of HOG in the same way."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)

    def maps(rows: np.ndarray) -> np.ndarray:
        return hog_maps(material.pictures[rows], material.grid)

    return write(job.folder, *measure({"HOG": maps}, {"any": ["HOG"], "HOG": ["HOG"]}, material), FILES)
