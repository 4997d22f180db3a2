"""Vectors of an index: rows of features as they are indexed, whitened and normalised, and the segments made of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..utils import progress
from ..utils.arrays import write_npz
from ..utils.faiss import faiss
from . import faiss_index
from .faiss_index import Choice
from .rows import Rows
from .segment import Segment

LEAST = 1 << 14  # rows of a segment, however little memory there is
PER_NUMBER, LEAST_SAMPLE = 16, 1 << 14  # rows that a whitening is learned from: so many for each column, or at least
SHORT = 1e-15  # values whose squares may vanish in float32
NOISE = 1e-6  # variance, relative to that of the first component, that rounding alone can produce


class Part(Protocol):
    """Rows of features (n, F), such as an array; they need not be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Whitening:
    """Projection on principal components, each scaled to variance 1, so that all count alike in a distance.

    It is learned once, from the first rows of an index, and applied to all rows and queries (docs/index.md). mean:
    float32 (F,). directions: float32 (F, K), each divided by the standard deviation along it.
    """

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def fit(cls, sample: np.ndarray, count: int) -> Whitening:
        """Learn from rows (n, F): `count` components, or as many as vary."""
        from sklearn.decomposition import PCA

        with np.errstate(invalid="ignore"):  # shares of the variance are 0 / 0 for constant features
            pca = PCA(min(count, *sample.shape), whiten=True, random_state=0).fit(sample)
        kept = max(1, int((pca.explained_variance_ > NOISE * pca.explained_variance_[0]).sum()))
        stds = np.sqrt(pca.explained_variance_[:kept, None])
        directions = pca.components_[:kept] / np.maximum(stds, np.finfo(np.float32).tiny)
        return cls(pca.mean_.astype(np.float32), np.ascontiguousarray(directions.T, np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return whitened rows: float32 (n, F) -> (n, K)."""
        return (rows - self.mean) @ self.directions

    def save(self, path: Path) -> None:
        write_npz(path, {"mean": self.mean, "directions": self.directions}, compressed=False)

    @classmethod
    def open(cls, path: Path) -> Whitening:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["mean"], arrays["directions"])


def whitening_sample_size(dim: int) -> int:
    """Return the number of rows that a whitening of `dim` columns is learned from."""
    return max(LEAST_SAMPLE, PER_NUMBER * dim)


class Vectors:
    """Rows (n, dim) of several parts, one after the other, as they are indexed: float32, finite, whitened if there is a
    whitening, and of length 1 where the metric is cosine.
    """

    def __init__(self, parts: Sequence[Part], dim: int, metric: str, whitening: Whitening | None = None) -> None:
        self.parts, self.dim, self.metric, self.whitening = parts, dim, metric, whitening
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, start: int, stop: int) -> np.ndarray:
        """Return the rows from start to stop."""
        rows = np.empty((stop - start, self.dim), np.float32)
        for part, at in zip(self.parts, self._starts, strict=False):
            first, last = max(start, at), min(stop, at + len(part))
            if first < last:
                self._copy(part, slice(first - at, last - at), rows[first - start : last - start], first)
        return rows

    def sample(self, count: int) -> np.ndarray:
        """Return `count` rows, always the same; all if there are no more."""
        if count >= len(self):
            return self.take(0, len(self))
        numbers = np.sort(np.random.default_rng(0).choice(len(self), count, replace=False))
        cuts = np.searchsorted(numbers, self._starts)
        rows = np.empty((count, self.dim), np.float32)
        for part, at, first, last in zip(self.parts, self._starts, cuts, cuts[1:], strict=False):
            if first < last:
                self._copy(part, numbers[first:last] - at, rows[first:last], 0)
        return rows

    def _copy(self, part: Part, which: Any, rows: np.ndarray, number: int) -> None:
        """Copy rows of a part into `rows`, which are those from `number` on."""
        if isinstance(part, LiveRows):  # indexed before: copied bit for bit, not normalised again
            rows[:] = part[which]
            return
        with np.errstate(over="ignore"):  # a value too large for float32 is reported as not finite
            if self.whitening is None:
                rows[:] = part[which]
                refuse_infinite(rows, number)
            else:
                raw = np.asarray(part[which], np.float32)
                refuse_infinite(raw, number)
                rows[:] = self.whitening(raw)
        if self.metric == "cosine":
            normalize(rows)


def normalize(rows: np.ndarray) -> None:
    """Give float32 rows (n, F) length 1, in place; a zero row stays zero. Rows whose squares overflow or vanish in
    float32 are divided by their largest value first."""
    if not rows.size:
        return
    largest = np.maximum(rows.max(1), -rows.min(1))
    odd = (largest > 0) & ~((largest > SHORT) & (largest < 1 / SHORT))
    if odd.any():
        rows[odd] /= largest[odd, None]
    faiss.normalize_L2(rows)


def refuse_infinite(rows: np.ndarray, number: int = 0) -> None:
    """Raise a ValueError that names the first row with a value that is not finite. number: of the first of the rows."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(rows.sum(1, dtype=np.float64))  # faster than a test of each value, and without a copy
    if not finite.all():
        raise ValueError(f"row {number + int(finite.argmin())} has a value that is not finite")


def checked(features: np.ndarray) -> np.ndarray:
    """Return features as an array (n, F). Raises a ValueError for another shape."""
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise ValueError(f"features must have two dimensions, (n, F), got shape {rows.shape}")
    return rows


class LiveRows:
    """Rows of a segment as a part: those that were not removed, or those given."""

    def __init__(self, segment: Segment, rows: np.ndarray | None = None) -> None:
        self.segment, self.rows = segment, segment.live_rows() if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.segment.vectors(self.rows[rows])

    def table(self) -> pa.Table:
        return self.segment.rows.table(self.rows)


def make_segments(
    vectors: Vectors, table: pa.Table, choice: Choice, memory: int | None = None, shown: bool = False
) -> Generator[Segment, None, None]:
    """Make segments of rows, one at a time: several where they are too large for the memory together. Centroids and
    codes are learned once, from a sample of all rows.

    table: the rows beside the vectors. memory: bytes, see `faiss_index.choose`. shown: with a progress bar.
    """
    if not len(vectors):
        return
    memory = faiss_index.default_memory() if memory is None else memory
    most = max(LEAST, memory // (8 * vectors.dim))  # the rows are in memory twice
    number = -(-len(vectors) // most)
    size = -(-len(vectors) // number)
    empty = faiss_index.make(
        choice.factory, vectors.dim, vectors.metric, vectors.sample(faiss_index.sample_size(choice.factory))
    )
    with progress.bar(len(vectors), f"indexing ({choice.factory})", "row", shown=shown) as bar:
        for start in range(0, len(vectors), size):
            rows = vectors.take(start, min(len(vectors), start + size))
            index = empty if number == 1 else faiss.clone_index(empty)
            index.add(rows)  # all at once: a graph is built from its long links down, and so finds more
            bar.update(len(rows))
            faiss_index.tune(index, rows, vectors.metric)
            yield Segment(index, Rows(table.slice(start, len(rows))))
