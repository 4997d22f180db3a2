"""A part of an index: vectors in faiss and the rows that they belong to. It never changes; a row that is removed is
crossed out in a list beside it.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.faiss import faiss
from . import faiss_index
from .query import Filter
from .rows import Rows

if TYPE_CHECKING:
    from ..utils.faiss import FaissIndex

FEW = 1024  # crossed-out rows that a search rather asks for, and drops, than looks for the others one by one
SPARSE = 0.05  # a share of the rows below which they are looked at one by one


class Segment:
    """index: of faiss; its numbers are row numbers. removed: row numbers, sorted. entry: what the manifest says of the
    files, None while there are none; see `directory`.
    """

    def __init__(
        self, index: FaissIndex, rows: Rows, removed: np.ndarray | None = None, entry: dict[str, Any] | None = None
    ) -> None:
        self.index, self.rows, self.entry = index, rows, entry
        self.removed = np.empty(0, np.int64) if removed is None else removed
        self._asked: tuple[Filter | None, np.ndarray] | None = None

    def __len__(self) -> int:
        """Rows that are not crossed out."""
        return len(self.rows) - len(self.removed)

    def without(self, rows: np.ndarray) -> Segment:
        """Return the same with these rows crossed out, too."""
        if not len(rows):
            return self
        left = copy(self)
        left.removed, left._asked = np.union1d(self.removed, rows), None
        left.entry = None if self.entry is None else self.entry | {"removed": None}
        return left

    def left(self) -> np.ndarray:
        """Return the numbers of the rows that are not crossed out."""
        return np.delete(np.arange(len(self.rows)), self.removed)

    def asked(self, where: Filter | None) -> np.ndarray | None:
        """For each row whether it is there and asked for; None if all are."""
        if not where and not len(self.removed):
            return None
        last = self._asked
        if last is None or last[0] != where:  # the next search often asks for the same
            mask = np.ones(len(self.rows), bool)
            if where:
                mask = where.mask(self.rows.column("label"), self.rows.column("path")).to_numpy().copy()
            mask[self.removed] = False
            self._asked = last = where, mask
        return last[1]

    def search(
        self, queries: np.ndarray, k: int, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and row numbers (m, up to k) of the nearest rows, best first: as many as there are, or k."""
        if not where and len(self.removed) <= FEW and faiss_index.is_exact(self.index):
            return self._search_and_drop(queries, k)
        mask = self.asked(where)
        there = len(self.rows) if mask is None else int(mask.sum())
        k = min(k, there)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if there < SPARSE * len(self.rows):
            return faiss_index.search_all(self.index, queries, k, selector)
        scores, rows = faiss_index.search(self.index, queries, k, selector, effort)
        short = np.flatnonzero((rows < 0).any(1))  # looked in places where there are fewer
        if len(short):
            scores[short], rows[short] = faiss_index.search_all(self.index, queries[short], k, selector)
        return scores, rows

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, d) as they were indexed: of length 1, where the metric is cosine."""
        return faiss_index.reconstruct(self.index, np.ascontiguousarray(rows, np.int64))

    def _search_and_drop(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an exact search that asks for as many more as are crossed out."""
        k = min(k, len(self))
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        scores, rows = self.index.search(queries, k + len(self.removed))
        if not len(self.removed):
            return scores, rows
        kept = ~np.isin(rows, self.removed)
        first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, first, 1), np.take_along_axis(rows, first, 1)
