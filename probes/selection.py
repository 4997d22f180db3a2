"""Choice of hyper-parameters, feature specs or layers on held-out parts of train; test is scored once, later.

`select` compares candidates that are all in memory; `rank_features` ranks many features of one network that are read
one after the other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from .stats import Groups, Interval, bootstrap

SEARCHED_KS = (1, 5, 10, 20, 50)

Candidate = tuple[BaseEstimator, NDArray[np.floating]]
"""Unfitted estimator, and the features of all of train (n, d) that it reads."""


@dataclass(frozen=True)
class Selection:
    """Chosen candidate, its held-out accuracy in 0..1, and that of every candidate."""

    name: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Ranking:
    """Result of `rank_features`. right: by feature, whether each held-out image of train was classified right (n,)."""

    right: dict[str, NDArray[np.bool_]]

    @property
    def scores(self) -> dict[str, float]:
        """Held-out accuracy of each feature, in 0..1."""
        return {name: float(right.mean()) for name, right in self.right.items()}

    @property
    def best(self) -> str:
        """Feature with the highest score, the first of equals: list the cheapest first."""
        return max(self.scores, key=self.scores.__getitem__)

    def intervals(self, groups: Groups = None, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
        """Return the scores with 95 % intervals over groups, then images.

        Each interval is that of one feature by itself. The best of many looks better on train than it is, so report its
        score on test.
        """
        return {name: bootstrap(right, groups, draws, seed) for name, right in self.right.items()}


def select(candidates: Mapping[str, Candidate], labels: ArrayLike, held_out: ArrayLike) -> Selection:
    """Fit each candidate on the images of train that are not `held_out` and score it on those that are.

    labels: (n,) for all of train. held_out: bool (n,), see `hold_out`, or fold numbers (n,), see `folds`; every fold is
    then held out in turn and all images count alike. Keep images of one group together. The first of equal candidates
    wins, so list the simplest first. The estimators stay unfitted.
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


def strongest(selections: Mapping[str, Selection]) -> str:
    """Return the strongest baseline: the one with the best score on held-out images of train, the first of equals."""
    if not selections:
        raise ValueError("selections are empty, expected one or more; select each baseline on train first.")
    return max(selections, key=lambda name: selections[name].score)


def rank_features(
    features: Iterable[tuple[str, NDArray[np.floating]]],
    labels: ArrayLike,
    probes: Iterable[BaseEstimator],
    groups: ArrayLike | None = None,
    count: int = 5,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Ranking:
    """Return the ranking of features by held-out accuracy: each image of train is predicted from the other folds.

    features: names and arrays (n, d) over all of train, taken one after the other, so they need not fit into memory
    together. probes: unfitted estimators; each feature keeps the one that is best for it. groups, count, seed: of
    `folds`. tick: called after each feature, for a progress bar.
    """
    y, probes = np.asarray(labels), list(probes)
    fold = folds(y, groups, count, seed)
    right = {}
    for name, x in features:
        check_finite(x, name)
        tried = [_held_out_right(probe, x, y, fold) for probe in probes]
        right[name] = max(tried, key=np.mean)
        tick()
    if not right:
        raise ValueError("features are empty, expected one or more; name a feature spec.")
    return Ranking(right)


def cross(features: Mapping[str, NDArray[np.floating]], space: Mapping[str, BaseEstimator]) -> dict[str, Candidate]:
    """Return every feature with every estimator, named "feature/estimator"."""
    return {f"{f}/{e}": (estimator, x) for f, x in features.items() for e, estimator in space.items()}


def linear_space(
    scalings: Sequence[str] = ("none", "standard"),
    Cs: Sequence[float] = (0.001, 0.01, 0.1, 1, 10),
    pcas: Sequence[int | None] = (None,),
) -> dict[str, BaseEstimator]:
    """Return linear probes, the strongest penalty first. pcas: components kept after scaling, None keeps all."""
    return {f"linear {_name(s, p)} C={C:g}": _after(s, p, LinearProbe(C=C)) for s in scalings for p in pcas for C in Cs}


def knn_space(
    ks: Sequence[int] = SEARCHED_KS,
    metrics: Sequence[str] = METRICS,
    scalings: Sequence[str] = ("none", "standard", "whitened"),
    pcas: Sequence[int | None] = (None,),
) -> dict[str, BaseEstimator]:
    """Return nearest-neighbour classifiers, `pcas` as in `linear_space`."""
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
    """Return Gaussian support vector machines, the smoothest first, `pcas` as in `linear_space`."""
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
    if scaling_name == "whitened":  # after whitening no component is the first, so it has to keep `pca` itself
        return make_pipeline(Components(pca, whiten=True), estimator)
    return make_pipeline(scaling(scaling_name), Components(pca), estimator)


def _accuracy(
    estimator: BaseEstimator, x: NDArray[np.floating], y: NDArray[Any], masks: Sequence[NDArray[np.bool_]]
) -> float:
    """Return the share of held-out images that are classified right, each by a fit on the images outside its mask."""
    right = [clone(estimator).fit(x[~m], y[~m]).score(x[m], y[m]) * m.sum() for m in masks]
    return float(sum(right) / sum(m.sum() for m in masks))


def _masks(held_out: ArrayLike, n: int) -> list[NDArray[np.bool_]]:
    """Return the masks of held-out images, bool (n,): one, or one per fold."""
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
        if x.ndim == 2:  # an estimator may read images too, which are not checked
            check_finite(x)
    return y


def _held_out_right(
    probe: BaseEstimator, x: NDArray[np.floating], y: NDArray[Any], fold: NDArray[np.intp]
) -> NDArray[np.bool_]:
    right = np.zeros(len(y), dtype=bool)
    for number in range(fold.max() + 1):
        held = fold == number
        right[held] = clone(probe).fit(x[~held], y[~held]).predict(x[held]) == y[held]
    return right
