"""Segments of an index: vectors in faiss and the rows that they belong to.

A segment never changes; rows that are removed are listed beside it.
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

FEW = 1024  # removed rows that a search asks for in addition and drops, which is faster than a mask
SPARSE = 0.05  # share of the rows below which those asked for are all compared


class Segment:
    """Vectors and rows that are searched together.

    index: of faiss; its numbers are row numbers. removed: row numbers, sorted. entry: of the files in the manifest,
    None while there are none; see `directory`.
    """

    def __init__(
        self, index: FaissIndex, rows: Rows, removed: np.ndarray | None = None, entry: dict[str, Any] | None = None
    ) -> None:
        self.index, self.rows, self.entry = index, rows, entry
        self.removed = np.empty(0, np.int64) if removed is None else removed
        self._last_mask: tuple[Filter | None, np.ndarray] | None = None

    def __len__(self) -> int:
        """Return the number of rows that were not removed."""
        return len(self.rows) - len(self.removed)

    def without(self, rows: np.ndarray) -> Segment:
        """Return the segment with these rows removed, too."""
        if not len(rows):
            return self
        smaller = copy(self)
        smaller.removed, smaller._last_mask = np.union1d(self.removed, rows), None
        smaller.entry = None if self.entry is None else self.entry | {"removed": None}
        return smaller

    def live_rows(self) -> np.ndarray:
        """Return the numbers of the rows that were not removed."""
        return np.delete(np.arange(len(self.rows)), self.removed)

    def matching(self, where: Filter | None) -> np.ndarray | None:
        """Return for each row whether it matches the filter and was not removed; None if all do."""
        if not where and not len(self.removed):
            return None
        last = self._last_mask
        if last is None or last[0] != where:  # the next search often has the same filter
            mask = np.ones(len(self.rows), bool)
            if where:
                mask = where.mask(self.rows.column("label"), self.rows.column("path")).to_numpy().copy()
            mask[self.removed] = False
            self._last_mask = last = where, mask
        return last[1]

    def search(
        self,
        queries: np.ndarray,
        k: int,
        where: Filter | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and row numbers (m, up to k) of the nearest rows, best first: as many as there are, or k."""
        if not where and len(self.removed) <= FEW and faiss_index.is_exact(self.index):
            return self._search_and_drop(queries, k)
        mask = self.matching(where)
        there = len(self.rows) if mask is None else int(mask.sum())
        k = min(k, there)
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        selector = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if there < SPARSE * len(self.rows):
            return faiss_index.search_all(self.index, queries, k, selector)
        value = ef_search if faiss_index.type_of(self.index) == "hnsw" else nprobe
        scores, rows = faiss_index.search(self.index, queries, k, selector, value)
        short = np.flatnonzero((rows < 0).any(1))  # fewer than k rows lay where these queries looked
        if len(short):
            scores[short], rows[short] = faiss_index.search_all(self.index, queries[short], k, selector)
        return scores, rows

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors as they were indexed, float32 (n, d): of length 1 where the metric is cosine."""
        return faiss_index.reconstruct(self.index, np.ascontiguousarray(rows, np.int64))

    def _search_and_drop(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search exactly for as many more as were removed, and drop those."""
        k = min(k, len(self))
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        scores, rows = self.index.search(queries, k + len(self.removed))
        if not len(self.removed):
            return scores, rows
        kept = ~np.isin(rows, self.removed)
        first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, first, 1), np.take_along_axis(rows, first, 1)
