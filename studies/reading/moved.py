"""Views of an image before feature extraction: sub-patch shifts, and centring as letters' strongest baseline does.

Features of a finished unit are extracted again in each view, by the feature specs that it chose for any measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import hog, recentred

from . import scoring
from .material import Material
from .material import read as read_material
from .models import MODELS, to_inputs
from .scoring import MEASURES
from .units import Job, extract, opened, write

BASELINE = "HOG"
FILES = RECORD, SCORES = "moved.json", "moved.npz"
Reader = Callable[[np.ndarray, Sequence[str]], Mapping[str, np.ndarray]]  # images, names -> features (n, d) by name
View = Callable[[Material, np.ndarray], Iterable[np.ndarray]]  # images of a set -> the same, in the view


def middle(images: np.ndarray) -> np.ndarray:
    """Return images with the centre of mass of their content in the middle, uint8."""
    return (recentred(images).reshape(images.shape) * 255).round().astype(np.uint8)


VIEWS: dict[str, View] = {
    "as it is": lambda material, images: [images],
    "2 x 2 shifts": Material.places,
    "in the middle": lambda material, images: [middle(images)],
    "in the middle, 2 x 2 shifts": lambda material, images: material.places(middle(images)),
}


def scores(read: Reader, names: Sequence[str], material: Material) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the best view of each measure and the best feature spec of each view, both on train, and the test scores.

    These are the scores of each test image, by "MEASURE|VIEW".
    """
    task, ranking = (
        scoring.Task(material.labels[rows], material.groups[rows], material.labels[material.tested])
        for rows in (material.probed, material.ranked)
    )
    ranked = np.isin(material.probed, material.ranked)
    train: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
    chosen, test = {}, {}
    for view, moves in VIEWS.items():
        probed, tested = (
            _mean([read(images, names) for images in moves(material, material.pictures[rows])])
            for rows in (material.probed, material.tested)
        )
        right = scoring.rank(((name, x[ranked]) for name, x in probed.items()), ranking)
        for measure in MEASURES:
            means = {name: float(right[f"{measure}|{name}"].mean()) for name in names}
            name = chosen[f"{measure}|{view}"] = max(means, key=means.__getitem__)
            train[measure][view] = means[name]
            _, test[f"{measure}|{view}"] = scoring.score(measure, probed[name], tested[name], task)
    return {
        "views": {measure: max(found, key=found.__getitem__) for measure, found in train.items()},
        "readings": chosen,
    }, test


def _mean(reads: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([one[name] for one in reads], axis=0) for name in reads[0]}


def run(job: Job, line: int = 0) -> Path:
    """Score one finished unit in each view: moved.npz, and then moved.json, which marks it as done."""
    if (done := job.folder / RECORD).exists():
        return done
    material, model = read_material(job.set, job.material), MODELS[job.model]
    chosen = json.loads((job.folder / "record.json").read_text("utf-8"))["chosen"]
    reader, _ = opened(model, material, job)

    def read(images: np.ndarray, specs: Sequence[str]) -> Mapping[str, np.ndarray]:
        return dict(extract(reader, to_inputs(model, material, images), specs))

    names = [*dict.fromkeys(chosen[f"{measure}|any"] for measure in MEASURES)]
    return write(job.folder, *scores(read, names, material), FILES)


def run_classical(job: Job, line: int = 0) -> Path:
    """Score HOG in the same way."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)
    return write(job.folder, *scores(lambda images, _: {BASELINE: hog(images)}, [BASELINE], material), FILES)
