"""Near-duplicates in an index: a threshold from the scores themselves, and copies by the bytes of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..utils import progress
from .query import Match
from .rows import DIGEST

if TYPE_CHECKING:
    from .index import Index

BLOCK = 1024  # rows that are searched for together
ROUNDING = 1e-6  # distance that rounding alone can produce, also of the median distance where the metric is l2
FACTOR = 4.0  # between two distances, for the gap between them to tell copies from images that are merely alike


@dataclass(frozen=True, eq=False)
class Threshold:
    """Threshold of near-duplicates, and the scores that it was found by.

    value: of the score. distances: of each row to the nearest other one (n,), sorted: 1 - cosine, or of the metric l2.
    copies: number of these within the threshold. clear: whether there is a gap at it; without one, `value` keeps the
    same features alone.
    """

    value: float
    distances: np.ndarray
    copies: int
    clear: bool
    metric: str

    def score(self, distance: float) -> float:
        """Return the score of a distance."""
        return distance if self.metric == "l2" else 1 - distance

    def __str__(self) -> str:
        near, far = self.distances[: self.copies], self.distances[self.copies :]
        nearest = f"the nearest pair has {self.score(float(self.distances[0])):.6g}"
        if not self.copies:
            return f"no two rows are copies of each other ({nearest})"
        there = f"{self.copies:,} rows have another one at {self.score(float(near[-1])):.7g} or nearer"
        if not self.clear:
            return f"{there}, which are the same features; behind them there is no clear gap"
        return f"{there}; the nearest of the others are at {self.score(float(far[0])):.7g}"


@dataclass(frozen=True, eq=False)
class Group:
    """Near-duplicates, the one to keep first. same: whether each has the bytes of that one."""

    matches: list[Match]
    same: list[bool]


def group_of(index: Index, matches: Sequence[Match]) -> Group:
    """Return near-duplicates with the largest file first, which is the one to keep."""

    def size(match: Match) -> int:
        try:
            return Path(match.path).stat().st_size
        except OSError:
            return -1

    ordered = sorted(matches, key=lambda match: (-size(match), match.path))
    bytes_of = digests(index, [match.id for match in ordered])
    return Group(ordered, [digest is not None and digest == bytes_of[0] for digest in bytes_of])


def suggest_threshold(index: Index, shown: bool = False) -> Threshold:
    """Return a threshold between copies and images that are merely alike.

    Each row's distance to its nearest other row is taken. Copies lie nearer than the rest, so the threshold lies in the
    last gap below the median in which the distance grows by a factor of four or more, at its geometric middle. It is
    cautious: copies that were compressed again or scaled, and lie where other images lie too, are left out. shown: with
    a progress bar. Raises a ValueError for the metric `dot`, whose scores have no scale, and for an index of fewer than
    two rows.
    """
    if index.metric == "dot":
        raise ValueError("scores of the metric dot have no scale that a threshold could be found on: give a number")
    if len(index) < 2:
        raise ValueError(f"{index!r} has no two rows to compare: add images to it")
    scores = nearest_scores(index, shown)
    distances = np.sort(np.maximum(scores if index.metric == "l2" else 1 - scores, 0).astype(np.float64))
    least = ROUNDING * (float(np.median(distances)) if index.metric == "l2" else 1.0)
    logs = np.log(np.maximum(distances, max(least, 1e-30)))
    gaps = np.diff(logs)[: len(logs) // 2]
    gaps[:1] = 0  # a copy is one of another row, so that there are two at least
    wide = np.flatnonzero(gaps >= np.log(FACTOR))
    cut = float(np.exp(logs[wide[-1] : wide[-1] + 2].mean())) if len(wide) else 2 * least
    copies = int((distances <= cut).sum())
    return Threshold(cut if index.metric == "l2" else 1 - cut, distances, copies, bool(len(wide)), index.metric)


def nearest_scores(index: Index, shown: bool = False) -> np.ndarray:
    """Return the score of each row's nearest other row, float32 (n,), in the order of `Index.ids`."""
    ids, found = np.array(index.ids(), np.int64), []
    with progress.bar(len(ids), "nearest", "row", shown=shown) as bar:
        for start in range(0, len(ids), BLOCK):
            some = ids[start : start + BLOCK]
            near, scores, *_ = index._nearest(index.vectors(some.tolist()), 2)
            own = near == some[:, None]
            found.append(np.where(own[:, 0], scores[:, 1], scores[:, 0]))
            bar.update(len(some))
    return np.concatenate(found)


def digests(index: Index, ids: Sequence[int]) -> list[str | None]:
    """Return the SHA-256 of the files of rows, as they were when they were read; None where it is not known."""
    segments, rows = index.places(ids)
    found: list[str | None] = [None] * len(rows)
    for number, segment in enumerate(index.segments):
        here = np.flatnonzero(segments == number)
        for place, digest in zip(here.tolist(), segment.rows.take(DIGEST, rows[here]), strict=True):
            found[place] = digest
    return found
