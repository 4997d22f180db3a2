"""Folds and held-out parts of train, stratified by class and grouped; and copies of images across splits."""

import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from .arrays import as_labels


def folds(labels: ArrayLike, groups: ArrayLike | None = None, count: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Return the fold (n,) of each train image, 0..count-1, with the classes spread as evenly as possible.

    groups: (n,), such as the writer or the patient of an image; no group is split. With fewer groups, or fewer images
    of the largest class, than `count`, there are only as many folds.
    """
    y = np.asarray(labels)
    y = as_labels(y, len(y) if y.ndim else 0)
    if count < 2:
        raise ValueError(f"count={count}: expected two folds or more.")
    _, classes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    if (most := int(sizes.max(initial=0))) < 2:
        raise ValueError("no class has two images, one to fit and one to hold out; add images or name a split.")
    whose = None
    if groups is not None:
        names, whose = np.unique(as_labels(groups, len(y), "groups"), return_inverse=True)
        if len(names) < 2:
            raise ValueError("groups are all the same, expected two or more to hold one out; leave groups out.")
        most = min(most, len(names))
    split: StratifiedKFold | StratifiedGroupKFold
    if whose is None:
        split = StratifiedKFold(min(count, most), shuffle=True, random_state=seed)
    else:
        # equal groups are ordered by number; its own shuffle would undo the stratification (scikit-learn issue 32478)
        whose = np.random.default_rng(seed).permutation(len(names))[whose]
        split = StratifiedGroupKFold(min(count, most))
    fold = np.empty(len(y), dtype=np.intp)
    with warnings.catch_warnings():  # rare classes may be missing from some folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for i, (_, held_out) in enumerate(split.split(classes, classes, whose)):
            fold[held_out] = i
    return np.unique(fold, return_inverse=True)[1]  # numbers without the folds that got no group


def hold_out(
    labels: ArrayLike, groups: ArrayLike | None = None, share: float = 0.2, seed: int = 0
) -> NDArray[np.bool_]:
    """Return a mask (n,) of about `share` of train to choose on: the one of 1 / share `folds` whose classes are most
    like those of train."""
    if not 0 < share <= 0.5:
        raise ValueError(f"share={share}: expected more than 0 and at most 0.5 of train.")
    fold = folds(labels, groups, round(1 / share), seed)
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((fold.max() + 1, classes.max() + 1))
    np.add.at(counts, (fold, classes), 1)
    unlike = np.abs(counts - counts.mean(axis=0)).sum(axis=1)
    return fold == unlike.argmin()


def copies(train: ArrayLike, test: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each test image occurs in train bit for bit (n_test,), with a warning that says how many do.

    train, test: pixels or features (n, ...) of one shape and dtype.
    """
    a, b = np.asarray(train), np.asarray(test)
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        raise ValueError(f"train is {a.dtype} {a.shape}, test {b.dtype} {b.shape}; give arrays of one shape and dtype.")
    seen = {_digest(row) for row in a}
    found = np.array([_digest(row) in seen for row in b], dtype=bool)
    if found.any():
        warnings.warn(
            f"{found.sum()} of {len(b)} test images are exact copies of train images (first: {found.argmax()}); "
            "leave them out of one of the two.",
            stacklevel=2,
        )
    return found


def _digest(row: NDArray[Any]) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()
