"""Multinomial logistic regression on frozen features."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import fit_arrays, predict_array, two_or_more_classes
from .logistic import Start, fit_logistic
from .logits import LogitClassifier
from .scalings import scaling


class LinearProbe(LogitClassifier):
    """L2-regularised multinomial logistic regression by full-batch L-BFGS, after one of the `scalings`.

    C: inverse strength of the penalty against the summed loss; the objective is scikit-learn's.
    tol, max_iter: L-BFGS stops when no entry of the gradient of the mean loss is above `tol`. At scikit-learn's
    tol of 1e-4 it stops so early that accuracy changes when C is 10 or more.
    warm_start: begin at the weights of the fit before, where classes and dimensions are the same: for a path of C.
    device: where torch multiplies, "cpu", "cuda" or "mps". Features are read as float32.

    `converged_` tells whether it met `tol`, `n_iter_` after how many iterations; no warning is raised. Logits are
    `(scaled - centre_) @ weight_ + bias_`, with `scaled` the features after the scaling, `loss_` the mean loss.
    """

    def __init__(
        self,
        C: float = 1.0,
        scaling: str = "none",
        max_iter: int = 1000,
        tol: float = 1e-5,
        warm_start: bool = False,
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.scaling = scaling
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.device = device

    def fit(self, x: ArrayLike, y: ArrayLike) -> "LinearProbe":
        """Features `x` (n, d), labels `y` (n,) of two classes or more."""
        features, labels = fit_arrays(self, x, y)
        classes = two_or_more_classes(labels)
        start = self._start(classes, features.shape[1])
        self.classes_ = classes
        self.scaler_ = scaling(self.scaling)
        scaled = self.scaler_.fit_transform(features)
        # The bias is not penalised, so centring leaves the optimum where it is, and float32 what it can say.
        self.centre_ = scaled.mean(axis=0, dtype=np.float64).astype(np.float32)
        found = fit_logistic(
            self._centred(scaled),
            np.searchsorted(self.classes_, labels),
            len(self.classes_),
            self.C,
            self.tol,
            self.max_iter,
            start,
            self.device,
        )
        self.weight_, self.bias_ = found.weight, found.bias
        self.loss_, self.converged_, self.n_iter_ = found.loss, found.converged, found.n_iter
        return self

    def _start(self, classes: NDArray[Any], dimensions: int) -> Start | None:
        if not (self.warm_start and hasattr(self, "weight_")):
            return None
        same = np.array_equal(self.classes_, classes) and len(self.weight_) == dimensions
        return (self.weight_, self.bias_) if same else None

    def _logits(self, x: ArrayLike) -> NDArray[np.floating]:
        features = predict_array(self, x)
        return self._centred(self.scaler_.transform(features)) @ self.weight_.astype(np.float32) + self.bias_

    def _centred(self, scaled: NDArray[np.floating]) -> NDArray[np.float32]:
        return (scaled - self.centre_).astype(np.float32, copy=False)
