"""Features to numbers: readings ranked on train in folds that keep groups together, then the chosen one scored once on
test. Every contender and every baseline goes through the same search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from randfeat.probes import KNN, Components, LinearProbe, few_shot, folds, retrieval_scores, scaling
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

MEASURES = ("linear", "knn", "5-shot", "map@r")
FOLDS, DRAWS, SHOTS = 3, 50, 5
SEARCHED_DRAWS = 10  # of few-shot, on train
WHITENED = 256  # components that are kept and given variance 1, unless fewer are asked for
ALPHA = 100.0  # of the ridge regression that ranks readings


@dataclass(frozen=True)
class Task:
    """labels and groups of the probed images of train (n,), labels of the tested ones."""

    labels: np.ndarray
    groups: np.ndarray
    tested: np.ndarray

    @property
    def fold(self) -> np.ndarray:
        """(n,) numbers from 0."""
        return folds(self.labels, self.groups, FOLDS)


def rank(readings: Iterable[tuple[str, np.ndarray]], task: Task) -> dict[str, np.ndarray]:
    """By "MEASURE|READING", how right each image of train is, 0..1 (n,), under one quick probe fitted on the folds
    that it is not in. Readings come one by one.
    """
    fold, found = task.fold, {}
    for name, x in readings:
        for measure in MEASURES:
            right = found[f"{measure}|{name}"] = np.empty(len(x), dtype=np.float32)
            for one in np.unique(fold):
                right[fold == one] = _quick(measure, x, task.labels, fold == one)
    return found


def best(right: Mapping[str, np.ndarray], among: Iterable[str] | None = None) -> str:
    """The name with the highest mean, of equals the first."""
    return max(right if among is None else among, key=lambda name: right[name].mean(dtype=np.float64))


def score(
    measure: str, train: np.ndarray, test: np.ndarray, task: Task, pca: int | None = None
) -> tuple[str, np.ndarray]:
    """The setting of the probe chosen on train, and how right each tested image is: one fit, one look at test.

    pca: components that features are cut down to first, for comparisons at equal dimension.
    """
    cut = [] if pca is None or pca >= train.shape[1] else [Components(pca)]
    scalers = {
        "none": [scaling("none"), *cut],
        "standard": [scaling("standard"), *cut],
        "whitened": [Components(pca or WHITENED, whiten=True)],
    }
    space = {
        f"{name} {setting}": make_pipeline(*first, *last)
        for name, first in scalers.items()
        for setting, last in _settings(measure).items()
    }
    held = task.fold == 0
    tried = {name: _right(measure, probe, train, task.labels, held, SEARCHED_DRAWS) for name, probe in space.items()}
    chosen = best(tried)
    both, labels = np.concatenate((train, test)), np.concatenate((task.labels, task.tested))
    return chosen, _right(measure, space[chosen], both, labels, np.arange(len(both)) >= len(train), DRAWS)


def _settings(measure: str) -> dict[str, Sequence[BaseEstimator]]:
    """The probes that are tried for a measure, the simplest first; nothing where features are compared as they are."""
    if measure == "linear":
        return {f"C={C:g}": [LinearProbe(C=C)] for C in (0.001, 0.01, 0.1, 1)}
    if measure == "knn":
        return {f"k={k}": [KNN(k=k)] for k in (5, 20)}
    if measure == "5-shot":
        return {f"C={C:g}": [LinearProbe(C=C, scaling="l2")] for C in (1, 100)}
    return {"cosine": []}


def _quick(measure: str, x: np.ndarray, labels: np.ndarray, held: np.ndarray) -> np.ndarray:
    ridge = make_pipeline(scaling("standard"), RidgeClassifier(ALPHA))
    probe = {"linear": ridge, "knn": make_pipeline(scaling("standard"), KNN(k=20))}.get(measure)
    if measure == "5-shot":
        probe = make_pipeline(scaling("standard"), scaling("l2"), RidgeClassifier(0.1))
    return _right(measure, probe or make_pipeline(scaling("standard")), x, labels, held, SEARCHED_DRAWS)


def _right(
    measure: str, probe: BaseEstimator, x: np.ndarray, labels: np.ndarray, held: np.ndarray, draws: int
) -> np.ndarray:
    """How right each held-out image is when a probe is fitted on the others, in 0..1. x: (n, d); held: bool (n,)."""
    seen, y, rows, truth = x[~held], labels[~held], x[held], labels[held]
    if measure == "5-shot":  # the first steps scale, and learn that from all of train without labels
        first, last = probe[:-1].fit(seen), probe[-1]
        return few_shot(
            first.transform(seen), y, first.transform(rows), truth, SHOTS, draws, estimator=clone(last)
        ).mean(1)
    if measure == "map@r":
        made = clone(probe).fit(seen)
        return retrieval_scores(made.transform(rows), truth, made.transform(seen), y)["map_at_r"]
    return clone(probe).fit(seen, y).predict(rows) == truth
