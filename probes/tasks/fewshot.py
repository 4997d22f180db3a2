"""Few-shot classification: accuracy from a few labelled images per class."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone

from ..arrays import as_labels, as_matrix
from ..classifiers.linear import LinearProbe


def few_shot(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    shots: int = 5,
    draws: int = 20,
    seed: int = 0,
    estimator: BaseEstimator | None = None,
) -> NDArray[np.bool_]:
    """Return whether each test image is classified right (n_test, draws), fitting on `shots` images per class.

    The draws depend on `train_y`, `shots` and `seed` only (see `draw_shots`), so two features get the same images:
    compare them by `paired(a.T, b.T)`, which resamples the draws too, and report `spread(a.mean(0))`.

    estimator: by default logistic regression on L2-normalised features (Tian et al. 2020, arXiv 2003.11539).
    """
    x, test = as_matrix(train_x, "train features"), as_matrix(test_x, "test features")
    y, truth = as_labels(train_y, len(x), "train labels"), as_labels(test_y, len(test), "test labels")
    if len(unknown := np.setdiff1d(truth, y)):
        raise ValueError(f"test labels hold classes that train lacks, such as {unknown[0]}; leave them out.")
    model = LinearProbe(scaling="l2") if estimator is None else estimator
    right = [clone(model).fit(x[i], y[i]).predict(test) == truth for i in draw_shots(y, shots, draws, seed)]
    return np.stack(right, axis=1)


def draw_shots(labels: ArrayLike, shots: int, draws: int, seed: int = 0) -> NDArray[np.intp]:
    """Return rows (draws, classes * shots) of `labels` (n,): `shots` different images of each class per draw.

    Draw i does not depend on the number of draws, and a draw of fewer shots is part of the same draw of more.
    """
    y = np.asarray(labels)
    if shots < 1 or draws < 1:
        raise ValueError(f"shots={shots}, draws={draws}: expected one or more of each.")
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < shots:
        few = classes[counts.argmin()]
        raise ValueError(f"class {few} has {counts.min()} images for {shots} shots; ask for fewer or add images.")
    members = [np.flatnonzero(y == c) for c in classes]
    return np.stack([_draw(members, shots, np.random.default_rng([seed, i])) for i in range(draws)])


def _draw(members: list[NDArray[Any]], shots: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.concatenate([rng.permutation(rows)[:shots] for rows in members])
