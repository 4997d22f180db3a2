"""The index as users see it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import progress
from ..rows import first_twice
from . import building, kinds
from .directory import FORMAT, Directory, Skipped
from .results import Filter, Match
from .rows import SCHEMA
from .segment import Segment

if TYPE_CHECKING:
    from ..encoders import Encoder

_match = tuple.__new__  # what Match._make does, in a third of the time
BLOCK = 1024  # rows that are searched for together
UNFOLDED = 0.2  # a share of rows that are compared one by one beside a quicker part, from which it is worth the while


class Index:
    """Nearest neighbours among rows of float32, each with an id, a path and a label.

    In memory, or in a directory, which other processes can read while it is written; an opened index shows what it was
    when it was opened or last written by it. Removed rows are crossed out, added ones lie in segments of their own;
    `compact` makes one of all. Ids count from 0 and are never used twice.
    """

    meta: dict[str, Any]  # as in the manifest, see `directory`
    segments: list[Segment]
    _directory: Directory | None

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
        metric: `cosine`, `dot` or `l2`.
        """
        features = _checked(features)
        self._begin(None, kind, metric, features.shape[1], None)
        self._fill([features], table_of(names, labels, len(features)), None)

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
        shown: bool = False,
    ) -> Index:
        """An index in a new directory. Arguments as of `Index`; besides, features: also several arrays, one after the
        other, which may be mapped and larger than the memory. memory: bytes that the index may take, by default half of
        the machine's; what is larger is compressed and cut into segments. reading: see `reading`. shown: whether with a
        progress bar.
        """
        parts = [_checked(part) for part in ([features] if isinstance(features, np.ndarray) else features)]
        if len({part.shape[1] for part in parts}) != 1:
            raise ValueError("features must be arrays of as many columns each, and one at least")
        index = cls.__new__(cls)
        index._begin(directory, kind, metric, parts[0].shape[1], reading)
        with index._building():
            index._fill(parts, table_of(names, labels, sum(map(len, parts))), memory, shown)
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
        """Writes all of it to a directory; another index that was there is replaced as a whole."""
        target = Directory(Path(directory))
        if self.directory is not None and self.directory.resolve() == target.path.resolve():
            return  # where it lies already
        with target.alone():
            written = [target.write(Segment(each.index, each.rows, each.removed)) for each in self.segments]
            skipped = target.write_skipped(self.skipped) if self.skipped else None
            target.commit(self.meta | {"skipped": skipped}, written)

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

    @property
    def skipped(self) -> list[Skipped]:
        """Path, reason, size and time of change of each image that could not be read."""
        return [] if self._directory is None else self._directory.read_skipped(self.meta)

    def stats(self) -> dict[str, Any]:
        """What there is, as JSON."""
        names = {} if self._directory is None else self._directory.names(self.meta)
        return {
            "rows": len(self),
            "removed": sum(len(segment.removed) for segment in self.segments),
            **{name: self.meta[name] for name in ("kind", "reason", "metric", "dimension")},
            "labels": len(self.labels()),
            "model": self.reading and self.reading["model"],
            "spec": self.reading and self.reading["spec"],
            "skipped": self.meta["skipped"]["images"] if self.meta["skipped"] else 0,
            "bytes": sum((self.directory / name).stat().st_size for name in names) if self.directory else None,
            "segments": [
                {
                    "kind": kinds.kind_of(segment.index),
                    "rows": len(segment.rows),
                    "removed": len(segment.removed),
                    "effort": kinds.effort(segment.index),
                }
                for segment in self.segments
            ],
        }

    def verify(self) -> None:
        """Reads all of it; a ValueError names the first thing that is not as it was written, or cannot be."""
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
        segments, rows = self._places(ids)
        return self._matches(np.asarray(ids, np.int64), segments, rows, np.full(len(rows), np.nan))

    def ids(self, where: Filter | None = None) -> list[int]:
        """The ids of all rows, or of those that are asked for."""
        found: list[int] = []
        for segment in self.segments:
            mask = segment.asked(where)
            found += (segment.rows.ids if mask is None else segment.rows.ids[mask]).tolist()
        return found

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
        vectors = np.empty((len(ids), self.dim), np.float32)
        for part, which in self.parts(ids):
            vectors[which] = part[:]
        return vectors

    def parts(self, ids: Sequence[int]) -> Iterator[tuple[building.Part, np.ndarray]]:
        """The same in parts, bit for bit as they lie there, and which of the ids each is of."""
        segments, rows = self._places(ids)
        for number, segment in enumerate(self.segments):
            if len(here := np.flatnonzero(segments == number)):
                yield building.Left(segment, rows[here]), here

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

    def nearest(
        self, queries: np.ndarray, k: int = 10, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, in arrays: ids, int64, and scores, float32, each (m, up to k)."""
        return self._nearest(queries, k, where, effort)[:2]

    def _nearest(
        self, queries: np.ndarray, k: int, where: Filter | None = None, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Ids, scores, numbers of segments and rows, each (m, up to k), best first."""
        queries = self._prepared(queries)
        for name, value in (("k", k), ("effort", 1 if effort is None else effort)):
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value}")
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
            return self.segments[0].rows.ids[row], score, place, row
        ids = np.empty_like(row)
        for number, segment in enumerate(self.segments):
            here = place == number
            ids[here] = segment.rows.ids[row[here]]
        return ids, score, place, row

    def similar(self, ids: Sequence[int], k: int = 10, where: Filter | None = None) -> list[list[Match]]:
        """As `search` for rows of the index itself, each without itself."""
        found = self.search(self.vectors(ids), k + 1, where)
        return [[match for match in one if match.id != id_][:k] for id_, one in zip(ids, found, strict=True)]

    def within(self, queries: np.ndarray, threshold: float, where: Filter | None = None) -> list[list[Match]]:
        """For each of the queries (m, F) all rows that are at least so similar (for the metric l2: at most so far),
        best first. An ivf or hnsw index may miss some.
        """
        of, *found = self._within(queries, threshold, where)
        matches, counts = self._matches(*found), np.bincount(of, minlength=len(queries)).tolist()
        ends = np.cumsum(counts).tolist()
        return [matches[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def near_duplicates(
        self, threshold: float = 0.95, where: Filter | None = None, shown: bool = False
    ) -> list[list[Match]]:
        """Groups of rows of which each is at least so similar (for the metric l2: at most so far) to another one of its
        group; the largest first. A score is that to the nearest of the others. shown: whether with a progress bar.

        Each row is searched for, so in a flat index it takes a time that grows with the square of the rows.
        """
        starts = np.cumsum([0, *(len(segment.rows) for segment in self.segments)])
        worst = np.inf if self.metric == "l2" else -np.inf
        nearest, ends = np.full(starts[-1], worst, np.float32), []
        better = np.minimum if self.metric == "l2" else np.maximum
        with progress.bar(len(self), "comparing", "row", shown=shown) as bar:
            for start, segment in zip(starts, self.segments, strict=False):
                mask = segment.asked(where)
                rows = np.arange(len(segment.rows)) if mask is None else np.flatnonzero(mask)
                for some in np.array_split(rows, -(-len(rows) // BLOCK)) if len(rows) else ():
                    of, _, segments, found, scores = self._within(segment.vectors(some), threshold, where)
                    one, other = start + some[of], starts[segments] + found
                    differ = one != other
                    better.at(nearest, one[differ], scores[differ])
                    ends.append(np.stack((one[differ], other[differ])))
                    bar.update(len(some))
        return self._groups(np.concatenate([np.empty((2, 0), np.int64), *ends], 1), nearest, starts)

    def _groups(self, ends: np.ndarray, nearest: np.ndarray, starts: np.ndarray) -> list[list[Match]]:
        """The connected components of pairs of rows (2, n), which are counted through all segments."""
        edges = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(len(nearest), len(nearest)))
        _, component = connected_components(edges, directed=False)
        members = np.unique(ends)
        members = members[np.argsort(component[members], kind="stable")]
        segments = np.searchsorted(starts, members, side="right") - 1
        rows = members - starts[segments]
        ids = np.empty(len(rows), np.int64)
        for number, segment in enumerate(self.segments):
            ids[segments == number] = segment.rows.ids[rows[segments == number]]
        matches = self._matches(ids, segments, rows, nearest[members])
        cuts = np.flatnonzero(np.diff(component[members])) + 1
        groups = [matches[a:b] for a, b in zip([0, *cuts], [*cuts, len(matches)], strict=True) if a < b]
        return sorted(groups, key=lambda group: (-len(group), group[0].id))

    def _within(
        self, queries: np.ndarray, threshold: float, where: Filter | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of queries, in order, and ids, segments, rows and scores of what is so near to each."""
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
        features = self._own(features)
        table = table_of(names, labels, len(features))
        with self._writing():
            there = [
                name for name, id_ in zip(table["path"].to_pylist(), self.find(names), strict=True) if id_ is not None
            ]
            if there:
                raise ValueError(f"{there[0]} is in the index already: use update to replace it")
            return self._change([features], table)

    def update(
        self, features: np.ndarray, names: Sequence[str | Path], labels: Sequence[str | int | None] | None = None
    ) -> list[int]:
        """Gives these names these features and labels, in the place of what was there; new names are added. Returns
        their ids; what was there keeps its own.
        """
        features = self._own(features)
        table = table_of(names, labels, len(features))
        with self._writing():
            return self._change([features], table)

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
            self._commit(self._without(ids := sorted(set(ids))))
            return len(ids)

    def wants_compaction(self) -> bool:
        """Whether searching would be much quicker after `compact`."""
        beside = sum(len(segment.rows) for segment in self.segments if kinds.kind_of(segment.index) != self.kind)
        choice = kinds.choose(self.meta["asked"], len(self), self.dim, self.meta["memory"])
        return choice.kind != self.kind or beside > UNFOLDED * len(self)

    def compact(self, memory: int | None = None, shown: bool = False) -> bool:
        """Makes one segment of all, of the kind that was asked for, without the removed rows; several where they are
        too large for `memory`. Ids stay. Returns whether there was anything to do.
        """
        with self._writing():
            memory = self.meta["memory"] if memory is None else memory
            choice = kinds.choose(self.meta["asked"], len(self), self.dim, memory)
            folded = len(self.segments) < 2 and not any(len(segment.removed) for segment in self.segments)
            if folded and all(kinds.kind_of(segment.index) == choice.kind for segment in self.segments):
                return False
            left = [building.Left(segment) for segment in self.segments]
            tables = pa.concat_tables([SCHEMA.empty_table(), *(part.table() for part in left)])
            self._make(left, tables, choice, memory, shown)
            return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Inside, this process alone changes the index, from its newest state on."""
        if self._directory is None:
            yield
            return
        with self._directory.alone():
            self.refresh()
            yield

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Inside, this process alone makes an index in a directory where there is none."""
        assert self._directory is not None
        with self._directory.alone():
            if self._directory.meta() is not None:
                raise FileExistsError(f"{self.directory} is an index already: add to it, or choose another directory")
            yield

    def _begin(
        self, directory: str | Path | None, kind: str, metric: str, dim: int, reading: Mapping[str, Any] | None
    ) -> None:
        """An index without rows, of which nothing is on disk yet."""
        if metric not in kinds.METRICS:
            raise ValueError(f"metric {metric!r} is none of {', '.join(kinds.METRICS)}")
        if kind not in kinds.KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(kinds.KINDS)}")
        self._directory = None if directory is None else Directory(Path(directory))
        self.segments = []
        self.meta = {
            "format": FORMAT,
            "asked": kind,
            "kind": "flat",
            "reason": "",
            "metric": metric,
            "normalised": metric == "cosine",
            "dimension": dim,
            "reading": None if reading is None else dict(reading),
            "memory": None,
            "skipped": None,
            "next_id": 0,
        }

    def _fill(
        self,
        parts: Sequence[building.Part],
        table: pa.Table,
        memory: int | None,
        shown: bool = False,
        skipped: Sequence[Skipped] = (),
    ) -> None:
        """The first rows, with ids from 0."""
        choice = kinds.choose(self.meta["asked"], len(table), self.dim, memory)
        table = table.set_column(0, SCHEMA.field("id"), pa.array(np.arange(len(table))))
        self.meta |= {"next_id": len(table), "memory": memory}
        self._make(parts, table, choice, memory, shown, skipped)

    def _make(
        self,
        parts: Sequence[building.Part],
        table: pa.Table,
        choice: kinds.Choice,
        memory: int | None,
        shown: bool,
        skipped: Sequence[Skipped] | None = None,
    ) -> None:
        """Replaces all by these rows."""
        vectors = building.Vectors(parts, self.dim, self.metric)
        made = map(self._written, building.segments(vectors, table, choice, memory, shown))
        self._commit([*made], skipped, kind=choice.kind, reason=choice.reason)

    def _change(
        self,
        parts: Sequence[building.Part],
        table: pa.Table,
        gone: Sequence[int] = (),
        skipped: Sequence[Skipped] | None = None,
    ) -> list[int]:
        """Puts rows in, where their path is there already in the place of that row; removes the ids `gone`; from now
        on `skipped` could not be read.

        They become a segment of their own, which takes in flat ones before it that are not much larger: so there are
        never many, and no row is written often.
        """
        there = self.find(table["path"].to_pylist())
        new = iter(range(self.meta["next_id"], self.meta["next_id"] + len(there)))
        ids = [next(new) if id_ is None else id_ for id_ in there]
        segments = self._without([*(id_ for id_ in there if id_ is not None), *gone])
        if len(table):
            tables = [table.set_column(0, SCHEMA.field("id"), pa.array(ids, pa.int64()))]
            parts, count = [*parts], len(table)
            while segments and kinds.is_exact(segments[-1].index) and len(segments[-1]) <= 2 * count:
                taken = building.Left(segments.pop())
                parts, tables, count = [taken, *parts], [taken.table(), *tables], count + len(taken)
            vectors = building.Vectors(parts, self.dim, self.metric)
            segments += building.segments(vectors, pa.concat_tables(tables), kinds.choose("flat", count, self.dim))
        self._commit(segments, skipped, next_id=next(new, self.meta["next_id"] + len(there)))
        return ids

    def _without(self, ids: Sequence[int]) -> list[Segment]:
        """The segments with these ids crossed out."""
        segments, rows = self._places(ids)
        return [segment.without(rows[segments == number]) for number, segment in enumerate(self.segments)]

    def _written(self, segment: Segment) -> Segment:
        return segment if self._directory is None else self._directory.write(segment)

    def _commit(self, segments: Sequence[Segment], skipped: Sequence[Skipped] | None = None, **changes: Any) -> None:
        """Makes the index consist of these segments, on disk where it lies there. skipped: None for those as before."""
        segments = [self._written(segment) for segment in segments if len(segment)]
        self.meta = self.meta | changes
        if self._directory is not None:
            if skipped is not None:
                self.meta["skipped"] = self._directory.write_skipped(skipped) if skipped else None
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
        queries = _checked(queries)
        if queries.shape[1] != self.dim:
            raise ValueError(f"the index holds features of {self.dim} numbers, the query has {queries.shape[1]}")
        return building.Vectors([queries], self.dim, self.metric).take(0, len(queries))

    def _own(self, features: np.ndarray) -> np.ndarray:
        features = _checked(features)
        if features.shape[1] != self.dim:
            raise ValueError(f"the index holds features of {self.dim} numbers, these have {features.shape[1]}")
        building.refuse_infinite(features)
        return features


def table_of(names: Sequence[str | Path], labels: Sequence[str | int | None] | None, count: int) -> pa.Table:
    """Rows of these names, without ids yet."""
    paths = [str(name) for name in names]
    if len(paths) != count:
        raise ValueError(f"{count} features for {len(paths)} names: expected as many")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{count} features for {len(labels)} labels: expected as many")
    if len(set(paths)) < count:
        raise ValueError(f"the name {first_twice(paths)} is there twice: expected a name for each row")
    none, times = pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())
    texts = none if labels is None else [None if label is None else str(label) for label in labels]
    return pa.table([np.zeros(count, np.int64), paths, texts, times, times], schema=SCHEMA)


def _checked(features: np.ndarray) -> np.ndarray:
    rows = np.asarray(features)
    if rows.ndim != 2:
        raise ValueError(f"features must have two dimensions, (n, F), got shape {rows.shape}")
    return rows
