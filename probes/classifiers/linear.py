"""Linear probe of frozen features: multinomial logistic regression, and the solver that fits it.

The solver runs L-BFGS over all images at once, in coordinates in which the loss is about equally curved; torch computes
the products.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from randfeat.utils.checks import is_finite_number, is_whole_number
from randfeat.utils.onednn import linear

from ..arrays import fit_arrays, odd_size, predict_array, two_or_more_classes
from .scalings import scaling

_BLOCK = 1 << 18  # logits at once: 1 MB, which stays in a processor's cache
_ROWS_PER_DIMENSION = 16  # with so many images the covariance of features is known well enough to precondition with

Start = tuple[NDArray[np.floating], NDArray[np.floating]]


class LogitClassifier(ClassifierMixin, BaseEstimator, ABC):
    """Base of classifiers that predict from logits: a subclass computes `_logits` (n, classes)."""

    classes_: NDArray[Any]

    @abstractmethod
    def _logits(self, x: Any) -> NDArray[np.floating]:
        """Return logits (n, classes)."""

    def decision_function(self, x: Any) -> NDArray[np.floating]:
        """Return logits (n, classes), or for two classes their difference (n,), second minus first."""
        logits = self._logits(x)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, x: Any) -> NDArray[np.float64]:
        """Return probabilities (n, classes), the classes in the order of `classes_`."""
        return softmax(self._logits(x).astype(np.float64), axis=1)

    def predict(self, x: Any) -> NDArray[Any]:
        """Return labels (n,)."""
        best = self._logits(x).argmax(axis=1)
        return self.classes_[best]


class LinearProbe(LogitClassifier):
    """L2-regularised multinomial logistic regression by full-batch L-BFGS, after one of the `scalings`.

    C: inverse strength of the penalty against the summed loss; the objective is scikit-learn's.
    tol, max_iter: L-BFGS stops when no entry of the gradient of the mean loss is above `tol`. At scikit-learn's
    tol of 1e-4 it stops so early that accuracy changes when C is 10 or more.
    warm_start: start at the weights of the last fit if classes and dimensions are the same, as along a path of C.
    device: where torch multiplies, "cpu", "cuda" or "mps". Features are read as float32.

    `converged_` says whether the fit met `tol`, `n_iter_` after how many iterations, `loss_` is the mean loss; no
    warning is raised. Logits are `(scaled - centre_) @ weight_ + bias_`, with `scaled` the features after the scaling.
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
        """Fit features `x` (n, d) and labels `y` (n,) of two classes or more."""
        features, labels = fit_arrays(self, x, y)
        classes = two_or_more_classes(labels)
        start = self._start(classes, features.shape[1])
        self.classes_ = classes
        self.scaler_ = scaling(self.scaling)
        scaled = self.scaler_.fit_transform(features)
        # The bias is not penalised, so centring does not move the optimum; it saves float32 from cancellation.
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


