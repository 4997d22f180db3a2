"""Multinomial logistic regression on frozen features."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .arrays import fit_arrays, one_image_per_class_is_fine, predict_array, two_or_more_classes
from .scalings import scaling


class LinearProbe(ClassifierMixin, BaseEstimator):
    """L2-regularised multinomial logistic regression by L-BFGS, after one of the `scalings`.

    C: inverse strength of the penalty against the summed loss, as in scikit-learn.
    tol, max_iter: when L-BFGS stops. At scikit-learn's tol of 1e-4 it stops so early that accuracy changes
    when C is 10 or more.

    `converged_` tells whether it met `tol`, `n_iter_` after how many iterations; no warning is raised.
    """

    def __init__(self, C: float = 1.0, scaling: str = "none", max_iter: int = 1000, tol: float = 1e-5) -> None:
        self.C = C
        self.scaling = scaling
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, x: ArrayLike, y: ArrayLike) -> "LinearProbe":
        """Features `x` (n, d), labels `y` (n,) of two classes or more."""
        features, labels = fit_arrays(self, x, y)
        self.classes_ = two_or_more_classes(labels)
        # The intercept is not penalised, so centring leaves the optimum where it is. Centred features
        # converge sooner and, in float32, to the predictions of float64 in half the time. With more
        # features than images the optimum lies in the span of the images: all their principal components
        # say the same in fewer numbers.
        wide = features.shape[1] > len(features)
        centre = PCA(svd_solver="full") if wide else StandardScaler(with_std=False)
        model = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol)
        self.model_ = make_pipeline(scaling(self.scaling), centre, model)
        with one_image_per_class_is_fine(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model_.fit(features.astype(np.float32), labels)
        self.n_iter_ = int(model.n_iter_.max())
        self.converged_ = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        for other in (w for w in caught if not issubclass(w.category, ConvergenceWarning)):
            warnings.warn(other.message, stacklevel=2)
        return self

    def decision_function(self, x: ArrayLike) -> NDArray[np.floating]:
        """Logits (n, classes), or (n,) for two classes."""
        features = predict_array(self, x)
        return self.model_.decision_function(features)

    def predict_proba(self, x: ArrayLike) -> NDArray[np.floating]:
        """Probabilities (n, classes), the classes in the order of `classes_`."""
        features = predict_array(self, x)
        return self.model_.predict_proba(features)

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        features = predict_array(self, x)
        return self.model_.predict(features)
