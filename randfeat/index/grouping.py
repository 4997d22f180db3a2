"""Groups of rows that are alike: the scores that a threshold may have, and the rows that pairs connect."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..utils.checks import is_finite_number


def check_threshold(threshold: Any, metric: str) -> None:
    """Raise a ValueError for a threshold that no two rows could be on either side of, by the scores of this metric."""
    kinds = {"cosine": "a cosine above -1 and up to 1", "l2": "a distance from 0", "dot": "a number"}
    allowed = {"cosine": lambda x: -1 < x <= 1, "l2": lambda x: x >= 0, "dot": lambda x: True}
    if not (is_finite_number(threshold) and allowed[metric](threshold)):
        raise ValueError(f"the threshold must be {kinds[metric]}, got {threshold}")


def connected(ends: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the groups that pairs connect, each as its rows in order.

    ends: rows (2, pairs), counted from 0 to `count`.
    """
    ends = ends.astype(np.int32)  # which is what SciPy's graphs count in; before 1.12 it does not convert them
    edges = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(count, count))
    _, component = connected_components(edges, directed=False)
    members = np.unique(ends)
    members = members[np.argsort(component[members], kind="stable")]
    cuts = np.flatnonzero(np.diff(component[members])) + 1
    return [group for group in np.split(members, cuts) if len(group)]
