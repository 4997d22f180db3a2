"""The weighted nearest-neighbour classifier that self-supervised features are compared with."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .arrays import fit_arrays, predict_array
from .neighbors import cosine_costs, euclidean_costs, exclude_self, nearest, unit

METRICS = ("cosine", "euclidean")


class KNN(ClassifierMixin, BaseEstimator):
    """k nearest neighbours of a labelled bank, exactly.

    metric "cosine": a neighbour of cosine s votes with weight exp(s / temperature), the protocol of DINO
    (Caron et al. 2021, arXiv 2104.14294) after Wu et al. 2018 (arXiv 1805.01978).
    metric "euclidean": every neighbour has one vote, so k=1 on pixels is the classical baseline;
    `temperature` is not used.

    `k` is clipped to the size of the bank. Of equally near neighbours the earlier in the bank is taken;
    of classes with equal votes the first in sorted order is predicted.

    As in scikit-learn's own, `predict(None)`, `predict_proba(None)` and `score(None, y)` mean the bank
    itself, each image predicted from all the others (leave one out).
    """

    def __init__(self, k: int = 20, temperature: float = 0.07, metric: str = "cosine") -> None:
        self.k = k
        self.temperature = temperature
        self.metric = metric

    def fit(self, x: ArrayLike, y: ArrayLike) -> "KNN":
        """Keep the bank: features `x` (n, d), labels `y` (n,)."""
        if self.k < 1 or self.temperature <= 0:
            raise ValueError(f"k={self.k}, temperature={self.temperature}: expected k >= 1, temperature > 0.")
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is unknown, expected one of {', '.join(METRICS)}.")
        features, labels = fit_arrays(self, x, y)
        self.classes_, self.codes_ = np.unique(labels, return_inverse=True)
        self.bank_ = unit(features) if self.metric == "cosine" else features
        return self

    def predict_proba(self, x: ArrayLike | None) -> NDArray[np.float64]:
        """Shares of the votes (n, classes), the classes in the order of `classes_`."""
        check_is_fitted(self)
        leave_one_out = x is None
        others = len(self.bank_) - leave_one_out
        if others < 1:
            raise ValueError("the bank holds one image, expected two or more to leave one out; add images.")
        queries = self.bank_ if x is None else predict_array(self, x)
        if self.metric == "cosine":
            blocks = cosine_costs(unit(queries), self.bank_)
        else:
            blocks = euclidean_costs(queries, self.bank_)
        shares = []
        for rows, costs in blocks:
            if leave_one_out:
                exclude_self(costs, rows)
            picked = nearest(costs, min(self.k, others))
            shares.append(self._shares(picked, np.take_along_axis(costs, picked, axis=1)))
        return np.concatenate(shares)

    def predict(self, x: ArrayLike | None) -> NDArray[Any]:
        """Labels (n,)."""
        best = self.predict_proba(x).argmax(axis=1)
        return self.classes_[best]

    def _shares(self, picked: NDArray[np.intp], costs: NDArray[np.floating]) -> NDArray[np.float64]:
        weights = np.ones(picked.shape)
        if self.metric == "cosine":
            # relative to the nearest, so that a low temperature cannot overflow
            weights = np.exp((costs[:, :1] - costs).astype(np.float64) / self.temperature)
        n, classes = len(picked), len(self.classes_)
        cells = np.arange(n)[:, None] * classes + self.codes_[picked]
        votes = np.bincount(cells.ravel(), weights.ravel(), n * classes).reshape(n, classes)
        return votes / votes.sum(axis=1, keepdims=True)
