"""Index of features: building and changes. Searches are in `snapshot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..data.labels import as_text
from ..data.store import first_twice
from ..utils.checks import check_whole_number, is_whole_number
from . import faiss_index
from .directory import FORMAT, Directory, Skipped
from .rows import SCHEMA
from .segment import Segment
from .snapshot import Snapshot
from .vectors import LiveRows, Part, Vectors, Whitening, checked, make_segments, refuse_infinite, whitening_sample_size

UNCOMPACTED = 0.2  # share of rows in segments of another type, from which compaction makes searches much faster


class Index(Snapshot):
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
        index_type: str = "flat",
        metric: str = "cosine",
        whiten: int | None = None,
    ) -> None:
        """Make an index in memory.

        features: (n, F) finite numbers. names: n different strings, paths for instance. labels: a name, a number or
        None for each. index_type: `flat` is exact, `ivf` and `hnsw` are faster and find nearly all; `auto` chooses by
        size. metric: `cosine`, `dot` or `l2`. whiten: number of principal components to keep, each with variance 1
        among these features; rows that are added and queries are whitened in the same way. None compares features as
        they are.
        """
        features = checked(features)
        super().__init__(new_meta(index_type, metric, features.shape[1], None, whiten))
        if len(features) or len(names) or whiten is not None:  # a table makes pyarrow import pandas, for 0.3 s
            self._fill([features], table_of(names, labels, len(features)), None)

    @classmethod
    def build(
        cls,
        directory: str | Path,
        features: np.ndarray | Sequence[np.ndarray],
        names: Sequence[str | Path],
        labels: Sequence[str | int | None] | None = None,
        *,
        index_type: str = "auto",
        metric: str = "cosine",
        whiten: int | None = None,
        memory: int | None = None,
        encoder_record: Mapping[str, Any] | None = None,
        shown: bool = False,
    ) -> Index:
        """Build an index in a new directory.

        Arguments as of `Index`, and features: also several arrays, one after the other, which may be mapped and larger
        than the memory. memory: bytes that the index may take, by default half of the machine's; a larger one is
        compressed and cut into segments. encoder_record: see the property. shown: with a progress bar.
        """
        parts = [checked(part) for part in ([features] if isinstance(features, np.ndarray) else features)]
        if len({part.shape[1] for part in parts}) != 1:
            raise ValueError("features must be arrays of as many columns each, and one at least")
        index = cls.begin(directory, index_type, metric, parts[0].shape[1], encoder_record, whiten)
        with index._creating():
            index._fill(parts, table_of(names, labels, sum(map(len, parts))), memory, shown)
        return index

    @classmethod
    def open(cls, directory: str | Path) -> Index:
        """Open an index on disk. It is mapped: only the parts that are used are read."""
        place = Directory(Path(directory))
        meta, segments, skipped, whitening = place.read()
        index = cls._empty()
        Snapshot.__init__(index, meta, place, segments, skipped, whitening)
        return index

    @classmethod
    def begin(
        cls,
        directory: str | Path,
        index_type: str,
        metric: str,
        dim: int,
        encoder_record: Mapping[str, Any] | None,
        whiten: int | None,
    ) -> Index:
        """Return an index without rows, of which nothing is on disk yet; see `build`."""
        index = cls._empty()
        meta = new_meta(index_type, metric, dim, encoder_record, whiten)
        Snapshot.__init__(index, meta, Directory(Path(directory)))
        return index

    @classmethod
    def _empty(cls) -> Index:
        return cls(np.empty((0, 1), np.float32), ())

    def refresh(self) -> bool:
        """Read what another process has written since; return whether there was anything."""
        if self._directory is None or self._directory.meta() == self.meta:
            return False
        self.meta, self.segments, self.skipped, self.whitening = self._directory.read()
        return True

    def save(self, directory: str | Path) -> None:
        """Write the index to a directory; another index that was there is replaced as a whole."""
        target = Directory(Path(directory))
        if self.directory is not None and self.directory.resolve() == target.path.resolve():
            return  # where it lies already
        with target.exclusive():
            written = [target.write(Segment(each.index, each.rows, each.removed)) for each in self.segments]
            skipped = target.write_skipped(self.skipped) if self.skipped else None
            whitening = target.write_whitening(self.whitening) if self.whitening else None
            target.commit(self.meta | {"skipped": skipped, "whitening": whitening}, written)

    def add(
        self, features: np.ndarray, names: Sequence[str | Path], labels: Sequence[str | int | None] | None = None
    ) -> list[int]:
        """Add rows under new names; return their ids. Raises a ValueError for a name that is there: see `update`."""
        features = self._own(features)
        table = table_of(names, labels, len(features))
        with self._writing():
            there = [name for name, id_ in zip(names, self.find(names), strict=True) if id_ is not None]
            if there:
                raise ValueError(f"{there[0]} is in the index already: use update to replace it")
            return self._change([features], table)

    def update(
        self, features: np.ndarray, names: Sequence[str | Path], labels: Sequence[str | int | None] | None = None
    ) -> list[int]:
        """Replace the features and labels of these names; new names are added. Returns the ids of all, those of old
        names unchanged.
        """
        features = self._own(features)
        table = table_of(names, labels, len(features))
        with self._writing():
            return self._change([features], table)

    def remove(self, which: Sequence[int | str | Path]) -> int:
        """Remove rows by id or by path; return how many. Raises a ValueError for one that is not there, and then
        removes nothing.
        """
        which = list(which)
        with self._writing():
            paths = [one for one in which if isinstance(one, (str, Path))]
            ids = [one for one in which if not isinstance(one, (str, Path))]
            for one in ids:
                check_whole_number("the id of a row", one, 0)
            for path, id_ in zip(paths, self.find(paths), strict=True):
                if id_ is None:
                    raise ValueError(f"the index holds no {path}")
                ids.append(id_)
            self._commit(self._without(ids := sorted(set(ids))))
            return len(ids)

    def wants_compaction(self) -> bool:
        """Return whether searches would be much faster after `compact`."""
        beside = sum(
            len(segment.rows) for segment in self.segments if faiss_index.type_of(segment.index) != self.index_type
        )
        choice = faiss_index.choose(self.meta["asked"], len(self), self.dim, self.meta["memory"])
        return choice.index_type != self.index_type or beside > UNCOMPACTED * len(self)

    def compact(self, memory: int | None = None, shown: bool = False) -> bool:
        """Make one segment of all rows, of the type that was asked for, without the removed ones; several where they
        are too large for `memory`. Ids stay. Returns whether there was anything to do.
        """
        with self._writing():
            memory = self.meta["memory"] if memory is None else memory
            choice = faiss_index.choose(self.meta["asked"], len(self), self.dim, memory)
            compact = len(self.segments) < 2 and not any(len(segment.removed) for segment in self.segments)
            if compact and all(faiss_index.type_of(segment.index) == choice.index_type for segment in self.segments):
                return False
            live = [LiveRows(self._undamaged(segment)) for segment in self.segments]
            tables = pa.concat_tables([SCHEMA.empty_table(), *(part.table() for part in live)])
            self._make(live, tables, choice, memory, shown)
            return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out, and begin with the newest state."""
        if self._directory is None:
            yield
            return
        with self._directory.exclusive():
            self.refresh()
            yield

    @contextmanager
    def _creating(self) -> Iterator[None]:
        """Keep other writers out of a directory where there is no index yet."""
        assert self._directory is not None
        with self._directory.exclusive():
            if self._directory.meta() is not None:
                raise FileExistsError(f"{self.directory} is an index already: add to it, or choose another directory")
            yield

    def _fill(
        self,
        parts: Sequence[Part],
        table: pa.Table,
        memory: int | None,
        shown: bool = False,
        skipped: Sequence[Skipped] = (),
    ) -> None:
        """Add the first rows, with ids from 0, and learn the whitening from them."""
        if (asked := self.meta["whiten"]) is not None:
            raw = Vectors(parts, self.dim, "l2")
            self.whitening = Whitening.fit(raw.sample(whitening_sample_size(self.dim)), asked)
            entry = None if self._directory is None else self._directory.write_whitening(self.whitening)
            self.meta |= {"dimension": self.whitening.directions.shape[1], "whitening": entry}
        choice = faiss_index.choose(self.meta["asked"], len(table), self.dim, memory)
        table = table.set_column(0, SCHEMA.field("id"), pa.array(np.arange(len(table))))
        self.meta |= {"next_id": len(table), "memory": memory}
        self._make(parts, table, choice, memory, shown, skipped)

    def _make(
        self,
        parts: Sequence[Part],
        table: pa.Table,
        choice: faiss_index.Choice,
        memory: int | None,
        shown: bool,
        skipped: Sequence[Skipped] | None = None,
    ) -> None:
        """Replace all rows by these."""
        vectors = Vectors(parts, self.dim, self.metric, self.whitening)
        with closing(make_segments(vectors, table, choice, memory, shown)) as segments:  # its bar ends before an error
            made = [self._written(segment) for segment in segments]
        self._commit(made, skipped, kind=choice.index_type, reason=choice.reason)

    def _change(
        self,
        parts: Sequence[Part],
        table: pa.Table,
        gone: Sequence[int] = (),
        skipped: Sequence[Skipped] | None = None,
        moved: Mapping[str, int] | None = None,
    ) -> list[int]:
        """Add rows, those whose path is there already in place of that row; remove the ids `gone`; replace the list of
        images that could not be read by `skipped`. moved: paths of rows that take the place of an id of another path.

        The rows become a segment of their own, merged with flat ones before it that are not much larger: so there are
        never many segments, and no row is written often.
        """
        paths, moved = table["path"].to_pylist(), moved or {}
        there = [moved.get(path, id_) for path, id_ in zip(paths, self.find(paths), strict=True)]
        new = iter(range(self.meta["next_id"], self.meta["next_id"] + len(there)))
        ids = [next(new) if id_ is None else id_ for id_ in there]
        segments = self._without([*(id_ for id_ in there if id_ is not None), *gone])
        if len(table):
            tables = [table.set_column(0, SCHEMA.field("id"), pa.array(ids, pa.int64()))]
            parts, count = [*parts], len(table)
            while segments and faiss_index.is_exact(segments[-1].index) and len(segments[-1]) <= 2 * count:
                taken = LiveRows(self._undamaged(segments.pop()))
                parts, tables, count = [taken, *parts], [taken.table(), *tables], count + len(taken)
            vectors = Vectors(parts, self.dim, self.metric, self.whitening)
            segments += make_segments(vectors, pa.concat_tables(tables), faiss_index.choose("flat", count, self.dim))
        self._commit(segments, skipped, next_id=next(new, self.meta["next_id"] + len(there)))
        return ids

    def _without(self, ids: Sequence[int]) -> list[Segment]:
        """Return the segments with these ids removed."""
        segments, rows = self.places(ids)
        return [segment.without(rows[segments == number]) for number, segment in enumerate(self.segments)]

    def _undamaged(self, segment: Segment) -> Segment:
        """Return a segment whose rows are about to be copied into another. Raises a ValueError where it is damaged."""
        return segment if self._directory is None else self._directory.check(segment)

    def _written(self, segment: Segment) -> Segment:
        return segment if self._directory is None else self._directory.write(segment)

    def _commit(self, segments: Sequence[Segment], skipped: Sequence[Skipped] | None = None, **changes: Any) -> None:
        """Make the index consist of these segments, on disk if it lies there. skipped: None leaves it as it was."""
        segments, meta = [self._written(segment) for segment in segments if len(segment)], self.meta | changes
        skipped = self.skipped if skipped is None else [*skipped]
        if self._directory is not None:
            if skipped != self.skipped:
                meta["skipped"] = self._directory.write_skipped(skipped) if skipped else None
            meta = self._directory.commit(meta, segments)
        self.meta, self.segments, self.skipped = meta, segments, skipped

    def _own(self, features: np.ndarray) -> np.ndarray:
        features = checked(features)
        if features.shape[1] != self.width:
            raise ValueError(f"the index holds features of {self.width} numbers, these have {features.shape[1]}")
        refuse_infinite(features)
        return features


