"""Choose hyper-parameters, features or layers on held-out parts of train; test is scored once, later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

from .arrays import check_finite
from .classifiers.knn import KNN, METRICS
from .classifiers.linear import LinearProbe
from .classifiers.scalings import SCALINGS, Components, scaling
from .classifiers.svm import RBFSVM
from .splits import folds

Candidate = tuple[BaseEstimator, NDArray[np.floating]]
"""An unfitted estimator and the features of all of train (n, d) that it is to read."""


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, its held-out accuracy in 0..1, and that of every candidate."""

    name: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Nested:
    """Whether each image was classified right, bool (n,), the fold it was in, and the choice made for each fold."""

    right: NDArray[np.bool_]
    folds: NDArray[np.intp]
    chosen: tuple[str, ...]


def select(candidates: Mapping[str, Candidate], labels: ArrayLike, held_out: ArrayLike) -> Selection:
    """Fit each candidate on the train images that are not `held_out`, score it on those that are.

    labels: (n,) for all of train. held_out: booleans (n,), see `hold_out`, or the number of the fold each image is in,
    see `folds`; then every fold is held out in turn and all images count alike. Keep images of one group together.
    Equal scores: the first candidate wins, so list the simplest first. The estimators stay unfitted.
    """
    y = _rows(candidates, labels)
    masks = _masks(held_out, len(y))
    scores = {name: _accuracy(estimator, x, y, masks) for name, (estimator, x) in candidates.items()}
    best = max(scores, key=lambda name: scores[name])
    return Selection(best, scores[best], scores)


def refit(candidates: Mapping[str, Candidate], name: str, labels: ArrayLike) -> BaseEstimator:
    """Return a fitted copy of the candidate `name`, on all of train."""
    y = _rows(candidates, labels)
    estimator, x = candidates[name]
    return clone(estimator).fit(x, y)


def nested(
    candidates: Mapping[str, Candidate],
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    outer: int = 5,
    inner: int = 5,
    seed: int = 0,
) -> Nested:
    """Score every image once where there is no test set: each of `outer` folds is predicted by the candidate that
    `inner` folds of the other images chose (Varma & Simon 2006)."""
    y = _rows(candidates, labels)
    whose = None if groups is None else np.asarray(groups)
    fold = folds(y, whose, outer, seed)
    right, chosen = np.zeros(len(y), dtype=bool), []
    for mask in _masks(fold, len(y)):
        train = {name: (estimator, x[~mask]) for name, (estimator, x) in candidates.items()}
        within = folds(y[~mask], None if whose is None else whose[~mask], inner, seed)
        best = select(train, y[~mask], within).name
        right[mask] = refit(train, best, y[~mask]).predict(candidates[best][1][mask]) == y[mask]
        chosen.append(best)
    return Nested(right, fold, tuple(chosen))


def strongest(selections: Mapping[str, Selection]) -> str:
    """Return the baseline to beat: the one that did best on held-out images of train, the first of equals."""
    if not selections:
        raise ValueError("selections are empty, expected one or more; select each baseline on train first.")
    return max(selections, key=lambda name: selections[name].score)


def cross(features: Mapping[str, NDArray[np.floating]], space: Mapping[str, BaseEstimator]) -> dict[str, Candidate]:
    """Return every feature with every estimator, named "feature/estimator"."""
    return {f"{f}/{e}": (estimator, x) for f, x in features.items() for e, estimator in space.items()}


def linear_space(
    scalings: Sequence[str] = ("none", "standard"),
    Cs: Sequence[float] = (0.001, 0.01, 0.1, 1, 10),
    pcas: Sequence[int | None] = (None,),
) -> dict[str, BaseEstimator]:
    """Linear probes, the strongest penalty first. pcas: after scaling, how many components are kept; None is all."""
    return {f"linear {_name(s, p)} C={C:g}": _after(s, p, LinearProbe(C=C)) for s in scalings for p in pcas for C in Cs}


def knn_space(
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    metrics: Sequence[str] = METRICS,
    scalings: Sequence[str] = ("none", "standard", "whitened"),
    pcas: Sequence[int | None] = (None,),
) -> dict[str, BaseEstimator]:
    """Nearest-neighbour classifiers, `pcas` as in `linear_space`."""
    return {
        f"knn {m} {_name(s, p)} k={k}": _after(s, p, KNN(k=k, metric=m))
        for m in metrics
        for s in scalings
        for p in pcas
        for k in ks
    }


def svm_space(
    scalings: Sequence[str] = tuple(SCALINGS),
    Cs: Sequence[float] = (1, 10, 100),
    relative_gammas: Sequence[float] = (0.25, 1, 4),
    pcas: Sequence[int | None] = (None,),
) -> dict[str, BaseEstimator]:
    """Gaussian support vector machines, the smoothest first, `pcas` as in `linear_space`."""
    return {
        f"svm {_name(s, p)} C={C:g} relative_gamma={g:g}": _after(s, p, RBFSVM(C=C, relative_gamma=g))
        for s in scalings
        for p in pcas
        for C in Cs
        for g in relative_gammas
    }


def _name(scaling_name: str, pca: int | None) -> str:
    return scaling_name if pca is None else f"{scaling_name} pca={pca}"


def _after(scaling_name: str, pca: int | None, estimator: BaseEstimator) -> BaseEstimator:
    if pca is None:
        return make_pipeline(scaling(scaling_name), estimator)
    if scaling_name == "whitened":  # of components that all vary alike none are the first
        return make_pipeline(Components(pca, whiten=True), estimator)
    return make_pipeline(scaling(scaling_name), Components(pca), estimator)


def _accuracy(
    estimator: BaseEstimator, x: NDArray[np.floating], y: NDArray[Any], masks: Sequence[NDArray[np.bool_]]
) -> float:
    """Share of held-out images that are classified right, each by a fit on the images outside its mask."""
    right = [clone(estimator).fit(x[~m], y[~m]).score(x[m], y[m]) * m.sum() for m in masks]
    return float(sum(right) / sum(m.sum() for m in masks))


def _masks(held_out: ArrayLike, n: int) -> list[NDArray[np.bool_]]:
    """What is held out, bool (n,), for one part or one fold after the other."""
    mask = np.asarray(held_out)
    if mask.shape != (n,) or mask.dtype.kind not in "bui":
        raise ValueError(
            f"held_out is {mask.dtype} {mask.shape}, expected bool ({n},) or fold numbers; mark each train image."
        )
    if mask.dtype != bool:
        if len(parts := np.unique(mask)) < 2:
            raise ValueError("held_out puts all images in one fold, expected two or more; see folds.")
        return [mask == part for part in parts]
    if mask.all() or not mask.any():
        raise ValueError(f"held_out marks {mask.sum()} of {n} images; leave some to fit and some to score.")
    return [mask]


def _rows(candidates: Mapping[str, Candidate], labels: ArrayLike) -> NDArray[Any]:
    if not candidates:
        raise ValueError("candidates are empty, expected one or more; cross features with a space.")
    y = np.asarray(labels)
    for name, (_, x) in candidates.items():
        if len(x) != len(y):
            raise ValueError(f"candidate {name!r} has {len(x)} rows for {len(y)} labels; give all of train.")
    for x in {id(x): x for _, x in candidates.values()}.values():
        if x.ndim == 2:  # not images, which an estimator may read as well
            check_finite(x)
    return y
