"""Checks of the arrays that probes take."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from randfeat.utils.checks import finite_rows

_BLOCK = 1 << 24  # numbers checked together

# other types (half precision, uint8 pixels) become float32
_FORM: dict[str, Any] = {"dtype": (np.float32, np.float64), "ensure_all_finite": False}


def check_finite(x: NDArray[Any], name: str = "features") -> None:
    """Raise a ValueError that names the first rows of `x` (n, ...) holding NaN or infinity; reads it block by block."""
    rows = max(1, _BLOCK // max(1, x[:1].size))
    blocks = ((start, x[start : start + rows]) for start in range(0, len(x), rows))
    bad = [start + i for start, block in blocks for i in np.flatnonzero(~finite_rows(block))]
    if bad:
        first = ", ".join(map(str, bad[:5]))
        raise ValueError(
            f"{name} hold NaN or infinity in {len(bad)} of {len(x)} rows (first: {first}); "
            "expected finite numbers, read these images again or leave them out."
        )


def as_matrix(x: ArrayLike, name: str = "features") -> NDArray[np.floating]:
    """Return `x` as a finite float32 or float64 array (n, d)."""
    matrix = check_array(x, input_name=name, **_FORM)
    check_finite(matrix, name)
    return matrix


def as_labels(y: ArrayLike, rows: int, name: str = "labels") -> NDArray[Any]:
    """Return `y` as an array (rows,) of labels of any type: integers, strings."""
    labels = np.asarray(y)
    if labels.shape != (rows,):
        raise ValueError(f"{name} have shape {labels.shape}, expected ({rows},); give one label per image.")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{name} hold NaN, expected a class for every image; leave unlabelled images out.")
    return labels


def odd_size(x: NDArray[np.floating]) -> np.float32:
    """Return the power of two nearest to the root mean square of features (n, d); 1 where that is 0, or 0.001 to 1,000.

    Products of features of another size overflow or vanish in float32, so they are divided by it first.
    """
    mean = float(np.sqrt(np.einsum("nd,nd->", x, x, dtype=np.float64) / x.size))
    return np.float32(1 if mean == 0 or 1e-3 <= mean <= 1e3 else 2.0 ** round(np.log2(mean)))


@contextmanager
def one_image_per_class_is_fine() -> Iterator[None]:
    """Silence scikit-learn's warning that many classes of few images look like a regression: few-shot data do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def fit_arrays(
    estimator: BaseEstimator, x: ArrayLike, y: ArrayLike, half: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return checked features (n, d) and labels (n,), and set `n_features_in_` of the estimator.

    half: keep float16 features, for an estimator that reads them piece by piece.
    """
    kept = (*_FORM["dtype"], np.float16) if half else _FORM["dtype"]
    features, labels = validate_data(estimator, x, y, **(_FORM | {"dtype": kept}))
    check_finite(features)
    with one_image_per_class_is_fine():
        check_classification_targets(labels)
    return features, labels


def two_or_more_classes(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the sorted classes of `labels`. Raises a ValueError for fewer than two."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"labels hold one class ({classes[0]}), expected two or more; add images of another.")
    return classes


def predict_array(estimator: BaseEstimator, x: ArrayLike) -> NDArray[Any]:
    """Return checked features (n, d) for a fitted estimator."""
    check_is_fitted(estimator)
    features = validate_data(estimator, x, reset=False, **_FORM)
    check_finite(features)
    return features
