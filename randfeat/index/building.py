"""From rows of numbers to segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..faiss_library import faiss
from .kinds import METRICS

if TYPE_CHECKING:
    from ..faiss_library import FaissIndex


class Vectors:
    """Rows (n, F) in several arrays, one after the other, which may be mapped. They come out as they are indexed."""

    def __init__(self, parts: Sequence[np.ndarray], metric: str) -> None:
        self.parts, self.metric, self.dim = parts, metric, parts[0].shape[1]
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, start: int, stop: int) -> np.ndarray:
        """Rows from start to stop: float32, finite, of length 1 where the metric is cosine."""
        cut = [
            part[max(0, start - at) : stop - at]
            for part, at in zip(self.parts, self._starts, strict=False)
            if at < stop
        ]
        rows = np.concatenate(
            [np.asarray(part, np.float32) for part in cut if len(part)] or [np.empty((0, self.dim), np.float32)]
        )
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise ValueError(f"row {start + bad[0]} has a value that is not finite")
        if self.metric == "cosine":
            faiss.normalize_L2(rows)
        return rows


def flat(vectors: Vectors, metric: str) -> FaissIndex:
    """All of them, exact."""
    index = faiss.IndexFlat(vectors.dim, METRICS[metric])
    index.add(vectors.take(0, len(vectors)))
    return index
