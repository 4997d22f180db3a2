"""Groups of rows that are nearly the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..utils import progress
from .query import Filter, Match

if TYPE_CHECKING:
    from .snapshot import Snapshot

BLOCK = 1024  # rows that are searched for together


def groups(content: Snapshot, threshold: float, where: Filter | None, shown: bool) -> list[list[Match]]:
    """See `Snapshot.near_duplicates`."""
    starts = np.cumsum([0, *(len(segment.rows) for segment in content.segments)])
    worst = np.inf if content.metric == "l2" else -np.inf
    nearest, ends = np.full(starts[-1], worst, np.float32), []
    better = np.minimum if content.metric == "l2" else np.maximum
    with progress.bar(len(content), "comparing", "row", shown=shown) as bar:
        for start, segment in zip(starts, content.segments, strict=False):
            mask = segment.asked(where)
            rows = np.arange(len(segment.rows)) if mask is None else np.flatnonzero(mask)
            for some in np.array_split(rows, -(-len(rows) // BLOCK)) if len(rows) else ():
                of, _, segments, found, scores = content.near(segment.vectors(some), threshold, where)
                one, other = start + some[of], starts[segments] + found
                differ = one != other
                better.at(nearest, one[differ], scores[differ])
                ends.append(np.stack((one[differ], other[differ])))
                bar.update(len(some))
    return _components(content, np.concatenate([np.empty((2, 0), np.int64), *ends], 1), nearest, starts)


def _components(content: Snapshot, ends: np.ndarray, nearest: np.ndarray, starts: np.ndarray) -> list[list[Match]]:
    """Return the connected components of pairs of rows (2, n), which are counted through all segments."""
    edges = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(len(nearest), len(nearest)))
    _, component = connected_components(edges, directed=False)
    members = np.unique(ends)
    members = members[np.argsort(component[members], kind="stable")]
    segments = np.searchsorted(starts, members, side="right") - 1
    rows = members - starts[segments]
    ids = np.empty(len(rows), np.int64)
    for number, segment in enumerate(content.segments):
        ids[segments == number] = segment.rows.ids[rows[segments == number]]
    matches = content.matches(ids, segments, rows, nearest[members])
    cuts = np.flatnonzero(np.diff(component[members])) + 1
    found = [matches[a:b] for a, b in zip([0, *cuts], [*cuts, len(matches)], strict=True) if a < b]
    return sorted(found, key=lambda group: (-len(group), group[0].id))
