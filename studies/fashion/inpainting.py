"""Inpainting: the lower half of test images is painted given the upper half; does the judge still know the class?"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from randfeat import Pipeline
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels

from .images import Fashion
from .judge import Judge
from .units import Place, keep, kept, key_of

PART = "inpainting"
MOST = 2000  # test images, the first ones
GUESS = 4  # orders by which a model with labels guesses the class of the upper half
BASELINES = "baselines"


def run(name: str, model: Pipeline, judge: Judge, data: Fashion, place: Place) -> None:
    """Score one generator. No label is given: one with labels guesses it from what it sees."""
    path, weights = place.record(PART, name), fingerprint(model.generator, model.tokenizer, judge)[:12]
    key = f"{weights}-{key_of(MOST, GUESS)}"
    if kept(path, key) is not None:
        return
    began, rows = time.process_time(), data.test[:MOST]
    pictures = [Image.fromarray(one) for one in data.images[rows]]
    box = half(data.images)
    painted = model.inpaint(pictures, box, guess=GUESS if model.generator.num_classes else 0)
    right = {"inpainted": _right(painted, judge, data.labels[rows])}
    _write(name, key, place, right, began)


def run_baselines(judge: Judge, data: Fashion, place: Place) -> None:
    """Score what needs no generator: the whole image, the upper half above the mean lower half of training images, and
    above that of the training image with the most similar upper half.
    """
    path, key = place.record(PART, BASELINES), fingerprint(judge)[:12]
    if kept(path, key) is not None:
        return
    began, rows = time.process_time(), data.test[:MOST]
    images, train, truth = data.images[rows], data.images[data.fit], data.labels[rows]
    top = half(images)[1]
    upper = [np.float32(one[:, :top].reshape(len(one), -1)) for one in (train, images)]
    nearest = NearestNeighbors(n_neighbors=1).fit(upper[0]).kneighbors(upper[1])[1][:, 0]
    mean, copied = images.copy(), images.copy()
    mean[:, top:] = train[:, top:].mean(0).round().astype(np.uint8)
    copied[:, top:] = train[nearest, top:]
    shown = {"whole image": images, "mean of train": mean, "nearest of train": copied}
    _write(BASELINES, key, place, {name: _right(one, judge, truth) for name, one in shown.items()}, began)


def half(images: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box of the lower half: left, top, right, bottom in pixels."""
    height, width = images.shape[1:3]
    return 0, height // 2, width, height


def _right(images: np.ndarray | Sequence[Image.Image], judge: Judge, truth: np.ndarray) -> np.ndarray:
    found = np.stack([np.asarray(one) for one in images])
    return judge.classes(as_pixels(found)) == truth


def _write(name: str, key: str, place: Place, right: dict[str, np.ndarray], began: float) -> None:
    means = {each: float(one.mean()) for each, one in right.items()}
    record = {"model": name, "key": key, "test": len(next(iter(right.values()))), "means": means}
    keep(place.record(PART, name), record | {"seconds": round(time.process_time() - began, 1)}, right)
    print(f"inpainting {name}: {means}", flush=True)
