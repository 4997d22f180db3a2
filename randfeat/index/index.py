"""The index as users see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..rows import first_twice
from . import building, kinds
from .directory import Directory
from .results import Filter, Match
from .rows import SCHEMA, Rows
from .segment import Segment

if TYPE_CHECKING:
    from ..encoders import Encoder


class Index:
    """Nearest neighbours among rows of float32, each with an id, a path and a label.

    In memory, or in a directory, which other processes can read while it is written; an opened index shows what it was
    when it was opened or last written by it. Removed rows are crossed out, added ones lie in segments of their own;
    `compact` makes one of all. Ids count from 0 and are never used twice.
    """

    def __init__(
        self,
        features: np.ndarray,
        names: Sequence[str | Path],
        labels: Sequence[str | int | None] | None = None,
        *,
        kind: str = "flat",
        metric: str = "cosine",
    ) -> None:
        """An index in memory.

        features: (n, F) finite numbers. names: n different strings, paths for instance. labels: a name, a number or
        None for each. kind: `flat` is exact, `ivf` and `hnsw` are faster and find nearly all; `auto` chooses by size.
        metric: `cosine`, `inner product` or `l2`.
        """
        self._directory: Directory | None = None
        self.segments: list[Segment] = []
        vectors = building.Vectors([_checked(features)], metric)
        self.meta = _new_meta(kind, metric, vectors.dim, None)
        self._fill(vectors, _table(names, labels, len(vectors)), None)

    @classmethod
    def build(
        cls,
        directory: str | Path,
        features: np.ndarray | Sequence[np.ndarray],
        names: Sequence[str | Path],
        labels: Sequence[str | int | None] | None = None,
        *,
        kind: str = "auto",
        metric: str = "cosine",
        memory: int | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> Index:
        """An index in a new directory. Arguments as of `Index`; besides, features: also several arrays, one after the
        other, which may be mapped and larger than the memory. memory: bytes that the index may take, by default half of
        the machine's; what is larger is compressed and cut into segments. reading: see `reading`.
        """
        parts = [_checked(part) for part in ([features] if isinstance(features, np.ndarray) else features)]
        index = cls.__new__(cls)
        index._directory, index.segments = Directory(Path(directory)), []
        vectors = building.Vectors(parts, metric)
        index.meta = _new_meta(kind, metric, vectors.dim, reading)
        table = _table(names, labels, len(vectors))
        with index._directory.alone():
            if index._directory.meta() is not None:
                raise FileExistsError(f"{directory} is an index already: add to it, or choose another directory")
            index._fill(vectors, table, memory)
        return index

    @classmethod
    def open(cls, directory: str | Path) -> Index:
        """An index on disk. It is mapped: only what is looked at is read."""
        index = cls.__new__(cls)
        index._directory = Directory(Path(directory))
        index.meta, index.segments = index._directory.read()
        return index

    def refresh(self) -> bool:
        """Shows what another process has written since; returns whether there was anything."""
        if self._directory is None or self._directory.meta() == self.meta:
            return False
        self.meta, self.segments = self._directory.read()
        return True

    def save(self, directory: str | Path) -> None:
        """Writes all of it to a directory; an index that was there is replaced as a whole."""
        target = Directory(Path(directory))
        with target.alone():
            written = [target.write(Segment(each.index, each.rows, each.removed)) for each in self.segments]
            target.commit(self.meta | {"skipped": None}, written)

    # what it holds ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def __repr__(self) -> str:
        where = "in memory" if self.directory is None else repr(str(self.directory))
        return f"Index({where}: {len(self)} rows of {self.dim}, {self.kind}, {self.metric})"

    @property
    def directory(self) -> Path | None:
        return None if self._directory is None else self._directory.path

    @property
    def kind(self) -> str:
        """flat, ivf or hnsw."""
        return self.meta["kind"]

    @property
    def metric(self) -> str:
        return self.meta["metric"]

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return self.meta["dimension"]

    @property
    def reading(self) -> dict[str, Any] | None:
        """How the rows were read from images: `model` and `spec` as they were named, and `encoder`, which is what
        `Encoder.record` says; None for rows that came as numbers.
        """
        return self.meta["reading"]

    def rows(self, ids: Sequence[int]) -> list[Match]:
        """Path and label of these ids, with score nan; a ValueError for one that is not there."""
        segments, rows = self._places(ids)
        return self._matches(np.asarray(ids, np.int64), segments, rows, np.full(len(rows), np.nan))

    def find(self, paths: Sequence[str | Path]) -> list[int | None]:
        """The id of each path, None where there is none."""
        names = [str(path) for path in paths]
        found: dict[str, int] = {}
        for segment in self.segments:
            rows = np.setdiff1d(segment.rows.with_paths(names), segment.removed)
            found.update(zip(segment.rows.take("path", rows), segment.rows.ids[rows].tolist(), strict=True))
        return [found.get(name) for name in names]

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """The rows of these ids, float32 (n, F), of length 1 where the metric is cosine."""
        segments, rows = self._places(ids)
        vectors = np.empty((len(rows), self.dim), np.float32)
        for number, segment in enumerate(self.segments):
            here = np.flatnonzero(segments == number)
            if len(here):
                vectors[here] = segment.vectors(rows[here])
        return vectors

    def labels(self) -> dict[str, int]:
        """How many rows have each label, in sorted order; those without one are not counted."""
        counts: dict[str, int] = {}
        for segment in self.segments:
            for pair in segment.rows.column("label").take(pa.array(segment.left())).value_counts().to_pylist():
                if pair["values"] is not None:
                    counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        return dict(sorted(counts.items()))

    # search ----------------------------------------------------------------------------------------------------------

    def search(
        self, queries: np.ndarray, k: int = 10, where: Filter | None = None, effort: int | None = None
    ) -> list[list[Match]]:
        """For each of the queries (m, F) its k nearest rows, or all that there are, best first.

        where: among which rows. effort: of an ivf index the lists that are looked at, of an hnsw index the length of
        the list of candidates; by default what was found to be enough when it was built.
        """
        ids, scores, segments, rows = self._nearest(queries, k, where, effort)
        found = self._matches(ids.ravel(), segments.ravel(), rows.ravel(), scores.ravel())
        return [found[start : start + ids.shape[1]] for start in range(0, ids.size, ids.shape[1] or 1)] or [[]] * len(
            ids
        )

    def _nearest(
        self, queries: np.ndarray, k: int, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids, scores, numbers of segments and rows, each (m, up to k), best first."""
        queries = self._prepared(queries)
        if isinstance(k, bool) or int(k) != k or k < 1:
            raise ValueError(f"k must be a whole number from 1, got {k}")
        best_first = -1 if self.metric != "l2" else 1
        scores, segments, rows = [], [], []
        for number, segment in enumerate(self.segments):
            near, places = segment.search(queries, int(k), where, effort)
            scores.append(near)
            rows.append(places)
            segments.append(np.full(places.shape, number))
        if not scores:
            none = np.empty((len(queries), 0), np.int64)
            return none, none.astype(np.float32), none, none
        score, place, row = (np.concatenate(arrays, 1) for arrays in (scores, segments, rows))
        if len(self.segments) > 1:
            first = np.argsort(best_first * score, axis=1, kind="stable")[:, :k]
            score, place, row = (np.take_along_axis(array, first, 1) for array in (score, place, row))
        if self.metric == "l2":
            score = np.sqrt(np.maximum(score, 0))
        ids = np.empty_like(row)
        for number, segment in enumerate(self.segments):
            here = place == number
            ids[here] = segment.rows.ids[row[here]]
        return ids, score, place, row

    def similar(self, ids: Sequence[int], k: int = 10, where: Filter | None = None) -> list[list[Match]]:
        """As `search` for rows of the index itself, each without itself."""
        found = self.search(self.vectors(ids), k + 1, where)
        return [[match for match in one if match.id != id_][:k] for id_, one in zip(ids, found, strict=True)]

    def encoder(self, device: str = "cpu", model: str | None = None) -> Encoder:
        """The encoder that read the images of the index. model: where it lies now, if it was moved. A ValueError
        where it is another by now, or the rows came as numbers.
        """
        from .reading import open_reader

        if self.reading is None:
            raise ValueError(f"{self!r} holds numbers that no model read: search with features")
        return open_reader(self.reading, device, model)

    def read(self, images: Any, encoder: Encoder) -> np.ndarray:
        """Queries (m, F) from one batch of PIL images, paths or uint8 arrays, as `Encoder.features` takes them. A
        ValueError names both for an encoder that reads otherwise than that of the index.
        """
        from .reading import check

        check(self.reading, encoder)
        return encoder.features(images)[0]

    # change ----------------------------------------------------------------------------------------------------------

    def add(
        self, features: np.ndarray, names: Sequence[str | Path], labels: Sequence[str | int | None] | None = None
    ) -> list[int]:
        """Adds rows under new names; returns their ids. A ValueError names one that is there already: see `update`."""
        vectors = self._own_vectors(features)
        table = _table(names, labels, len(vectors))
        with self._writing():
            there = [
                name for name, id_ in zip(table["path"].to_pylist(), self.find(names), strict=True) if id_ is not None
            ]
            if there:
                raise ValueError(f"{there[0]} is in the index already: use update to replace it")
            return self._change(vectors, table)

    def update(
        self, features: np.ndarray, names: Sequence[str | Path], labels: Sequence[str | int | None] | None = None
    ) -> list[int]:
        """Gives these names these features and labels, in the place of what was there; new names are added. Returns
        their ids; what was there keeps its own.
        """
        vectors = self._own_vectors(features)
        table = _table(names, labels, len(vectors))
        with self._writing():
            return self._change(vectors, table)

    def remove(self, which: Sequence[int | str | Path]) -> int:
        """Removes rows by id or by path; returns how many. A ValueError names one that is not there, and then nothing
        is removed.
        """
        which = list(which)
        with self._writing():
            paths = [one for one in which if isinstance(one, (str, Path))]
            ids = [int(one) for one in which if not isinstance(one, (str, Path))]
            for path, id_ in zip(paths, self.find(paths), strict=True):
                if id_ is None:
                    raise ValueError(f"the index holds no {path}")
                ids.append(id_)
            return self._drop(*self._places(sorted(set(ids))))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, this process alone changes the index, from its newest state on."""
        if self._directory is None:
            yield
            return
        with self._directory.alone():
            self.refresh()
            yield

    def _fill(self, vectors: building.Vectors, table: pa.Table, memory: int | None) -> None:
        ids = pa.array(np.arange(len(table)))
        table = table.set_column(0, SCHEMA.field("id"), ids)
        self.meta["next_id"] = len(table)
        self._commit([Segment(building.flat(vectors, self.metric), Rows(table))] if len(table) else [])

    def _change(self, vectors: building.Vectors, table: pa.Table) -> list[int]:
        """Puts rows in: where their path is there already, in the place of that row."""
        there = self.find(table["path"].to_pylist())
        old = [id_ for id_ in there if id_ is not None]
        new_ids = iter(range(self.meta["next_id"], self.meta["next_id"] + len(there)))
        ids = [next(new_ids) if id_ is None else id_ for id_ in there]
        segments = self._without(*self._places(old))
        if len(table):
            table = table.set_column(0, SCHEMA.field("id"), pa.array(ids, pa.int64()))
            segments.append(Segment(building.flat(vectors, self.metric), Rows(table)))
        self._commit(segments, next_id=next(new_ids, self.meta["next_id"] + len(there)))
        return ids

    def _drop(self, segments: np.ndarray, rows: np.ndarray) -> int:
        self._commit(self._without(segments, rows))
        return len(rows)

    def _without(self, segments: np.ndarray, rows: np.ndarray) -> list[Segment]:
        return [segment.without(rows[segments == number]) for number, segment in enumerate(self.segments)]

    def _commit(self, segments: Sequence[Segment], **changes: Any) -> None:
        """Makes the index consist of these segments, on disk where it lies there."""
        segments = [segment for segment in segments if len(segment)]
        self.meta = self.meta | changes
        if self._directory is not None:
            segments = [self._directory.write(segment) for segment in segments]
            self.meta = self._directory.commit(self.meta, segments)
        self.segments = segments

    # helpers ---------------------------------------------------------------------------------------------------------

    def _places(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the segment and of the row in it of each id."""
        wanted = np.asarray(ids, np.int64).reshape(-1)
        segments, rows = np.full(len(wanted), -1), np.full(len(wanted), -1)
        for number, segment in enumerate(self.segments):
            found = segment.rows.with_ids(wanted)
            found[np.isin(found, segment.removed)] = -1
            segments[found >= 0], rows[found >= 0] = number, found[found >= 0]
        if len(missing := np.flatnonzero(segments < 0)):
            raise ValueError(f"the index holds no id {wanted[missing[0]]}")
        return segments, rows

    def _matches(self, ids: np.ndarray, segments: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> list[Match]:
        columns: dict[str, np.ndarray] = {name: np.empty(len(rows), object) for name in ("path", "label")}
        for number, segment in enumerate(self.segments):
            here = np.flatnonzero(segments == number)
            if len(here):
                for name, column in columns.items():
                    column[here] = segment.rows.take(name, rows[here])
        fields = (ids.tolist(), columns["path"].tolist(), columns["label"].tolist(), scores.tolist())
        return list(map(Match._make, zip(*fields, strict=True)))

    def _prepared(self, queries: np.ndarray) -> np.ndarray:
        queries = _checked(queries)
        if queries.shape[1] != self.dim:
            raise ValueError(f"the index holds features of {self.dim} numbers, the query has {queries.shape[1]}")
        return building.Vectors([queries], self.metric).take(0, len(queries))

    def _own_vectors(self, features: np.ndarray) -> building.Vectors:
        features = _checked(features)
        if features.shape[1] != self.dim:
            raise ValueError(f"the index holds features of {self.dim} numbers, these have {features.shape[1]}")
        return building.Vectors([features], self.metric)


def _new_meta(kind: str, metric: str, dim: int, reading: Mapping[str, Any] | None) -> dict[str, Any]:
    if metric not in kinds.METRICS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(kinds.METRICS)}")
    if kind not in kinds.KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(kinds.KINDS)}")
    return {
        "format": "index of randfeat, version 1",
        "kind": "flat",
        "metric": metric,
        "normalised": metric == "cosine",
        "dimension": dim,
        "reading": None if reading is None else dict(reading),
        "skipped": None,
        "next_id": 0,
    }


def _table(names: Sequence[str | Path], labels: Sequence[str | int | None] | None, count: int) -> pa.Table:
    """Rows of these names, without ids yet."""
    paths = [str(name) for name in names]
    if len(paths) != count:
        raise ValueError(f"{count} features for {len(paths)} names: expected as many")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{count} features for {len(labels)} labels: expected as many")
    if (twice := first_twice(paths)) is not None:
        raise ValueError(f"the name {twice} is there twice: expected a name for each row")
    texts = [None if label is None else str(label) for label in labels or [None] * count]
    nulls = [None] * count
    return pa.table([[0] * count, paths, texts, nulls, nulls], schema=SCHEMA)


def _checked(features: np.ndarray) -> np.ndarray:
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise ValueError(f"features must have two dimensions, (n, F), got shape {rows.shape}")
    return rows
