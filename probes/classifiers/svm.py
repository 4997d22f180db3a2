"""Support vector machine with a Gaussian kernel, the strong baseline on pixels and few images."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC

from ..arrays import fit_arrays, one_image_per_class_is_fine, predict_array, two_or_more_classes
from .scalings import scaling


class RBFSVM(ClassifierMixin, BaseEstimator):
    """SVM with kernel exp(-gamma |a - b|^2), gamma = relative_gamma / (d * variance of the scaled training features).

    A relative_gamma of 1 is scikit-learn's gamma="scale", higher is narrower. Because it is relative, one search grid
    fits features of any dimension and scale.
    """

    def __init__(self, C: float = 1.0, relative_gamma: float = 1.0, scaling: str = "none") -> None:
        self.C = C
        self.relative_gamma = relative_gamma
        self.scaling = scaling

    def fit(self, x: ArrayLike, y: ArrayLike) -> "RBFSVM":
        """Fit features `x` (n, d) and labels `y` (n,) of two classes or more."""
        features, labels = fit_arrays(self, x, y)
        self.classes_ = two_or_more_classes(labels)
        self.scaler_ = scaling(self.scaling)
        scaled = self.scaler_.fit_transform(features)
        spread = scaled.var(dtype=np.float64) * scaled.shape[1]
        self.gamma_ = self.relative_gamma / spread if spread > 0 else self.relative_gamma
        with one_image_per_class_is_fine():
            self.model_ = SVC(C=self.C, gamma=self.gamma_).fit(scaled, labels)
        return self

    def decision_function(self, x: ArrayLike) -> NDArray[np.floating]:
        """Return one-vs-rest scores (n, classes), or (n,) for two classes."""
        features = predict_array(self, x)
        return self.model_.decision_function(self.scaler_.transform(features))

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return labels (n,)."""
        features = predict_array(self, x)
        return self.model_.predict(self.scaler_.transform(features))
