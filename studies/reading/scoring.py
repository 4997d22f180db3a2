"""Scores of features: specs ranked on train in folds that keep groups together, the chosen one scored once on test.

Every model and every baseline goes through the same search.
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
SEARCHED_DRAWS = 10  # draws of few-shot on train
WHITENED = 256  # principal components kept, with variance 1, where no other number is given
QUICK: dict[str, BaseEstimator | None] = {  # probes that rank feature specs
    "linear": RidgeClassifier(100.0),
    "knn": KNN(k=20),
    "5-shot": make_pipeline(scaling("l2"), RidgeClassifier(0.1)),
    "map@r": None,
}
COMPARED = ("knn", "map@r")  # measures by distances, for which the scaling of features decides most


@dataclass(frozen=True)
class Task:
    """Labels and groups of the probed training images, (n,), and labels of the test images, (m,)."""

    labels: np.ndarray
    groups: np.ndarray
    tested: np.ndarray

    @cached_property
    def fold(self) -> np.ndarray:
        """Fold of each probed image, from 0: (n,)."""
        return folds(self.labels, self.groups, FOLDS)


def rank(specs: Iterable[tuple[str, np.ndarray]], task: Task) -> dict[str, np.ndarray]:
    """Return the held-out score of each training image, 0 to 1 (n,), by "MEASURE|SPEC".

    One quick probe is fitted on the folds that an image is not in: on features of mean 0 and variance 1 or, for
    measures by distances, whitened if that is better. specs: yields names and features one by one.
    """
    found = {}
    for name, x in specs:
        standard = _held_out(scaling("standard"), x, task, MEASURES)
        whitened = _held_out(Components(WHITENED, whiten=True), x, task, COMPARED)
        for measure, right in standard.items():
            tried = {"standard": right} | ({"whitened": whitened[measure]} if measure in COMPARED else {})
            found[f"{measure}|{name}"] = tried[best(tried)]
    return found


def _held_out(scaler: BaseEstimator, x: np.ndarray, task: Task, measures: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the score of each training image under the quick probe of each measure, fitted on the other folds."""
    right = {measure: np.empty(len(x), dtype=np.float32) for measure in measures}
    for one in np.unique(task.fold):
        held = task.fold == one
        seen, rows = _scaled(scaler, x[~held], x[held])
        for measure in right:
            arrays = seen, task.labels[~held], rows, task.labels[held]
            right[measure][held] = _right(measure, QUICK[measure], *arrays, SEARCHED_DRAWS)
    return right


def best(right: Mapping[str, np.ndarray], among: Iterable[str] | None = None) -> str:
    """Return the name with the highest mean score, of equals the first."""
    return max(right if among is None else among, key=lambda name: right[name].mean(dtype=np.float64))


def score(
    measure: str, train: np.ndarray, test: np.ndarray, task: Task, pca: int | None = None
) -> tuple[str, np.ndarray]:
    """Return the probe's setting, chosen on train, and the score of each test image: one fit, test is used once.

    pca: number of principal components to reduce features to first, for comparisons at equal dimension.
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
            arrays = seen, task.labels[~held], rows, task.labels[held]
            tried[f"{name} {setting}"] = _right(measure, probe, *arrays, SEARCHED_DRAWS)
    chosen = best(tried)
    name, setting = chosen.split(" ")
    seen, rows = _scaled(scalers[name], train, test)
    return chosen, _right(measure, settings[setting], seen, task.labels, rows, task.tested, DRAWS)


def _settings(measure: str) -> dict[str, BaseEstimator | None]:
    """Return the probes to try for a measure, the simplest first; None where there is nothing to fit."""
    if measure == "linear":
        return {f"C={C:g}": LinearProbe(C=C) for C in (0.01, 0.1, 1, 10)}
    if measure == "knn":
        return {f"k={k}": KNN(k=k) for k in (5, 20)}
    if measure == "5-shot":
        return {f"C={C:g}": LinearProbe(C=C, scaling="l2") for C in (1, 30, 1000)}
    return {"cosine": None}


def _scaled(scaler: BaseEstimator, seen: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as scaled by a scaler fitted to the first, without labels."""
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
    """Return the score of each of the rows (m, d), 0 to 1 (m,), with a probe fitted on `seen` (n, d)."""
    if measure == "5-shot":
        return few_shot(seen, labels, rows, truth, SHOTS, draws, estimator=clone(probe)).mean(1)
    if measure == "map@r":
        return retrieval_scores(rows, truth, seen, labels)["map_at_r"]
    return clone(probe).fit(seen, labels).predict(rows) == truth
