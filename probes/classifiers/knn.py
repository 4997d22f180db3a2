"""Weighted k-NN classifier, the protocol by which self-supervised features are compared."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from randfeat.utils.checks import is_finite_number, is_whole_number

from ..arrays import fit_arrays, predict_array, two_or_more_classes
from ..neighbors import METRICS, top_k

KS = (10, 20, 100, 200)
"""Numbers of neighbours that DINO and later work report."""

_BLOCK = 1 << 22  # votes counted at once: 32 MB


class KNN(ClassifierMixin, BaseEstimator):
    """Exact k nearest neighbours in a labelled bank (see `top_k`).

    metric "cosine": a neighbour of cosine s votes with weight exp(s / temperature), the protocol of DINO
    (Caron et al. 2021, arXiv 2104.14294) after Wu et al. 2018 (arXiv 1805.01978).
    metric "euclidean": every neighbour has one vote, so k=1 on pixels is the classical baseline;
    `temperature` is not used.
    device: "cpu" searches with faiss, any other with torch.

    `k` is clipped to the size of the bank. Of equally near neighbours the earlier in the bank is taken;
    of classes with equal votes the first in sorted order is predicted.

    A bank of floats is not copied, so a memory map is not read into memory.

    As in scikit-learn's own, `predict(None)`, `predict_proba(None)` and `score(None, y)` predict the bank itself, each
    image from all the others (leave one out).
    """

    def __init__(self, k: int = 20, temperature: float = 0.07, metric: str = "cosine", device: str = "cpu") -> None:
        self.k = k
        self.temperature = temperature
        self.metric = metric
        self.device = device

    def fit(self, x: ArrayLike, y: ArrayLike) -> "KNN":
        """Keep the bank: features `x` (n, d), labels `y` (n,) of two classes or more."""
        if not (is_whole_number(self.k, 1) and is_finite_number(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"k={self.k}, temperature={self.temperature}: expected a whole number k >= 1, a finite temperature > 0."
            )
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is unknown, expected one of {', '.join(METRICS)}.")
        self.bank_, labels = fit_arrays(self, x, y, half=True)
        self.classes_ = two_or_more_classes(labels)
        self.codes_ = np.searchsorted(self.classes_, labels)
        return self

    def predict_proba(self, x: ArrayLike | None) -> NDArray[np.float64]:
        """Return shares of the votes (n, classes), the classes in the order of `classes_`."""
        similarities, ids = self._nearest(x, self.k)
        return np.concatenate(list(self._shares(similarities, ids)))

    def predict(self, x: ArrayLike | None) -> NDArray[Any]:
        """Return labels (n,)."""
        return self._winners(*self._nearest(x, self.k))

    def predict_each(self, x: ArrayLike | None, ks: Sequence[int] = KS) -> dict[int, NDArray[Any]]:
        """Return labels (n,) for each number of neighbours in `ks` instead of `k`, from one search."""
        if min(ks, default=0) < 1:
            raise ValueError(f"ks={tuple(ks)}: expected whole numbers from 1.")
        similarities, ids = self._nearest(x, max(ks))
        return {k: self._winners(similarities[:, :k], ids[:, :k]) for k in ks}

    def _nearest(self, x: ArrayLike | None, k: int) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        check_is_fitted(self)
        queries = None if x is None else predict_array(self, x)
        return top_k(queries, self.bank_, k, self.metric, self.device)

    def _winners(self, similarities: NDArray[np.floating], ids: NDArray[np.int64]) -> NDArray[Any]:
        best = [shares.argmax(axis=1) for shares in self._shares(similarities, ids)]
        return self.classes_[np.concatenate(best)]

    def _shares(self, similarities: NDArray[np.floating], ids: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """Yield blocks of rows of the shares of votes."""
        classes = len(self.classes_)
        step = max(1, _BLOCK // classes)
        for start in range(0, len(ids), step):
            near, codes = similarities[start : start + step], self.codes_[ids[start : start + step]]
            weights = np.ones(near.shape)
            if self.metric == "cosine":
                # relative to the nearest, so that a low temperature cannot overflow
                weights = np.exp((near - near[:, :1]) / self.temperature)
            cells = np.arange(len(codes))[:, None] * classes + codes
            votes = np.bincount(cells.ravel(), weights.ravel(), len(codes) * classes).reshape(-1, classes)
            yield votes / votes.sum(axis=1, keepdims=True)
