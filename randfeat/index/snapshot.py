"""What an index holds at one moment, and what can be asked of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..data.store import first_twice
from ..utils.checks import check_whole_number
from . import duplicates, faiss_index
from . import vectors as building
from .directory import Directory, Skipped
from .query import Filter, Match
from .segment import Segment
from .whitening import Whitening

if TYPE_CHECKING:
    from ..features.encoder import Encoder

_match = tuple.__new__  # what Match._make does, in a third of the time


class Snapshot:
    """Rows with ids, paths and labels, in segments. It does not change."""

    meta: dict[str, Any]  # as in the manifest, see `directory`
    segments: list[Segment]
    skipped: list[Skipped]  # images that could not be read
    whitening: Whitening | None
    _directory: Directory | None
    _checked: weakref.ref[Encoder] | None = None  # the encoder that `read` has looked at last

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
    def width(self) -> int:
        """Numbers of the features that rows and queries come as: more than `dim` where they are whitened."""
        return self.dim if self.whitening is None else len(self.whitening.mean)

    @property
    def reading(self) -> dict[str, Any] | None:
        """How the rows were read from images: `model` and `spec` as they were named, and `encoder`, which is what
        `Encoder.record` says; None for rows that came as numbers.
        """
        return self.meta["reading"]

    def stats(self) -> dict[str, Any]:
        """What there is, as JSON."""
        return {
            "rows": len(self),
            "removed": sum(len(segment.removed) for segment in self.segments),
            **{name: self.meta[name] for name in ("kind", "reason", "metric", "dimension")},
            "whitened": None if self.whitening is None else self.width,
            "labels": len(self.labels()),
            "model": self.reading and self.reading["model"],
            "spec": self.reading and self.reading["spec"],
            "skipped": len(self.skipped),
            "bytes": None if self._directory is None else self._directory.size(self.meta),
            "segments": [
                {
                    "kind": faiss_index.kind_of(segment.index),
                    "rows": len(segment.rows),
                    "removed": len(segment.removed),
                    "effort": faiss_index.effort(segment.index),
                }
                for segment in self.segments
            ],
        }

    def verify(self) -> None:
        """Read all of it; a ValueError names the first thing that is not as it was written, or cannot be."""
        if self._directory is not None:
            self._directory.verify(self.meta)
        ids = np.concatenate([np.empty(0, np.int64), *(segment.rows.ids[segment.left()] for segment in self.segments)])
        if len(np.unique(ids)) < len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < self.meta["next_id"]):
            raise ValueError(f"{self!r} has an id twice, or one that was never given: build it anew")
        paths = chain.from_iterable(segment.rows.take("path", segment.left()) for segment in self.segments)
        if (twice := first_twice(paths)) is not None:
            raise ValueError(f"{self!r} has {twice} twice: build it anew")
        for segment in self.segments:
            if segment.index.d != self.dim:
                raise ValueError(f"{self!r} has a segment of {segment.index.d} numbers a row: build it anew")

    def rows(self, ids: Sequence[int]) -> list[Match]:
        """Path and label of these ids, with score nan; a ValueError for one that is not there."""
        segments, rows = self.places(ids)
        return self.matches(np.asarray(ids, np.int64), segments, rows, np.full(len(rows), np.nan))

    def ids(self, where: Filter | None = None) -> list[int]:
        """Return the ids of all rows, or of those that are asked for."""
        found: list[int] = []
        for segment in self.segments:
            mask = segment.asked(where)
            found += (segment.rows.ids if mask is None else segment.rows.ids[mask]).tolist()
        return found

    def find(self, paths: Sequence[str | Path]) -> list[int | None]:
        """Return the id of each path, None where there is none."""
        names = [str(path) for path in paths]
        found: dict[str, int] = {}
        for segment in self.segments:
            rows = np.setdiff1d(segment.rows.with_paths(names), segment.removed)
            found.update(zip(segment.rows.take("path", rows), segment.rows.ids[rows].tolist(), strict=True))
        return [found.get(name) for name in names]

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Return the rows of these ids as they lie there, float32 (n, dim), of length 1 where the metric is cosine."""
        vectors = np.empty((len(ids), self.dim), np.float32)
        for part, which in self.parts(ids):
            vectors[which] = part[:]
        return vectors

    def parts(self, ids: Sequence[int]) -> Iterator[tuple[building.Part, np.ndarray]]:
        """Yield the same in parts, bit for bit as they lie there, and which of the ids each is of."""
        segments, rows = self.places(ids)
        for number, segment in enumerate(self.segments):
            if len(here := np.flatnonzero(segments == number)):
                yield building.LiveRows(segment, rows[here]), here

    def labels(self) -> dict[str, int]:
        """Return how many rows have each label, in sorted order; those without one are not counted."""
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
        return self._found(self._prepared(queries), k, where, effort)

    def _found(
        self, queries: np.ndarray, k: int, where: Filter | None = None, effort: int | None = None
    ) -> list[list[Match]]:
        ids, scores, segments, rows = self._nearest(queries, k, where, effort)
        found = self.matches(ids.ravel(), segments.ravel(), rows.ravel(), scores.ravel())
        count = ids.shape[1]
        return [found[row * count : (row + 1) * count] for row in range(len(ids))]

    def nearest(
        self, queries: np.ndarray, k: int = 10, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, in arrays: ids, int64, and scores, float32, each (m, up to k)."""
        return self._nearest(self._prepared(queries), k, where, effort)[:2]

    def _nearest(
        self, queries: np.ndarray, k: int, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids, scores, numbers of segments and rows, each (m, up to k), best first. queries: as `_prepared`."""
        for name, value in (("k", k), ("effort", 1 if effort is None else effort)):
            check_whole_number(name, value, 1)
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
        if len(self.segments) == 1:
            ids = self.segments[0].rows.ids[row]
        else:
            ids = np.empty_like(row)
            for number, segment in enumerate(self.segments):
                here = place == number
                ids[here] = segment.rows.ids[row[here]]
        if (score[:, 1:] == score[:, :-1]).any():  # of equals the first in the index comes first
            first = np.lexsort((ids, best_first * score))
            ids, score, place, row = (np.take_along_axis(array, first, 1) for array in (ids, score, place, row))
        return ids, score, place, row

    def similar(self, ids: Sequence[int], k: int = 10, where: Filter | None = None) -> list[list[Match]]:
        """As `search` for rows of the index itself, each without itself."""
        found = self._found(self.vectors(ids), k + 1, where)
        return [[match for match in one if match.id != id_][:k] for id_, one in zip(ids, found, strict=True)]

    def within(self, queries: np.ndarray, threshold: float, where: Filter | None = None) -> list[list[Match]]:
        """For each of the queries (m, F) all rows that are at least so similar (for the metric l2: at most so far),
        best first. An ivf or hnsw index may miss some.
        """
        of, *found = self.near(self._prepared(queries), threshold, where)
        matches, counts = self.matches(*found), np.bincount(of, minlength=len(queries)).tolist()
        ends = np.cumsum(counts).tolist()
        return [matches[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def near_duplicates(
        self, threshold: float = 0.95, where: Filter | None = None, shown: bool = False
    ) -> list[list[Match]]:
        """Groups of rows of which each is at least so similar (for the metric l2: at most so far) to another one of its
        group; the largest first. A score is that to the nearest of the others. shown: whether with a progress bar.

        Each row is searched for, so in a flat index it takes a time that grows with the square of the rows.
        """
        return duplicates.groups(self, threshold, where, shown)

    def near(
        self, queries: np.ndarray, threshold: float, where: Filter | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of queries, in order, and ids, segments, rows and scores of what is so near to each. queries: as they
        are compared, `vectors` for instance."""
        left, k = np.arange(len(queries)), 64
        found: list[list[np.ndarray]] = []
        while len(left) or not found:
            ids, scores, segments, rows = self._nearest(queries[left], k, where)
            near = scores <= threshold if self.metric == "l2" else scores >= threshold
            ended = ~near[:, -1] if near.shape[1] == k else np.ones(len(left), bool)
            kept = near & ended[:, None]
            of = np.broadcast_to(left[:, None], near.shape)
            found.append([array[kept] for array in (of, ids, segments, rows, scores)])
            left, k = left[~ended], 4 * k
        of, ids, segments, rows, scores = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        order = np.argsort(of, kind="stable")
        return of[order], ids[order], segments[order], rows[order], scores[order]

    def encoder(self, device: str = "cpu", model: str | None = None) -> Encoder:
        """Return the encoder that read the images of the index. model: where it lies now, if it was moved. A ValueError
        where it is another by now, or the rows came as numbers.
        """
        from .reader import open_reader

        if self.reading is None:
            raise ValueError(f"{self!r} holds numbers that no model read: search with features")
        opened = open_reader(self.reading, device, model)
        self._checked = weakref.ref(opened)
        return opened

    def read(self, images: Any, encoder: Encoder) -> np.ndarray:
        """Queries (m, F) from one batch of PIL images, paths or uint8 arrays, as `Encoder.features` takes them. A
        ValueError names both for an encoder that reads otherwise than that of the index. An encoder is looked at once,
        because that reads all its weights.
        """
        from .reader import check

        if self._checked is None or self._checked() is not encoder:
            check(self.reading, encoder)
            self._checked = weakref.ref(encoder)
        return encoder.features(images)[0]

    def places(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the segment and of the row in it of each id; a ValueError for one that is not there."""
        wanted = np.asarray(ids, np.int64).reshape(-1)
        segments, rows = np.full(len(wanted), -1), np.full(len(wanted), -1)
        for number, segment in enumerate(self.segments):
            found = segment.rows.with_ids(wanted)
            found[np.isin(found, segment.removed)] = -1
            segments[found >= 0], rows[found >= 0] = number, found[found >= 0]
        if len(missing := np.flatnonzero(segments < 0)):
            raise ValueError(f"the index holds no id {wanted[missing[0]]}")
        return segments, rows

    def matches(self, ids: np.ndarray, segments: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> list[Match]:
        """What was found, with paths and labels; arguments all (n,)."""
        if len(self.segments) == 1:
            paths, labels = (self.segments[0].rows.take(name, rows) for name in ("path", "label"))
        else:
            columns = [np.empty(len(rows), object) for _ in range(2)]
            for number, segment in enumerate(self.segments):
                if len(here := np.flatnonzero(segments == number)):
                    for name, column in zip(("path", "label"), columns, strict=True):
                        column[here] = segment.rows.take(name, rows[here])
            paths, labels = (column.tolist() for column in columns)
        fields = (ids.tolist(), paths, labels, scores.tolist())
        collecting = gc.isenabled()
        gc.disable()  # thousands of tuples at once would make it look for garbage, and there is none
        try:
            return [_match(Match, one) for one in zip(*fields, strict=True)]
        finally:
            if collecting:
                gc.enable()

    def _prepared(self, queries: np.ndarray) -> np.ndarray:
        queries = checked(queries)
        if queries.shape[1] != self.width:
            raise ValueError(f"the index holds features of {self.width} numbers, the query has {queries.shape[1]}")
        return building.Vectors([queries], self.dim, self.metric, self.whitening).take(0, len(queries))


def checked(features: np.ndarray) -> np.ndarray:
    """Return a ValueError for what is no matrix."""
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise ValueError(f"features must have two dimensions, (n, F), got shape {rows.shape}")
    return rows
