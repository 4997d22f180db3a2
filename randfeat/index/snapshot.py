"""Snapshot of an index: its rows at one moment, and the searches among them."""

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
from ..utils import progress
from ..utils.checks import check_whole_number
from . import faiss_index
from .directory import Directory, Skipped
from .grouping import check_threshold, connected
from .query import Filter, Match
from .segment import Segment
from .vectors import LiveRows, Part, Vectors, Whitening, checked

if TYPE_CHECKING:
    from ..data.errors import OnError
    from ..features.encoder import Encoder

BLOCK = 1024  # rows whose duplicates are searched for together


class Snapshot:
    """Rows with ids, paths and labels, in segments, and the searches among them. `Index` adds changes."""

    _checked: weakref.ref[Encoder] | None = None  # the encoder that `read` has checked last

    def __init__(
        self,
        meta: dict[str, Any],
        directory: Directory | None = None,
        segments: Sequence[Segment] = (),
        skipped: Sequence[Skipped] = (),
        whitening: Whitening | None = None,
    ) -> None:
        """Hold the parts of an index. meta: its manifest, see `directory`. skipped: images that could not be read."""
        self.meta, self._directory = meta, directory
        self.segments, self.skipped, self.whitening = [*segments], [*skipped], whitening

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def __repr__(self) -> str:
        where = "in memory" if self.directory is None else repr(str(self.directory))
        return f"Index({where}: {len(self)} rows of {self.dim}, {self.index_type}, {self.metric})"

    @property
    def directory(self) -> Path | None:
        return None if self._directory is None else self._directory.path

    @property
    def index_type(self) -> str:
        """Type of the index of most rows: flat, ivf or hnsw."""
        return self.meta["kind"]

    @property
    def metric(self) -> str:
        return self.meta["metric"]

    @property
    def dim(self) -> int:
        """Length of a row as it is indexed."""
        return self.meta["dimension"]

    @property
    def width(self) -> int:
        """Length of the features that are added and searched with: more than `dim` where they are whitened."""
        return self.dim if self.whitening is None else len(self.whitening.mean)

    @property
    def encoder_record(self) -> dict[str, Any] | None:
        """Encoder of the images: `model` and `spec` as they were named, and `encoder`, its `Encoder.record`; None for
        rows that were given as features.
        """
        return self.meta["reading"]

    def stats(self) -> dict[str, Any]:
        """Return size, types and settings of the index, as JSON."""
        return {
            "rows": len(self),
            "removed": sum(len(segment.removed) for segment in self.segments),
            "index_type": self.index_type,
            **{name: self.meta[name] for name in ("reason", "metric", "dimension")},
            "whitened": None if self.whitening is None else self.width,
            "labels": len(self.labels()),
            "model": self.encoder_record and self.encoder_record["model"],
            "spec": self.encoder_record and self.encoder_record["spec"],
            "skipped": len(self.skipped),
            "bytes": None if self._directory is None else self._directory.size(self.meta),
            "segments": [
                {
                    "index_type": faiss_index.type_of(segment.index),
                    "rows": len(segment.rows),
                    "removed": len(segment.removed),
                    "parameter": faiss_index.parameter_name(segment.index),
                    "value": faiss_index.parameter(segment.index),
                }
                for segment in self.segments
            ],
        }

    def verify(self) -> None:
        """Read all of it. Raises a ValueError that names the first thing that is damaged or impossible."""
        if self._directory is not None:
            self._directory.verify(self.meta)
        live = [segment.rows.ids[segment.live_rows()] for segment in self.segments]
        ids = np.concatenate([np.empty(0, np.int64), *live])
        if len(np.unique(ids)) < len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < self.meta["next_id"]):
            raise ValueError(f"{self!r} has an id twice, or one that was never given: build it anew")
        paths = chain.from_iterable(segment.rows.take("path", segment.live_rows()) for segment in self.segments)
        if (twice := first_twice(paths)) is not None:
            raise ValueError(f"{self!r} has {twice} twice: build it anew")
        for segment in self.segments:
            if segment.index.d != self.dim:
                raise ValueError(f"{self!r} has a segment of {segment.index.d} numbers a row: build it anew")

    def rows(self, ids: Sequence[int]) -> list[Match]:
        """Return path and label of these ids, with score nan. Raises a ValueError for an id that is not there."""
        segments, rows = self.places(ids)
        return self.matches(np.asarray(ids, np.int64), segments, rows, np.full(len(rows), np.nan))

    def ids(self, where: Filter | None = None) -> list[int]:
        """Return the ids of all rows, or of those that match a filter."""
        found: list[int] = []
        for segment in self.segments:
            mask = segment.matching(where)
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
        """Return vectors as they are indexed, float32 (n, dim): of length 1 where the metric is cosine."""
        vectors = np.empty((len(ids), self.dim), np.float32)
        for part, which in self.parts(ids):
            vectors[which] = part[:]
        return vectors

    def parts(self, ids: Sequence[int]) -> Iterator[tuple[Part, np.ndarray]]:
        """Yield the same in parts, bit for bit as they are indexed, each with the positions of its rows in `ids`."""
        segments, rows = self.places(ids)
        for number, segment in enumerate(self.segments):
            if len(here := np.flatnonzero(segments == number)):
                yield LiveRows(segment, rows[here]), here

    def labels(self) -> dict[str, int]:
        """Return the number of rows of each label, sorted by label; rows without one are not counted."""
        counts: dict[str, int] = {}
        for segment in self.segments:
            for pair in segment.rows.column("label").take(pa.array(segment.live_rows())).value_counts().to_pylist():
                if pair["values"] is not None:
                    counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        return dict(sorted(counts.items()))

    # search ----------------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: np.ndarray,
        k: int = 10,
        where: Filter | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> list[list[Match]]:
        """Return for each of the queries (m, F) its k nearest rows, or all that there are, best first.

        where: filter of the rows to search among. nprobe: lists of an ivf index that a query looks at. ef_search:
        candidates that a query of an hnsw index keeps. The defaults were found to be enough when it was built.
        """
        return self._as_matches(*self._nearest(self._prepared(queries), k, where, nprobe, ef_search))

    def _as_matches(
        self, ids: np.ndarray, scores: np.ndarray, segments: np.ndarray, rows: np.ndarray
    ) -> list[list[Match]]:
        found, count = self.matches(ids.ravel(), segments.ravel(), rows.ravel(), scores.ravel()), ids.shape[1]
        return [found[row * count : (row + 1) * count] for row in range(len(ids))]

    def nearest(
        self,
        queries: np.ndarray,
        k: int = 10,
        where: Filter | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the result of `search` in arrays: ids, int64, and scores, float32, each (m, up to k)."""
        return self._nearest(self._prepared(queries), k, where, nprobe, ef_search)[:2]

    def _nearest(
        self,
        queries: np.ndarray,
        k: int,
        where: Filter | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, scores, numbers of segments and of rows, each (m, up to k), best first.

        queries: as `_prepared` returns them.
        """
        for name, value in (("k", k), ("nprobe", nprobe), ("ef_search", ef_search)):
            if name == "k" or value is not None:
                check_whole_number(name, value, 1)
        best_first = -1 if self.metric != "l2" else 1
        scores, segments, rows = [], [], []
        for number, segment in enumerate(self.segments):
            near, places = segment.search(queries, int(k), where, nprobe, ef_search)
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
        if (score[:, 1:] == score[:, :-1]).any():  # among equal scores the lowest id comes first
            first = np.lexsort((ids, best_first * score))
            ids, score, place, row = (np.take_along_axis(array, first, 1) for array in (ids, score, place, row))
        return ids, score, place, row

    def similar(self, ids: Sequence[int], k: int = 10, where: Filter | None = None) -> list[list[Match]]:
        """Search for rows of the index itself; each is left out of its own result."""
        found = self._as_matches(*self._nearest(self.vectors(ids), k + 1, where))
        return [[match for match in one if match.id != id_][:k] for id_, one in zip(ids, found, strict=True)]

    def within(self, queries: np.ndarray, threshold: float, where: Filter | None = None) -> list[list[Match]]:
        """Return for each of the queries (m, F) all rows with a score of `threshold` or better (metric l2: at most this
        distance), best first. An ivf or hnsw index may miss some.
        """
        check_threshold(threshold, self.metric)
        of, *found = self.near(self._prepared(queries), threshold, where)
        matches, counts = self.matches(*found), np.bincount(of, minlength=len(queries)).tolist()
        ends = np.cumsum(counts).tolist()
        return [matches[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def near_duplicates(
        self, threshold: float = 0.95, where: Filter | None = None, shown: bool = False
    ) -> list[list[Match]]:
        """Return groups of near-duplicates, the largest first: each row has a score of `threshold` or better (metric
        l2: at most this distance) to another one of its group.

        A score is that to the nearest of the others. shown: with a progress bar. Each row is searched for, so in a flat
        index the time grows with the square of the rows. Raises a ValueError for a threshold that is no such score.
        """
        check_threshold(threshold, self.metric)
        starts = np.cumsum([0, *(len(segment.rows) for segment in self.segments)])
        worst = np.inf if self.metric == "l2" else -np.inf
        nearest, ends = np.full(starts[-1], worst, np.float32), [np.empty((2, 0), np.int64)]
        better = np.minimum if self.metric == "l2" else np.maximum
        with progress.bar(len(self), "comparing", "row", shown=shown) as bar:
            for start, segment in zip(starts, self.segments, strict=False):
                mask = segment.matching(where)
                rows = np.arange(len(segment.rows)) if mask is None else np.flatnonzero(mask)
                for some in np.array_split(rows, -(-len(rows) // BLOCK)) if len(rows) else ():
                    of, _, segments, found, scores = self.near(segment.vectors(some), threshold, where)
                    one, other = start + some[of], starts[segments] + found
                    differ = one != other
                    better.at(nearest, one[differ], scores[differ])
                    ends.append(np.stack((one[differ], other[differ])))
                    bar.update(len(some))
        groups = [self._at(some, starts, nearest) for some in connected(np.concatenate(ends, 1), len(nearest))]
        return sorted(groups, key=lambda group: (-len(group), group[0].id))

    def _at(self, rows: np.ndarray, starts: np.ndarray, scores: np.ndarray) -> list[Match]:
        """Return matches of rows counted through all segments. starts: first row of each. scores: of all rows."""
        segments = np.searchsorted(starts, rows, side="right") - 1
        own, ids = rows - starts[segments], np.empty(len(rows), np.int64)
        for number, segment in enumerate(self.segments):
            ids[segments == number] = segment.rows.ids[own[segments == number]]
        return self.matches(ids, segments, own, scores[rows])

    def near(
        self, queries: np.ndarray, threshold: float, where: Filter | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return numbers of queries, in order, and ids, segments, rows and scores of the rows so near to each.

        queries: as `_prepared` or `vectors` returns them.
        """
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
        """Return the encoder that read the images of the index.

        model: its path now, if it was moved. Raises a ValueError where it is another by now, or the rows were given as
        features.
        """
        from .reader import open_encoder_of

        if self.encoder_record is None:
            raise ValueError(f"{self!r} holds numbers that no model read: search with features")
        opened = open_encoder_of(self.encoder_record, device, model)
        self._checked = weakref.ref(opened)
        return opened

    def read(self, images: Any, encoder: Encoder, batch_size: int = 64, on_error: OnError = "raise") -> np.ndarray:
        """Return queries (m, F) of PIL images, paths or arrays, as `Encoder.features` takes them, with these arguments.

        Raises a ValueError that names both for another encoder than that of the index. An encoder is checked once,
        because the check reads all its weights.
        """
        self._check(encoder)
        return encoder.features(images, batch_size, on_error)[0]

    def read_texts(self, texts: Sequence[str], encoder: Encoder) -> np.ndarray:
        """Return queries (n, F) of texts. The encoder is checked as in `read`; it is a text-image model of open_clip.

        Raises a ValueError for an encoder that reads no texts, and for a whitened index: what it has learned of
        pictures does not hold for texts, whose embeddings lie beside those of pictures.
        """
        if self.whitening is not None:
            raise ValueError(f"{self!r} is whitened for pictures, not for texts: build it without whitening")
        self._check(encoder)
        return encoder.encode_texts(texts)

    def _check(self, encoder: Encoder) -> None:
        from .reader import check

        if self._checked is None or self._checked() is not encoder:
            check(self.encoder_record, encoder)
            self._checked = weakref.ref(encoder)

    def places(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the segment, and of the row in it, of each id. Raises a ValueError for one not there."""
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
        """Return matches with paths and labels; all arguments are (n,)."""
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
        gc.disable()  # the collector would go through the new tuples again and again: a million take 0.6 s, or 1.6 s
        try:
            return [*map(Match._make, zip(*fields, strict=True))]
        finally:
            if collecting:
                gc.enable()

    def _prepared(self, queries: np.ndarray) -> np.ndarray:
        queries = checked(queries)
        if queries.shape[1] != self.width:
            raise ValueError(f"the index holds features of {self.width} numbers, the query has {queries.shape[1]}")
        return Vectors([queries], self.dim, self.metric, self.whitening).take(0, len(queries))
