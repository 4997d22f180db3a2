"""What it is worth to move an image before it is read: by parts of a token, or to the middle, as the strongest baseline
of letters does. A unit that is done is read once more in each of the ways, by the readings that it chose for any of the
measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import hog, recentred

from . import scoring
from .contenders import CONTENDERS, as_seen
from .material import Material
from .material import read as read_material
from .scoring import MEASURES
from .units import Job, opened, read_in, write

BASELINE = "HOG"
FILES = RECORD, SCORES = "moved.json", "moved.npz"
Reader = Callable[[np.ndarray, Sequence[str]], Mapping[str, np.ndarray]]  # images, names -> features (n, d) by name
View = Callable[[Material, np.ndarray], Iterable[np.ndarray]]  # images of a set -> the same, moved


def middle(images: np.ndarray) -> np.ndarray:
    """With the centre of what is drawn in the middle. uint8 as it came."""
    return (recentred(images).reshape(images.shape) * 255).round().astype(np.uint8)


VIEWS: dict[str, View] = {
    "as it is": lambda material, images: [images],
    "2 x 2 shifts": Material.places,
    "in the middle": lambda material, images: [middle(images)],
    "in the middle, 2 x 2 shifts": lambda material, images: material.places(middle(images)),
}


def scores(read: Reader, names: Sequence[str], material: Material) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the best view of each measure, and the best reading of each view, both on train; and how right each image
    of test is, by "MEASURE|VIEW".
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
    """Of one unit that is done: moved.npz, and then moved.json, which says that this is."""
    if (done := job.folder / RECORD).exists():
        return done
    material, contender = read_material(job.set, job.material), CONTENDERS[job.contender]
    chosen = json.loads((job.folder / "record.json").read_text("utf-8"))["chosen"]
    reader, _ = opened(contender, material, job)

    def read(images: np.ndarray, specs: Sequence[str]) -> Mapping[str, np.ndarray]:
        return dict(read_in(reader, as_seen(contender, material, images), specs))

    names = [*dict.fromkeys(chosen[f"{measure}|any"] for measure in MEASURES)]
    return write(job.folder, *scores(read, names, material), FILES)


def run_classical(job: Job, line: int = 0) -> Path:
    """Return the same of HOG."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)
    return write(job.folder, *scores(lambda images, _: {BASELINE: hog(images)}, [BASELINE], material), FILES)