def new_meta(
    index_type: str, metric: str, dim: int, encoder_record: Mapping[str, Any] | None, whiten: int | None
) -> dict[str, Any]:
    """Return the manifest of an index without rows. Raises a ValueError for a type or metric that there is not."""
    if metric not in faiss_index.METRICS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(faiss_index.METRICS)}")
    if index_type not in faiss_index.INDEX_TYPES:
        raise ValueError(f"index_type {index_type!r} is none of {', '.join(faiss_index.INDEX_TYPES)}")
    if whiten is not None and not is_whole_number(whiten, 1):
        raise ValueError(f"a whitened index keeps a whole number of components from 1, got {whiten}")
    return {
        "format": FORMAT,
        "asked": index_type,
        "kind": "flat",
        "reason": "no rows yet",
        "metric": metric,
        "normalised": metric == "cosine",
        "dimension": dim,
        "reading": None if encoder_record is None else dict(encoder_record),
        "memory": None,
        "skipped": None,
        "whiten": whiten,
        "whitening": None,
        "next_id": 0,
    }


def table_of(names: Sequence[str | Path], labels: Sequence[str | int | None] | None, count: int) -> pa.Table:
    """Return the metadata of rows with these names, without ids yet."""
    paths = [str(name) for name in names]
    if len(paths) != count:
        raise ValueError(f"{count} features for {len(paths)} names: expected as many")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{count} features for {len(labels)} labels: expected as many")
    if len(set(paths)) < count:
        raise ValueError(f"the name {first_twice(paths)} is there twice: expected a name for each row")
    none, numbers = pa.nulls(count, pa.string()), pa.nulls(count, pa.int64())
    texts = none if labels is None else [as_text(label) for label in labels]
    return pa.table([np.zeros(count, np.int64), paths, texts, numbers, numbers, none, numbers], schema=SCHEMA)
