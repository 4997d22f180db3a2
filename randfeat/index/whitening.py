"""Principal components of variance 1, learned once from the first rows, through which all rows and queries of an index
go. What varies most, which need not be what matters, then no longer decides what is near
(docs/guides/find-similar.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PER_NUMBER, LEAST = 16, 1 << 14  # rows that are learned from: so many for each number of a row, and in any case


@dataclass(frozen=True)
class Whitening:
    """mean: float32 (F,). directions: float32 (F, K), each divided by the deviation along it."""

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def fit(cls, sample: np.ndarray, count: int) -> Whitening:
        """Of rows (n, F): `count` components, or as many as vary."""
        from ..probes import Components  # which takes a second to import

        made = Components(count, whiten=True).fit(sample)
        deviations = np.sqrt(made.pca_.explained_variance_[: made.kept_, None])
        directions = made.pca_.components_[: made.kept_] / np.maximum(deviations, np.finfo(np.float32).tiny)
        return cls(made.pca_.mean_.astype(np.float32), np.ascontiguousarray(directions.T, np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, F) -> (n, K)."""
        return (rows - self.mean) @ self.directions

    def save(self, path: Path) -> None:
        np.savez(path, mean=self.mean, directions=self.directions)

    @classmethod
    def open(cls, path: Path) -> Whitening:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["mean"], arrays["directions"])


def sample_size(dim: int) -> int:
    """Rows to learn from, of so many numbers."""
    return max(LEAST, PER_NUMBER * dim)
