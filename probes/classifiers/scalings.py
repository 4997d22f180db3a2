"""Scalings of features before a classifier, the same choice for the method and for every baseline."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ..arrays import as_matrix, odd_size, predict_array
from ..neighbors import unit

WHITENED = 256  # components, at most, that "whitened" keeps
SCALINGS: dict[str, Callable[[], TransformerMixin]] = {
    "none": FunctionTransformer,
    "standard": StandardScaler,
    "l2": lambda: FunctionTransformer(unit),  # scikit-learn's Normalizer squares in float32: 1e25 becomes infinite
    "center-l2": lambda: make_pipeline(StandardScaler(with_std=False), FunctionTransformer(unit)),
    "whitened": lambda: Components(WHITENED, whiten=True),
}


def scaling(name: str) -> TransformerMixin:
    """Return a new transformer of features (n, d).

    "none" leaves them; "standard" gives each dimension mean 0 and variance 1 (a constant one becomes 0); "l2" gives
    each image norm 1 (a zero vector stays 0); "center-l2" does so after subtracting the mean; "whitened" keeps the
    first WHITENED principal components, each with variance 1 (its use is shown in docs/reading.md).
    """
    if name not in SCALINGS:
        raise ValueError(f"scaling {name!r} is unknown, expected one of {', '.join(SCALINGS)}.")
    return SCALINGS[name]()


NOISE = 1e-6  # relative variance that rounding alone can produce


class Components(TransformerMixin, BaseEstimator):
    """First `count` principal components, or as many as the images and dimensions of the fit allow.

    whiten: give each component variance 1, so that all count alike in a distance; components with less than NOISE of
        the variance of the first are dropped.
    """

    def __init__(self, count: int = 64, whiten: bool = False) -> None:
        self.count, self.whiten = count, whiten

    def fit(self, x: ArrayLike, y: Any = None) -> "Components":
        """Fit features `x` (n, d)."""
        features = as_matrix(x)
        if self.count < 1:
            raise ValueError(f"count={self.count}: expected one component or more.")
        self.n_features_in_ = features.shape[1]
        self.size_ = odd_size(features)
        if self.size_ != 1:
            features = features / self.size_
        with np.errstate(invalid="ignore"):  # shares of the variance are 0 / 0 for constant features
            self.pca_ = PCA(min(self.count, *features.shape), whiten=self.whiten, random_state=0).fit(features)
        varies = self.pca_.explained_variance_ > NOISE * self.pca_.explained_variance_[0]
        self.kept_ = max(1, int(varies.sum())) if self.whiten else len(varies)
        return self

    def transform(self, x: ArrayLike) -> NDArray[np.floating]:
        """Return components (n, count)."""
        features = predict_array(self, x)
        if self.size_ == 1:
            return self.pca_.transform(features)[:, : self.kept_]
        return self.pca_.transform(features / self.size_)[:, : self.kept_] * (1 if self.whiten else self.size_)
