"""Multinomial logistic regression on all images at once: L-BFGS in coordinates that suit it, products by torch."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from randfeat.utils.onednn import linear

_BLOCK = 1 << 18  # logits at once: 1 MB, which stays in a processor's cache
_ROWS_PER_DIMENSION = 16  # so many images show the covariance of features well enough to precondition with

Start = tuple[NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class Logistic:
    """Logits are `x @ weight + bias`: weight (d, classes), bias (classes,), both float64.

    loss: the value of what was minimised. converged: whether its gradient met `tol`, after `n_iter` iterations.
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

    x: features (n, d), centred, since products are in float32 as far as that leads; weights and sums are in float64.
    codes: classes (n,) as numbers from 0. Of two classes scikit-learn penalises the one difference of weights, so
    this does. tol: the largest entry of the gradient at which to stop. start: (weight, bias) of an earlier fit.
    Where d > n the gradient is that of the weights of n orthogonal combinations of dimensions.
    """
    if not 0 < C < np.inf:
        raise ValueError(f"C={C}: expected a finite number above 0.")
    n, d = x.shape
    weight, bias = start or (np.zeros((d, classes)), np.zeros(classes))
    if d > n:  # the best weights are combinations of the images: look for them among those
        basis, mixture = np.linalg.qr(x.T)
        inside = np.ascontiguousarray(mixture.T)
        narrow = fit_logistic(inside, codes, classes, C, tol, max_iter, (basis.T @ weight, bias), device)
        return replace(narrow, weight=basis @ narrow.weight)
    objective = _Objective(x, codes, classes, C, device)
    variables = objective.variables(torch.from_numpy(np.vstack([weight, bias])).double())

    def stop_at_tol(intermediate_result: OptimizeResult) -> None:
        if objective.steepest <= tol:
            raise StopIteration

    loss, iterations = objective(variables)[0] if start else np.inf, 0
    for dtype in objective.dtypes:
        if objective.steepest <= tol or iterations >= max_iter:
            break
        objective.dtype = dtype
        options = {"maxiter": max_iter - iterations, "maxfun": np.inf, "maxls": 10, "gtol": 0, "ftol": 0}
        found = minimize(objective, variables, method="L-BFGS-B", jac=True, callback=stop_at_tol, options=options)
        variables, loss, iterations = found.x, float(found.fun), iterations + int(found.nit)
    solution = objective.solution(variables).numpy()
    return Logistic(solution[:-1], solution[-1], loss, objective.steepest <= tol, iterations)


class _Objective:
    """The loss and its gradient as functions of variables in which all directions are about equally curved.

    The Hessian is near (1/K)(1 - 1/K) X'X/n + penalty for each of K classes, so with its Cholesky factor L,
    weight = L^-T variables. This does not move the optimum, and saves L-BFGS most of its iterations where some
    directions of the features vary much more than others, as they do in features of networks.
    `steepest` is the largest entry of the last gradient, in weights and biases.
    """

    def __init__(self, x: NDArray[np.float32], codes: NDArray[np.integer], classes: int, C: float, device: str) -> None:
        n, d = x.shape
        self.x = torch.from_numpy(x).to(device)
        self.codes = torch.from_numpy(codes.astype(np.int64))[:, None].to(device)
        self.shape = (d + 1, classes)
        self.penalty = (2 if classes == 2 else 1) / (C * n)
        # Of few images float32 may not tell a better loss from a worse one before `tol` is met.
        self.dtypes = [torch.float32] if self.x.device.type == "mps" else [torch.float32, torch.float64]
        self.dtype = torch.float32
        self.steepest = np.inf
        curvature = (1 - 1 / classes) / classes
        hessian = torch.eye(d + 1, dtype=torch.float64) * curvature
        hessian[:d, :d] = curvature * _second_moment(self.x)
        # directions of little variance are not trusted: few images decide there once the rest are told apart
        hessian[:d, :d].diagonal().add_(self.penalty + 1e-3 * hessian[:d, :d].trace() / d)
        self.factor = torch.linalg.cholesky(hessian)

    def __call__(self, variables: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solution = self.solution(variables)
        loss, gradient = self._cross_entropy(solution)
        loss += self.penalty / 2 * float(solution[:-1].square().sum())
        gradient[:-1] += self.penalty * solution[:-1]
        self.steepest = float(gradient.abs().max())
        return loss, torch.linalg.solve_triangular(self.factor, gradient, upper=False).numpy().ravel()

    def variables(self, solution: Tensor) -> NDArray[np.float64]:
        """Of weights with the biases as their last row (d + 1, classes)."""
        return (self.factor.T @ solution).numpy().ravel()

    def solution(self, variables: NDArray[np.float64]) -> Tensor:
        """Return the weights, with the biases as their last row."""
        return torch.linalg.solve_triangular(self.factor.T, torch.from_numpy(variables.reshape(self.shape)), upper=True)

    def _cross_entropy(self, solution: Tensor) -> tuple[float, Tensor]:
        """Return the mean over images, and its gradient (d + 1, classes)."""
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
    """x'x / n (d, d) in float64, from a sample of the rows where there are many."""
    sample = x[:: max(1, len(x) // (_ROWS_PER_DIMENSION * x.shape[1]))]
    return sum((part.T @ part).cpu().double() for part in sample.split(4096)) / len(sample)
