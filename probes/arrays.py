"""What every probe asks of its arrays, in one place."""

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

_BLOCK = 1 << 24  # numbers looked at together

# float32 and float64 are kept, everything else (half precision, uint8 pixels) becomes float32.
_FORM: dict[str, Any] = {"dtype": (np.float32, np.float64), "ensure_all_finite": False}


def check_finite(x: NDArray[Any], name: str = "features") -> None:
    """Raise a ValueError that names the first rows of `x` (n, ...) holding NaN or infinity; reads it block by block."""
    rows = max(1, _BLOCK // max(1, x[:1].size))
    blocks = ((start, x[start : start + rows]) for start in range(0, len(x), rows))
    bad = [start + i for start, block in blocks for i in np.flatnonzero(~_finite_rows(block))]
    if bad:
        first = ", ".join(map(str, bad[:5]))
        raise ValueError(
            f"{name} hold NaN or infinity in {len(bad)} of {len(x)} rows (first: {first}); "
            "expected finite numbers, read these images again or leave them out."
        )


def _finite_rows(x: NDArray[Any]) -> NDArray[np.bool_]:
    return np.isfinite(x).reshape(len(x), -1).all(axis=1)


def as_matrix(x: ArrayLike, name: str = "features") -> NDArray[np.floating]:
    """`x` as a finite float32 or float64 array (n, d)."""
    matrix = check_array(x, input_name=name, **_FORM)
    check_finite(matrix, name)
    return matrix


def as_labels(y: ArrayLike, rows: int, name: str = "labels") -> NDArray[Any]:
    """`y` as an array (rows,) of whatever labels it holds: integers, strings."""
    labels = np.asarray(y)
    if labels.shape != (rows,):
        raise ValueError(f"{name} have shape {labels.shape}, expected ({rows},); give one label per image.")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{name} hold NaN, expected a class for every image; leave unlabelled images out.")
    return labels


@contextmanager
def one_image_per_class_is_fine() -> Iterator[None]:
    """Silence scikit-learn's guess that many classes of few images must be a regression: it is few-shot."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def fit_arrays(
    estimator: BaseEstimator, x: ArrayLike, y: ArrayLike, half: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Checked features (n, d) and labels (n,); leaves `n_features_in_` on the estimator.

    half: float16 features are kept as well, for an estimator that reads them piece by piece.
    """
    kept = (*_FORM["dtype"], np.float16) if half else _FORM["dtype"]
    features, labels = validate_data(estimator, x, y, **(_FORM | {"dtype": kept}))
    check_finite(features)
    with one_image_per_class_is_fine():
        check_classification_targets(labels)
    return features, labels


def two_or_more_classes(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the classes of `labels` in sorted order, for a classifier that must separate some."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"labels hold one class ({classes[0]}), expected two or more; add images of another.")
    return classes


def predict_array(estimator: BaseEstimator, x: ArrayLike) -> NDArray[Any]:
    """Checked features (n, d) for a fitted estimator."""
    check_is_fitted(estimator)
    features = validate_data(estimator, x, reset=False, **_FORM)
    check_finite(features)
    return features
