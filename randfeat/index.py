"""An exact index of features, with the name of what each row came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from . import files


@dataclass(frozen=True)
class Match:
    """One found item: its name and its cosine similarity, in [-1, 1]."""

    name: str
    score: float


class Index:
    """Exact cosine search (faiss `IndexFlatIP` over L2-normalised rows)."""

    def __init__(self, features: np.ndarray, names: Sequence[str | Path]) -> None:
        """features: (n, F) finite floats; names: n strings, paths for instance."""
        rows = _normalised(features)
        if len(rows) != len(names) or not len(rows):
            raise ValueError(f"{len(rows)} features for {len(names)} names: expected as many, and one at least")
        self.names = [str(name) for name in names]
        self._faiss: faiss.Index = faiss.IndexFlatIP(rows.shape[1])
        self._faiss.add(rows)

    def __len__(self) -> int:
        return len(self.names)

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Match]]:
        """For each of the queries (m, F) its k nearest (all, if there are fewer), best first."""
        rows = _normalised(queries)
        if rows.shape[1] != self._faiss.d:
            raise ValueError(f"the index holds features of {self._faiss.d} numbers, the query has {rows.shape[1]}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        scores, ids = self._faiss.search(rows, min(k, len(self)))
        return [
            [Match(self.names[i], float(score)) for i, score in zip(found, near, strict=True)]
            for found, near in zip(ids, scores, strict=True)
        ]

    def save(self, directory: str | Path) -> None:
        """Writes a directory of `index.faiss` and `meta.json`; one of the same name is replaced as a whole."""
        with files.new_directory(Path(directory), _is_index) as made:
            faiss.write_index(self._faiss, str(made / "index.faiss"))
            (made / "meta.json").write_text(json.dumps({"metric": "cosine", "names": self.names}), "utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Index:
        """Opens what `save` wrote."""
        directory = files.settled(Path(directory))
        for name in ("meta.json", "index.faiss"):
            if not (directory / name).is_file():
                raise FileNotFoundError(f"{directory} is no index: it has no {name}")
        index = cls.__new__(cls)
        index.names = json.loads((directory / "meta.json").read_text("utf-8"))["names"]
        index._faiss = faiss.read_index(str(directory / "index.faiss"))
        return index


def _is_index(directory: Path) -> bool:
    """Whether a directory holds what `Index.save` writes and nothing else."""
    return {inside.name for inside in directory.iterdir()} == {"index.faiss", "meta.json"}


def _normalised(features: np.ndarray) -> np.ndarray:
    rows = np.array(features, dtype=np.float32, order="C")
    if rows.ndim != 2:
        raise ValueError(f"features must have two dimensions, got shape {rows.shape}")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise ValueError(f"row {bad[0]} (of {len(bad)} rows) has a value that is not finite")
    faiss.normalize_L2(rows)
    return rows
