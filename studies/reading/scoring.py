"""Features to numbers: readings ranked on train in folds that keep groups together, then the chosen one scored once on
test. Every contender and every baseline goes through the same search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from randfeat.probes import KNN, Components, LinearProbe, few_shot, folds, retrieval_scores, scaling
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

MEASURES = ("linear", "knn", "5-shot", "map@r")
FOLDS, DRAWS, SHOTS = 3, 50, 5
SEARCHED_DRAWS = 10  # of few-shot, on train
WHITENED = 256  # components that are kept and given variance 1, unless fewer are asked for
QUICK: dict[str, BaseEstimator | None] = {  # probes that rank readings
    "linear": RidgeClassifier(100.0),
    "knn": KNN(k=20),
    "5-shot": make_pipeline(scaling("l2"), RidgeClassifier(0.1)),
    "map@r": None,
}
COMPARED = ("knn", "map@r")  # by distances alone: what their features are scaled by decides most


@dataclass(frozen=True)
class Task:
    """labels and groups of the probed images of train (n,), labels of the tested ones."""

    labels: np.ndarray
    groups: np.ndarray
    tested: np.ndarray

    @cached_property
    def fold(self) -> np.ndarray:
        """(n,) numbers from 0."""
        return folds(self.labels, self.groups, FOLDS)


def rank(readings: Iterable[tuple[str, np.ndarray]], task: Task) -> dict[str, np.ndarray]:
    """By "MEASURE|READING", how right each image of train is, 0..1 (n,), under one quick probe fitted on the folds
    that it is not in: on features of mean 0 and variance 1, or, where they are compared, whitened if that is better.
    Readings come one by one.
    """
    found = {}
    for name, x in readings:
        standard = _held_out(scaling("standard"), x, task, MEASURES)
        whitened = _held_out(Components(WHITENED, whiten=True), x, task, COMPARED)
        for measure, right in standard.items():
            tried = {"standard": right} | ({"whitened": whitened[measure]} if measure in COMPARED else {})
            found[f"{measure}|{name}"] = tried[best(tried)]
    return found


def _held_out(scaler: BaseEstimator, x: np.ndarray, task: Task, measures: Iterable[str]) -> dict[str, np.ndarray]:
    """How right each image of train is under the quick probe of each measure, fitted on the other folds."""
    right = {measure: np.empty(len(x), dtype=np.float32) for measure in measures}
    for one in np.unique(task.fold):
        held = task.fold == one
        seen, rows = _scaled(scaler, x[~held], x[held])
        for measure in right:
            judged = seen, task.labels[~held], rows, task.labels[held]
            right[measure][held] = _right(measure, QUICK[measure], *judged, SEARCHED_DRAWS)
    return right


def best(right: Mapping[str, np.ndarray], among: Iterable[str] | None = None) -> str:
    """Return the name with the highest mean, of equals the first."""
    return max(right if among is None else among, key=lambda name: right[name].mean(dtype=np.float64))


def score(
    measure: str, train: np.ndarray, test: np.ndarray, task: Task, pca: int | None = None
) -> tuple[str, np.ndarray]:
    """Return the setting of the probe chosen on train, and how right each tested image is: one fit, one look at test.

    pca: components that features are cut down to first, for comparisons at equal dimension.
    """
    held, settings = task.fold == 0, _settings(measure)
    cut = [] if pca is None or pca >= train.shape[1] else [Components(pca)]
    scalers = {
        "none": make_pipeline(scaling("none"), *cut),
        "standard": make_pipeline(scaling("standard"), *cut),
        "whitened": Components(pca or WHITENED, whiten=True),
    }
    tried = {}
    for name, scaler in scalers.items():
        seen, rows = _scaled(scaler, train[~held], train[held])
        for setting, probe in settings.items():
            judged = seen, task.labels[~held], rows, task.labels[held]
            tried[f"{name} {setting}"] = _right(measure, probe, *judged, SEARCHED_DRAWS)
    chosen = best(tried)
    name, setting = chosen.split(" ")
    seen, rows = _scaled(scalers[name], train, test)
    return chosen, _right(measure, settings[setting], seen, task.labels, rows, task.tested, DRAWS)


def _settings(measure: str) -> dict[str, BaseEstimator | None]:
    """Return the probes that are tried for a measure, the simplest first; nothing where features are compared as they
    are."""
    if measure == "linear":
        return {f"C={C:g}": LinearProbe(C=C) for C in (0.01, 0.1, 1, 10)}
    if measure == "knn":
        return {f"k={k}": KNN(k=k) for k in (5, 20)}
    if measure == "5-shot":
        return {f"C={C:g}": LinearProbe(C=C, scaling="l2") for C in (1, 30, 1000)}
    return {"cosine": None}


def _scaled(scaler: BaseEstimator, seen: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as the scaler makes them that has seen the first, without labels."""
    fitted = clone(scaler).fit(seen)
    return fitted.transform(seen), fitted.transform(rows)


def _right(
    measure: str,
    probe: BaseEstimator | None,
    seen: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    truth: np.ndarray,
    draws: int,
) -> np.ndarray:
    """How right each of the rows (m, d) is when a probe is fitted on what is seen (n, d), in 0..1 (m,)."""
    if measure == "5-shot":
        return few_shot(seen, labels, rows, truth, SHOTS, draws, estimator=clone(probe)).mean(1)
    if measure == "map@r":
        return retrieval_scores(rows, truth, seen, labels)["map_at_r"]
    return clone(probe).fit(seen, labels).predict(rows) == truth
