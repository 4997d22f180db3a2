"""Which of many readings of one network is best, found on train alone, each by one fixed probe."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone

from .arrays import check_finite
from .splits import folds
from .stats import Groups, Interval, bootstrap


@dataclass(frozen=True)
class Ranking:
    """right: for each reading whether each image of train was classified right while it was held out, bool (n,)."""

    right: dict[str, NDArray[np.bool_]]

    @property
    def scores(self) -> dict[str, float]:
        """The held-out accuracy of each reading, in 0..1."""
        return {reading: float(right.mean()) for reading, right in self.right.items()}

    @property
    def best(self) -> str:
        """The reading with the highest score, the first of equals: list the cheapest first."""
        return max(self.scores, key=self.scores.__getitem__)

    def intervals(self, groups: Groups = None, draws: int = 2000, seed: int = 0) -> dict[str, Interval]:
        """Return the scores with 95 % intervals over groups, then images. They are of each reading alone: the best of
        many looks better on train than it is, which is what test is for."""
        return {reading: bootstrap(right, groups, draws, seed) for reading, right in self.right.items()}


def rank_readings(
    readings: Iterable[tuple[str, NDArray[np.floating]]],
    labels: ArrayLike,
    probes: Iterable[BaseEstimator],
    groups: ArrayLike | None = None,
    count: int = 5,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Ranking:
    """Return every image of train is classified by each reading once, by a probe fitted on the folds that it is not in.

    readings: names and features (n, d) of all of train, taken one after the other, so that they need not fit into
    memory together. probes: of several, each reading has the one that is best for it. groups, count: see
    `folds`.
    tick: called after each reading, for a progress bar.
    """
    y, probes = np.asarray(labels), list(probes)
    fold = folds(y, groups, count, seed)
    right = {}
    for name, x in readings:
        check_finite(x, name)
        tried = [_held_out(probe, x, y, fold) for probe in probes]
        right[name] = max(tried, key=np.mean)
        tick()
    if not right:
        raise ValueError("readings are empty, expected one or more.")
    return Ranking(right)


def _held_out(probe: BaseEstimator, x: NDArray[np.floating], y: NDArray, fold: NDArray[np.intp]) -> NDArray[np.bool_]:
    right = np.zeros(len(y), dtype=bool)
    for number in range(fold.max() + 1):
        held = fold == number
        right[held] = clone(probe).fit(x[~held], y[~held]).predict(x[held]) == y[held]
    return right
