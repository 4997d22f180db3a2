"""Choose hyper-parameters, features or layers on a held-out part of train; test is scored once, later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

from .knn import KNN, METRICS
from .linear import LinearProbe
from .scalings import SCALINGS, scaling
from .svm import RBFSVM

Candidate = tuple[BaseEstimator, NDArray[np.floating]]
"""An unfitted estimator and the features of all of train (n, d) that it is to read."""


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, its held-out accuracy in 0..1, and that of every candidate."""

    name: str
    score: float
    scores: dict[str, float]


def select(candidates: Mapping[str, Candidate], labels: ArrayLike, held_out: ArrayLike) -> Selection:
    """Fit each candidate on the train images that are not `held_out`, score it on those that are.

    labels: (n,) for all of train. held_out: booleans (n,); keep images of one group on one side.
    Equal scores: the first candidate wins, so list the simplest first. The estimators stay unfitted.
    """
    y, mask = _rows(candidates, labels), np.asarray(held_out)
    if mask.dtype != bool or mask.shape != y.shape:
        raise ValueError(f"held_out is {mask.dtype} {mask.shape}, expected bool {y.shape}; mark each train image.")
    if mask.all() or not mask.any():
        raise ValueError(f"held_out marks {mask.sum()} of {len(mask)} images; leave some to fit and some to score.")
    scores = {
        name: float(clone(estimator).fit(x[~mask], y[~mask]).score(x[mask], y[mask]))
        for name, (estimator, x) in candidates.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return Selection(best, scores[best], scores)


def refit(candidates: Mapping[str, Candidate], name: str, labels: ArrayLike) -> BaseEstimator:
    """A fitted copy of the candidate `name`, on all of train."""
    y = _rows(candidates, labels)
    estimator, x = candidates[name]
    return clone(estimator).fit(x, y)


def cross(features: Mapping[str, NDArray[np.floating]], space: Mapping[str, BaseEstimator]) -> dict[str, Candidate]:
    """Every feature with every estimator, named "feature/estimator"."""
    return {f"{f}/{e}": (estimator, x) for f, x in features.items() for e, estimator in space.items()}


def linear_space(
    scalings: Sequence[str] = ("none", "standard"), Cs: Sequence[float] = (0.001, 0.01, 0.1, 1, 10)
) -> dict[str, BaseEstimator]:
    """Linear probes, the strongest penalty first."""
    return {f"linear {s} C={C:g}": LinearProbe(C=C, scaling=s) for s in scalings for C in Cs}


def knn_space(
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    metrics: Sequence[str] = METRICS,
    scalings: Sequence[str] = ("none", "standard"),
) -> dict[str, BaseEstimator]:
    """Nearest-neighbour classifiers."""
    return {
        f"knn {m} {s} k={k}": make_pipeline(scaling(s), KNN(k=k, metric=m))
        for m in metrics
        for s in scalings
        for k in ks
    }


def svm_space(
    scalings: Sequence[str] = tuple(SCALINGS),
    Cs: Sequence[float] = (1, 10, 100),
    widths: Sequence[float] = (0.25, 1, 4),
) -> dict[str, BaseEstimator]:
    """Gaussian support vector machines, the smoothest first."""
    return {
        f"svm {s} C={C:g} width={w:g}": RBFSVM(C=C, width=w, scaling=s) for s in scalings for C in Cs for w in widths
    }


def _rows(candidates: Mapping[str, Candidate], labels: ArrayLike) -> NDArray:
    if not candidates:
        raise ValueError("candidates are empty, expected one or more; cross features with a space.")
    y = np.asarray(labels)
    for name, (_, x) in candidates.items():
        if len(x) != len(y):
            raise ValueError(f"candidate {name!r} has {len(x)} rows for {len(y)} labels; give all of train.")
    return y
