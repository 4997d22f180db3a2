"""From rows of numbers to segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ..utils import progress
from ..utils.faiss import faiss
from . import faiss_index
from .faiss_index import Choice
from .rows import Rows
from .segment import Segment
from .whitening import Whitening

LEAST = 1 << 14  # rows of a segment, however little memory there is


class Part(Protocol):
    """Rows of numbers, (n, F), such as an array; they need not be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray: ...


class Vectors:
    """Rows (n, dim) in several parts, one after the other. They come out as they are indexed: float32, finite, whitened
    if there is a whitening, of length 1 where the metric is cosine.
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
        """So many rows, always the same; all if there are no more."""
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
        """Some rows of a part into others, which are the rows from `number` on."""
        if isinstance(part, LiveRows):  # those come out as they went in, bit for bit
            rows[:] = part[which]
            return
        with np.errstate(over="ignore"):  # what is too large for float32 is said to be not finite
            if self.whitening is None:
                rows[:] = part[which]
                refuse_infinite(rows, number)
            else:
                raw = np.asarray(part[which], np.float32)
                refuse_infinite(raw, number)
                rows[:] = self.whitening(raw)
        if self.metric == "cosine":
            faiss.normalize_L2(rows)


def refuse_infinite(rows: np.ndarray, number: int = 0) -> None:
    """A ValueError names the first row with a value that is not finite. number: of the first of these rows."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(rows.sum(1, dtype=np.float64))  # quicker than to look at each, and in no room
    if not finite.all():
        raise ValueError(f"row {number + int(finite.argmin())} has a value that is not finite")


class LiveRows:
    """Rows of a segment as a part: those that are not crossed out, or these."""

    def __init__(self, segment: Segment, rows: np.ndarray | None = None) -> None:
        self.segment, self.rows = segment, segment.left() if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.segment.vectors(self.rows[rows])

    def table(self) -> pa.Table:
        return self.segment.rows.table(self.rows)


def segments(
    vectors: Vectors, table: pa.Table, choice: Choice, memory: int | None = None, shown: bool = False
) -> Iterator[Segment]:
    """Make segments of rows, one at a time: several where they are too large for the memory together. What is learned
    is learned once, from a sample of all.

    table: the rows beside the vectors. memory: bytes, see `kinds.choose`. shown: whether with a progress bar.
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
            index.add(rows)  # at once: a graph begins with its long links, and so finds more
            bar.update(len(rows))
            faiss_index.tune(index, rows, vectors.metric)
            yield Segment(index, Rows(table.slice(start, len(rows))))