# the solver -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logistic:
    """Solution of `fit_logistic`: logits are `x @ weight + bias`, weight (d, classes) and bias (classes,) in float64.

    loss: the value of the objective. converged: whether its gradient met `tol`, after `n_iter` iterations.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    loss: float
    converged: bool
    n_iter: int


def fit_logistic(
    x: NDArray[np.float32],
    codes: NDArray[np.integer],
    classes: int,
    C: float = 1.0,
    tol: float = 1e-5,
    max_iter: int = 1000,
    start: Start | None = None,
    device: str = "cpu",
) -> Logistic:
    """Minimise mean cross-entropy + |weight|^2 / (2 C n), the objective of scikit-learn's LogisticRegression.

    x: features (n, d), centred, because products are in float32 as long as that lowers the loss; weights and sums are
    in float64. codes: classes (n,) as numbers from 0. With two classes the penalty is on the difference of their
    weights, as in scikit-learn. tol: stop when no entry of the gradient is larger. start: (weight, bias) of an earlier
    fit. With d > n the gradient is that of the weights of n orthogonal combinations of dimensions. Features whose root
    mean square lies beyond 0.001 to 1,000 are scaled to 1 for the fit. Where the loss is below 0.01, as with separated
    classes, no entry of the gradient may be above 100 `tol` times the loss.
    """
    if not 0 < C < np.inf:
        raise ValueError(f"C={C}: expected a finite number above 0.")
    if not (is_finite_number(tol) and tol >= 0 and is_whole_number(max_iter, 1)):
        raise ValueError(f"tol={tol}, max_iter={max_iter}: expected a number from 0 and a whole number from 1.")
    n, d = x.shape
    weight, bias = start or (np.zeros((d, classes)), np.zeros(classes))
    if (size := odd_size(x)) != 1:
        begin = (weight * size, bias)
        scaled = fit_logistic(x / size, codes, classes, C * float(size) ** 2, tol, max_iter, begin, device)
        return replace(scaled, weight=scaled.weight / size)
    if d > n:  # the best weights are combinations of the images, so n dimensions are enough
        basis, mixture = np.linalg.qr(x.T)
        inside = np.ascontiguousarray(mixture.T)
        narrow = fit_logistic(inside, codes, classes, C, tol, max_iter, (basis.T @ weight, bias), device)
        return replace(narrow, weight=basis @ narrow.weight)
    objective = _Objective(x, codes, classes, C, device)
    variables = objective.variables(torch.from_numpy(np.vstack([weight, bias])).double())

    def stop_at_tol(intermediate_result: OptimizeResult) -> None:
        if objective.met(tol):
            raise StopIteration

    loss, iterations = objective(variables)[0] if start else np.inf, 0
    for dtype in objective.dtypes:
        if objective.met(tol) or iterations >= max_iter:
            break
        objective.dtype = dtype
        options = {"maxiter": max_iter - iterations, "maxfun": np.inf, "maxls": 10, "gtol": 0, "ftol": 0}
        found = minimize(objective, variables, method="L-BFGS-B", jac=True, callback=stop_at_tol, options=options)
        variables, loss, iterations = found.x, float(found.fun), iterations + int(found.nit)
    solution = objective.solution(variables).numpy()
    return Logistic(solution[:-1], solution[-1], loss, objective.met(tol), iterations)


class _Objective:
    """Loss and gradient as functions of variables in which all directions are about equally curved.

    The Hessian is near (1/K)(1 - 1/K) X'X/n + penalty for each of K classes, so with its Cholesky factor L,
    weight = L^-T variables. This does not move the optimum, and saves L-BFGS most of its iterations when some
    directions of the features vary much more than others, as they do in features of networks.
    `steepest` is the largest entry of the last gradient, in weights and biases, and `loss` the last loss.
    """

    def __init__(self, x: NDArray[np.float32], codes: NDArray[np.integer], classes: int, C: float, device: str) -> None:
        n, d = x.shape
        self.x = torch.from_numpy(x).to(device)
        self.codes = torch.from_numpy(codes.astype(np.int64))[:, None].to(device)
        self.shape = (d + 1, classes)
        self.penalty = (2 if classes == 2 else 1) / (C * n)
        # With few images float32 may fail to tell a better loss from a worse one before `tol` is met.
        self.dtypes = [torch.float32] if self.x.device.type == "mps" else [torch.float32, torch.float64]
        self.dtype = torch.float32
        self.steepest = self.loss = np.inf
        curvature = (1 - 1 / classes) / classes
        hessian = torch.eye(d + 1, dtype=torch.float64) * curvature
        hessian[:d, :d] = curvature * _second_moment(self.x)
        # damps directions of little variance, where a few images decide once the rest are separated
        hessian[:d, :d].diagonal().add_(self.penalty + 1e-3 * hessian[:d, :d].trace() / d)
        self.factor = torch.linalg.cholesky(hessian)

    def __call__(self, variables: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solution = self.solution(variables)
        loss, gradient = self._cross_entropy(solution)
        loss += self.penalty / 2 * float(solution[:-1].square().sum())
        gradient[:-1] += self.penalty * solution[:-1]
        self.steepest, self.loss = float(gradient.abs().max()), loss
        return loss, torch.linalg.solve_triangular(self.factor, gradient, upper=False).numpy().ravel()

    def met(self, tol: float) -> bool:
        """Return whether no entry of the last gradient is above `tol`, or 100 `tol` of a loss below 0.01.

        With separated classes the gradient becomes as small as the loss long before the best weights.
        """
        return self.steepest <= tol * min(1.0, 100 * self.loss)

    def variables(self, solution: Tensor) -> NDArray[np.float64]:
        """Return the variables of weights that have the biases as their last row (d + 1, classes)."""
        return (self.factor.T @ solution).numpy().ravel()

    def solution(self, variables: NDArray[np.float64]) -> Tensor:
        """Return the weights of variables, with the biases as their last row (d + 1, classes)."""
        return torch.linalg.solve_triangular(self.factor.T, torch.from_numpy(variables.reshape(self.shape)), upper=True)

    def _cross_entropy(self, solution: Tensor) -> tuple[float, Tensor]:
        """Return the mean cross-entropy over images and its gradient (d + 1, classes)."""
        solution = solution.to(self.dtype).to(self.x.device)
        weight, bias = solution[:-1].T.contiguous(), solution[-1]
        loss, gradient = 0.0, torch.zeros(self.shape, dtype=torch.float64)
        rows = max(1, (_BLOCK if self.x.device.type == "cpu" else 256 * _BLOCK) // self.shape[1])
        for x, codes in zip(self.x.split(rows), self.codes.split(rows), strict=True):
            x = x.to(self.dtype)
            logs = linear(x, weight, bias).log_softmax(1)
            loss -= float(logs.gather(1, codes).cpu().double().sum())
            errors = logs.exp_().scatter_add_(1, codes, torch.full_like(logs[:, :1], -1).expand_as(codes))
            gradient[:-1] += linear(errors.T, x.T).T.cpu()
            gradient[-1] += errors.sum(0).cpu()
        return loss / len(self.x), gradient.div_(len(self.x))


def _second_moment(x: Tensor) -> Tensor:
    """Return x'x / n (d, d) in float64, from a sample of the rows if there are many."""
    sample = x[:: max(1, len(x) // (_ROWS_PER_DIMENSION * x.shape[1]))]
    return sum((part.T @ part).cpu().double() for part in sample.split(4096)) / len(sample)
