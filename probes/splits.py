"""Parts of train to choose on: every class in each where possible, no group in two; and copies across splits."""

import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from .arrays import as_labels


def folds(labels: ArrayLike, groups: ArrayLike | None = None, count: int = 5, seed: int = 0) -> NDArray[np.intp]:
    """Of each train image the fold (n,) it belongs to, 0..count-1, the classes spread as evenly as they can be.

    groups: (n,), such as the writer or the patient of an image; a group lies in one fold whole. With fewer groups, or
    fewer images of the largest class, than `count`, there are as many folds as these.
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
        # equal groups go by their number; its own shuffle undid the stratification (scikit-learn issue 32478)
        whose = np.random.default_rng(seed).permutation(len(names))[whose]
        split = StratifiedGroupKFold(min(count, most))
    fold = np.empty(len(y), dtype=np.intp)
    with warnings.catch_warnings():  # classes with fewer images than folds are missing from some: that is all right
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for i, (_, held_out) in enumerate(split.split(classes, classes, whose)):
            fold[held_out] = i
    return np.unique(fold, return_inverse=True)[1]  # a fold that no group went to is none


def hold_out(
    labels: ArrayLike, groups: ArrayLike | None = None, share: float = 0.2, seed: int = 0
) -> NDArray[np.bool_]:
    """Marks about `share` of train, bool (n,), to choose on: that of the 1 / share `folds` whose classes are most like
    those of train."""
    if not 0 < share <= 0.5:
        raise ValueError(f"share={share}: expected more than 0 and at most 0.5 of train.")
    fold = folds(labels, groups, round(1 / share), seed)
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((fold.max() + 1, classes.max() + 1))
    np.add.at(counts, (fold, classes), 1)
    unlike = np.abs(counts - counts.mean(axis=0)).sum(axis=1)
    return fold == unlike.argmin()


def copies(train: ArrayLike, test: ArrayLike) -> NDArray[np.bool_]:
    """Which test images (n_test,) occur in train bit for bit, with a warning that says how many.

    train, test: pixels or features of one shape and dtype, the first axis counting images.
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
