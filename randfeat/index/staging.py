"""Staging of images for an index: a plan of what has changed, and features that wait until the index takes them in.

Reading images takes long, so what has been read is kept in INDEX/unfinished: parts of some hundred images, each two
files, features and a table of their images. After a kill the same call resumes: an image is known by its path, size and
times of change; in an index also by the SHA-256 of its file, wherever that lies by now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..data import loader
from ..data.sources import Source, TokenSource, base
from ..data.sources.base import NO_FILE, printable
from ..data.sources.folder import FileSource
from ..features import extract
from ..utils import arrays, atomic, progress
from ..utils.estimates import bytes_in_words, warn_of_full_disk
from ..utils.resume import difference
from .digests import State, digests_of
from .directory import UNFINISHED, Skipped
from .index import Index
from .reader import record_of
from .rows import DIGEST, SCHEMA
from .vectors import Part

if TYPE_CHECKING:
    from ..features.encoder import Encoder

SETTINGS, FORMAT = "settings.json", "images being read for an index of randfeat, version 1"
KEY = ("path", "size", "mtime_ns", "ctime_ns")  # identify an image
NO_ID = -1
UNREAD = pa.schema([*(SCHEMA.field(name) for name in KEY), ("reason", pa.string()), SCHEMA.field(DIGEST)])


@dataclass
class Plan:
    """Changes that bring an index up to date with some images. Numbers are of rows of `table`.

    known: numbers of images whose features the index has under the id given: those with another label, those that were
    touched, and those with the bytes of another row, which may have `moved` from the path given or be a `copied` one.
    """

    table: pa.Table
    new: list[int] = field(default_factory=list)  # to be read
    changed: list[int] = field(default_factory=list)  # to be read again
    relabelled: list[int] = field(default_factory=list)
    moved: dict[int, str] = field(default_factory=dict)
    copied: list[int] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    unreadable: list[int] = field(default_factory=list)  # before, and not changed since
    gone: list[tuple[int, str]] = field(default_factory=list)  # ids and paths of rows
    forgotten: set[str] = field(default_factory=set)  # images that could not be read, and are gone

    @property
    def to_read(self) -> list[int]:
        return sorted([*self.new, *self.changed])

    @property
    def unchanged(self) -> int:
        others = (self.new, self.changed, self.relabelled, self.moved, self.copied, self.unreadable)
        return len(self.table) - sum(map(len, others))

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.known or self.gone or self.forgotten)


def plan(index: Index, source: Source | TokenSource, drop: bool = True) -> Plan:
    """Compare images with those of an index.

    drop: remove rows below the folder of `source` that it does not name any more. Raises a ValueError where that is no
    folder or list of image files.
    """
    table, root = listed(source), ""
    if drop:
        if not isinstance(source, FileSource):
            raise ValueError(f"{source.name} is no folder or list of image files: add it instead")
        root = os.path.join(os.path.abspath(source.root), "")  # noqa: PTH100, PTH118
    made = Plan(table)
    before_all = _rows_of(index)
    known = dict(before_all)
    digests: dict[int, str | None] = {}
    unreadable = {path: _Row(NO_ID, size, mtime, ctime) for path, _, size, mtime, ctime in index.skipped}
    for number, (row, label) in enumerate(zip(keys(table), table["label"].to_pylist(), strict=True)):
        path, *now = row
        if path in known:
            before = known.pop(path)
            if _is_changed(before, *now):
                made.changed.append(number)
            elif label != before.label:
                made.relabelled.append(number)
                made.known[number], digests[number] = before.id, before.digest
        elif path in unreadable and not _is_changed(unreadable.pop(path), *now):
            made.unreadable.append(number)
        else:
            made.new.append(number)
    if drop:
        made.gone = [(of.id, path) for path, of in known.items() if path.startswith(root)]
        made.forgotten = {path for path in unreadable if path.startswith(root)}
    _recognize(made, before_all, digests)
    made.table = with_digests(table, [digests.get(number) for number in range(len(table))])
    return made


class _Row(NamedTuple):
    """Row of an index before a change, or an image that could not be read, which has `NO_ID`."""

    id: int
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None = None
    label: str | None = None
    digest: str | None = None


def _is_changed(before: _Row, size: int | None, mtime_ns: int | None, ctime_ns: int | None) -> bool:
    """Return whether a file has another size or times of change than a row has, as far as the row has them.

    The time of its entry, which other rights set too, counts where the bytes can decide, or nothing could be read.
    """
    if before.size is None or before.size != size:
        return True
    if before.mtime_ns is not None and before.mtime_ns != mtime_ns:
        return True
    counts = before.ctime_ns is not None and (before.digest is not None or before.id == NO_ID)
    return counts and before.ctime_ns != ctime_ns


def _rows_of(index: Index) -> dict[str, _Row]:
    """Return the rows of an index by their paths."""
    found: dict[str, _Row] = {}
    for segment in index.segments:
        rows = segment.live_rows()
        columns = (segment.rows.take(name, rows) for name in ("path", "id", *KEY[1:], "label", DIGEST))
        found.update((path, _Row(*more)) for path, *more in zip(*columns, strict=True))
    return found


def _recognize(made: Plan, before: Mapping[str, _Row], digests: dict[int, str | None]) -> None:
    """Take images that were to be read, and have the bytes of a row, off those: only files of a row's size are opened.

    A new image takes over the id of a row that is gone; digests: of these images, which are added.
    """
    row_of: dict[str, list[int]] = {}
    for row in before.values():
        if row.digest is not None:
            row_of.setdefault(row.digest, []).append(row.id)
    sizes = {row.size for row in before.values() if row.digest is not None}
    states = [*keys(made.table)]
    candidates = [number for number in made.to_read if states[number][1] in sizes]
    found = dict(zip(candidates, digests_of([states[number] for number in candidates]), strict=True))
    gone = {id_: path for id_, path in made.gone}
    for number, digest in found.items():
        if digest is None or digest not in row_of:
            continue
        path, ids, digests[number] = states[number][0], row_of[digest], digest
        own = before.get(path)
        lost = [id_ for id_ in ids if id_ in gone]
        if own is not None and own.digest == digest:  # touched
            made.known[number] = own.id
        elif own is None and lost:
            made.known[number], made.moved[number] = lost[0], gone.pop(lost[0])
        else:
            made.known[number] = ids[0]
            made.copied.append(number)
    made.gone = [(id_, path) for id_, path in made.gone if id_ in gone]
    made.new, made.changed = (
        [number for number in some if number not in made.known] for some in (made.new, made.changed)
    )


def listed(source: Source | TokenSource) -> pa.Table:
    """Return the rows of a source as an index keeps them, with ids 0: absolute paths, names of labels, and sizes and
    times of change of files, or of the files that hold them.
    """
    labels = [label_of(label, source.classes) for label in source.labels or [None] * len(source)]
    if isinstance(source, FileSource):
        files_ = (state_of(os.path.join(source.root, file)) for file in source.files)  # noqa: PTH118
    else:
        states = source.states() or ((size, *NO_FILE[1:]) for size in source.sizes())
        files_ = (
            (path, size, None if mtime < 0 else mtime, None if ctime < 0 else ctime)
            for path, (size, mtime, ctime) in zip(source.paths, states, strict=True)
        )
    return table_of([(path, label, size, m, c) for (path, size, m, c), label in zip(files_, labels, strict=True)])


def state_of(path: str) -> State:
    """Return the absolute path of a file, its size and its times of change; None for these where there is none."""
    path = os.path.abspath(path)  # noqa: PTH100  faster than pathlib, for a million files
    state = base.state_of(path)
    return (printable(path), None, None, None) if state == NO_FILE else (printable(path), *state)


def label_of(label: int | None, classes: Sequence[str] | None) -> str | None:
    """Return a class as an index keeps it: its name, or its number as text."""
    return None if label is None else str(label) if classes is None else classes[label]


def table_of(rows: Sequence[tuple[str, str | None, int | None, int | None, int | None]]) -> pa.Table:
    """Return a table of (path, label, size, mtime_ns, ctime_ns), without ids yet."""
    *columns, ctimes = [*map(list, zip(*rows, strict=True))] or [[] for _ in range(5)]
    return pa.table([[0] * len(rows), *columns, [None] * len(rows), ctimes], schema=SCHEMA)


def with_digests(table: pa.Table, digests: Sequence[str | None]) -> pa.Table:
    """Return a table of rows with the SHA-256 of their files."""
    place = SCHEMA.get_field_index(DIGEST)
    return table.set_column(place, SCHEMA.field(DIGEST), pa.array(digests, pa.string()))


def keys(table: pa.Table) -> Iterator[State]:
    """Yield what identifies each image."""
    return zip(*(table[name].to_pylist() for name in KEY), strict=True)


class ImageReader:
    """Reader of images of a source into INDEX/unfinished."""

    def __init__(
        self, index: Index, encoder: Encoder, source: Source | TokenSource, batch_size: int, workers: int | None
    ) -> None:
        assert index.directory is not None
        self.source, self.batch_size = source, batch_size
        self.workers = loader.default_workers() if workers is None else workers
        self.reader, self.encode = extract.reader_and_encode(encoder, source)
        shape = self.encode(torch.from_numpy(np.stack([self.reader.blank()])))[0].shape[1:]
        if len(shape) != 1:
            raise ValueError(f"{encoder.specs[0]} gives a map {shape} of each image: choose a spec with a pool")
        self.dim, self.most = shape[0], extract.default_shard([shape])
        self.folder = index.directory / UNFINISHED
        settings = {"format": FORMAT, **record_of(encoder)}
        before = atomic.read_json(self.folder / SETTINGS, FORMAT)
        if before and (other := difference(before, settings, ("model",))):
            raise ValueError(f"{self.folder} holds features with {other}: go on with the same settings, or delete it")
        self.folder.mkdir(exist_ok=True)
        atomic.write_json(self.folder / SETTINGS, settings)

    def __call__(
        self, table: pa.Table, numbers: Sequence[int], shown: bool
    ) -> tuple[list[Part], pa.Table, list[Skipped]]:
        """Read these rows of `listed`; return features, their rows, and the images that could not be read."""
        wanted = dict(zip(keys(table.take(pa.array(numbers, pa.int64()))), numbers, strict=True))
        parts: list[Part] = []
        tables, there = [SCHEMA.empty_table()], self._there()
        skipped: list[Skipped] = []
        for path in there:
            self._take(path, wanted, table, parts, tables, skipped)
        left = sorted(wanted.values())
        batches = [left[start : start + self.batch_size] for start in range(0, len(left), self.batch_size)]
        each, done = max(1, self.most // self.batch_size), len(numbers) - len(left)
        name = int(there[-1].stem) + 1 if there else 0
        what = f"images ({done:,} were there)" if done else "images"
        needed = extract.store_bytes(len(left), [(self.dim,)])
        warn_of_full_disk(self.folder.parent, 2 * needed)  # beside the parts of `unfinished`
        room = bytes_in_words(needed)
        with (
            closing(loader.batches(self.reader, batches, self.workers)) as following,
            progress.bar(len(numbers), what, "image", done=done, shown=shown, told=f"; the vectors take {room}") as bar,
        ):
            for start in range(0, len(batches), each):
                read = self._read(batches[start : start + each], following, bar.update)
                self._take(self._write(name + start // each, table, *read), wanted, table, parts, tables, skipped)
        return parts, pa.concat_tables(tables), skipped

    def clear(self) -> None:
        """Delete what was read, when the index has it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _there(self) -> list[Path]:
        """Return the tables of the parts that a call that was stopped has left; a table is written last."""
        return sorted(self.folder.glob("*.parquet"))

    def _take(
        self,
        path: Path,
        wanted: dict[State, int],
        table: pa.Table,
        parts: list[Part],
        tables: list[pa.Table],
        skipped: list[Skipped],
    ) -> None:
        """Add the wanted images of a part to the results."""
        there = pq.read_table(path, schema=UNREAD)
        reasons, rows, numbers, digests = there["reason"].to_pylist(), [], [], []
        read = 0
        for key, reason, digest in zip(keys(there), reasons, there[DIGEST].to_pylist(), strict=True):
            number = wanted.pop(key, None)
            if number is not None and reason is None:
                rows.append(read)
                numbers.append(number)
                digests.append(digest)
            elif number is not None:
                skipped.append((key[0], reason, *key[1:]))
            read += reason is None
        if rows:
            parts.append(_Part(path.with_suffix(".npy"), np.array(rows)))
            tables.append(with_digests(table.take(pa.array(numbers)), digests))

    def _read(
        self, numbers: Sequence[Sequence[int]], batches: Iterator[loader.Batch], done: Callable[[int], Any]
    ) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
        """Return features of the images that could be read, their numbers, and numbers and reasons of the others."""
        features, read, unread = [np.empty((0, self.dim), np.float32)], [], []
        for some in numbers:
            batch = next(batches)
            if batch.arrays is not None:
                encoded = self.encode(*batch.arrays)
                extract.refuse_infinite(encoded, [self.source.paths[number] for number in batch.numbers])
                features += encoded
            read += batch.numbers
            unread += batch.unread
            done(len(some))
        return np.concatenate(features), read, unread

    def _write(
        self, number: int, table: pa.Table, features: np.ndarray, read: list[int], unread: list[tuple[int, str]]
    ) -> Path:
        """Write a part; return the path of its table, which is written last."""
        rows = table.take(pa.array(read + [one for one, _ in unread], pa.int64())).select(KEY)
        reasons = pa.array([None] * len(read) + [reason for _, reason in unread], pa.string())
        digests = pa.array([*digests_of([*keys(rows.slice(0, len(read)))]), *[None] * len(unread)], pa.string())
        path = self.folder / f"{number:06}.parquet"
        arrays.write(path.with_suffix(".npy"), features.shape, "<f4", [features])
        with atomic.open_write(path) as file:
            columns = rows.append_column(UNREAD.field("reason"), reasons).append_column(UNREAD.field(DIGEST), digests)
            pq.write_table(columns, file)
        return path


class _Part:
    """Rows of an array on disk, open only while they are read: a million images are in thousands of files."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self.path, self.rows = path, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[self.rows[rows]]
