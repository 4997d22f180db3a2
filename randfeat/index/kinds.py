"""The kinds of index, in faiss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..faiss_library import faiss

if TYPE_CHECKING:
    from ..faiss_library import FaissIndex

METRICS = {"cosine": faiss.METRIC_INNER_PRODUCT, "inner product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
KINDS = ("auto", "flat", "ivf", "hnsw")


def is_exact(index: FaissIndex) -> bool:
    """Whether it looks at every row."""
    return isinstance(index, faiss.IndexFlat)


def search(
    index: FaissIndex, queries: np.ndarray, k: int, selector: Any | None, effort: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and row numbers (m, k); -1 where no more was found."""
    parameters = None if selector is None else faiss.SearchParameters(sel=selector)
    return index.search(queries, k, params=parameters)


def search_all(index: FaissIndex, queries: np.ndarray, k: int, selector: Any | None) -> tuple[np.ndarray, np.ndarray]:
    """The same, looking at every row."""
    return search(index, queries, k, selector, None)


def reconstruct(index: FaissIndex, rows: np.ndarray) -> np.ndarray:
    """The vectors of these rows."""
    return index.reconstruct_batch(rows)
