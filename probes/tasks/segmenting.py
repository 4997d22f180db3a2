"""The record of linear segmentation: reading and learning rate chosen on held-out images of train, test scored once."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classifiers.heads import HeadRecipe
from ..protocol import Protocol
from ..report.record import Record, made_with
from ..splits import hold_out
from ..stats import Interval, bootstrap
from .labelled_maps import LabelMap
from .segmentation import LinearSegmenter

RATES = (0.05, 0.005, 0.5)  # the first is taken where nothing is searched
BATCH, EPOCHS, LEAST_STEPS = 16, 20, 500


@dataclass(frozen=True, eq=False)
class Mapped:
    """Images of one part. features: by reading, (n, D, h, w). maps: what they show, read when it is needed, of just the
    part of the picture that the features cover. paths: (n,)."""

    features: Mapping[str, NDArray[np.floating]]
    maps: Sequence[LabelMap]
    paths: Sequence[str]


def evaluate_segmentation(
    name: str,
    train: Mapped,
    test: Mapped,
    ignore: int,
    how: Protocol = Protocol(),  # noqa: B008  immutable
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> Record:
    """Return the record of "segmentation": mIoU over all labelled pixels of test, with the interval of
    `Overlaps.scores`, and the IoU of each class in `per_class`.

    A linear layer on normalised features, trained by AdamW in batches of 16 images for 20 epochs, or as many as make
    500 steps. ignore: the label that means none. Arrays "both" and "either" (n, classes) hold the pixels of `Overlaps`.
    """
    start = time.perf_counter()
    recipe = recipe_for(len(train.maps))
    candidates = [(reading, rate) for reading in train.features for rate in RATES[: None if how.search else 1]]
    scores: dict[str, float] = {}
    if len(candidates) > 1:
        held = hold_out(np.zeros(len(train.maps), dtype=int), None, how.held_out, how.seed)
        fit, left = np.flatnonzero(~held), np.flatnonzero(held)
        for reading, rate in candidates:
            x = train.features[reading]
            segmenter = _segmenter(recipe, rate, ignore, how).fit(x[fit], _Rows(train.maps, fit))
            scores[_spelled(reading, rate)] = segmenter.evaluate(x[left], _Rows(train.maps, left)).miou
    reading, rate = max(candidates, key=lambda one: scores.get(_spelled(*one), 0))  # the first of equals
    segmenter = _segmenter(recipe, rate, ignore, how).fit(train.features[reading], train.maps)
    found = segmenter.overlaps(test.features[reading], test.maps)
    right = found.scores()
    return Record(
        name,
        "segmentation",
        {"mIoU": _within(bootstrap(right, None, how.draws, how.seed))},
        _spelled(reading, rate),
        scores,
        {str(label): float(iou) for label, iou in zip(found.classes, found.iou, strict=True)},
        {**how.as_dict(), "recipe": asdict(recipe.only(rate, 0.0)), "ignore": ignore}
        | {"train images": len(train.maps), "test images": len(test.maps), **(settings or {})},
        dict(fingerprints or {}),
        made_with(),
        time.perf_counter() - start,
        {"paths": np.array(test.paths), "right": right, "both": found.both, "either": found.either},
    )


def recipe_for(images: int) -> HeadRecipe:
    """How the linear layer of so many images is trained, at all learning rates."""
    a_step = max(1, images // BATCH)
    return HeadRecipe("adamw", RATES, batch=BATCH, epochs=max(EPOCHS, math.ceil(LEAST_STEPS / a_step)), batch_norm=True)


class _Rows(Sequence[LabelMap]):
    """Some of the label maps, none of them read before it is needed."""

    def __init__(self, maps: Sequence[LabelMap], rows: NDArray[np.intp]) -> None:
        self.maps, self.rows = maps, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self.maps[self.rows[i]]


def _segmenter(recipe: HeadRecipe, rate: float, ignore: int, how: Protocol) -> LinearSegmenter:
    return LinearSegmenter(recipe.only(rate, 0.0), ignore, seed=how.seed, device=how.device)


def _spelled(reading: str, rate: float) -> str:
    return f"{reading}/lr={rate:g}"


def _within(score: Interval) -> Interval:
    """mIoU lies in 0..1, also where its linearisation leaves it."""
    return replace(score, low=max(0.0, score.low), high=min(1.0, score.high))
