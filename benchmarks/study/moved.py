"""What it is worth to move an image before it is read: by parts of a token, or to the middle, as the strongest baseline
of letters does. A unit that is done is read once more in each of the ways, by the readings that it chose on train."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from randfeat.probes import hog, recentred

from randfeat import files
from randfeat.shifts import shifted

from . import scoring
from .contenders import CONTENDERS, as_seen
from .material import Material
from .material import read as read_material
from .scoring import MEASURES
from .units import Job, keep, opened, read_in

BASELINE = "HOG"
RECORD, SCORES = "moved.json", "moved.npz"
Reader = Callable[[np.ndarray, Sequence[str]], Mapping[str, np.ndarray]]  # images, names -> features (n, d) by name
View = Callable[[np.ndarray, int], Iterable[np.ndarray]]  # images, pixels of a token's side -> the same, moved


def middle(images: np.ndarray) -> np.ndarray:
    """With the centre of what is drawn in the middle. uint8 as it came."""
    return (recentred(images).reshape(images.shape) * 255).round().astype(np.uint8)


def places(images: np.ndarray, patch: int, count: int = 2) -> list[np.ndarray]:
    """At count x count places, as `FeatureSpec.shifts` reads them."""
    pixels = torch.from_numpy(images).float()
    pixels = pixels.unsqueeze(1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)
    moved = shifted(pixels, patch, count).to(torch.uint8).permute(1, 0, 3, 4, 2).numpy()
    return [one.reshape(images.shape) for one in moved]


VIEWS: dict[str, View] = {
    "as it is": lambda images, patch: [images],
    "2 x 2 shifts": places,
    "in the middle": lambda images, patch: [middle(images)],
    "in the middle, 2 x 2 shifts": lambda images, patch: places(middle(images), patch),
}


def scores(read: Reader, chosen: Mapping[str, str], material: Material) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The best view of each measure on train, and how right each image of test is, by "MEASURE|VIEW".

    chosen: the reading of each measure.
    """
    names = [*dict.fromkeys(chosen.values())]
    task, ranking = (
        scoring.Task(material.labels[rows], material.groups[rows], material.labels[material.tested])
        for rows in (material.probed, material.ranked)
    )
    ranked = np.isin(material.probed, material.ranked)
    train: dict[str, dict[str, float]] = {measure: {} for measure in chosen}
    test = {}
    for view, moves in VIEWS.items():
        probed, tested = (
            _mean([read(images, names) for images in moves(material.pictures[rows], material.patch)])
            for rows in (material.probed, material.tested)
        )
        right = scoring.rank(((name, x[ranked]) for name, x in probed.items()), ranking)
        for measure, name in chosen.items():
            train[measure][view] = float(right[f"{measure}|{name}"].mean())
            _, test[f"{measure}|{view}"] = scoring.score(measure, probed[name], tested[name], task)
    return {measure: max(found, key=found.__getitem__) for measure, found in train.items()}, test


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

    return _write(job.folder, *scores(read, {measure: chosen[f"{measure}|any"] for measure in MEASURES}, material))


def run_classical(job: Job, line: int = 0) -> Path:
    """The same of HOG."""
    if (done := job.folder / RECORD).exists():
        return done
    material = read_material(job.set, job.material)
    one = dict.fromkeys(MEASURES, BASELINE)
    return _write(job.folder, *scores(lambda images, _: {BASELINE: hog(images)}, one, material))


def _write(folder: Path, best: Mapping[str, str], test: Mapping[str, np.ndarray]) -> Path:
    keep(folder / SCORES, test)
    files.write_bytes(folder / RECORD, json.dumps(best, indent=1).encode())
    return folder / RECORD
