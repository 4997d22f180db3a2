"""From images to an index, and an index brought up to date with a folder.

Reading takes long, so what has been read waits in INDEX/unfinished until the index takes it in, all at once: a part of
some hundred images is two files, features and a table of what they are of. After a kill the same call goes on: an image
is known by its path, size and time of change.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .. import decoding, extract, files, npy, progress
from ..settings import difference
from ..sources import Source, TokenSource
from ..sources.base import printable
from ..sources.folder import FileSource
from ..store import META
from .building import Part
from .directory import UNFINISHED, Skipped
from .index import Index
from .reading import check, reading_of
from .rows import SCHEMA

if TYPE_CHECKING:
    from ..encoders import Encoder
    from ..store import FeatureStore

SETTINGS, FORMAT = "settings.json", "images being read for an index of randfeat, version 1"
UNREAD = pa.schema([*(SCHEMA.field(name) for name in ("path", "size", "mtime_ns")), ("reason", pa.string())])

Key = tuple[str, "int | None", "int | None"]


@dataclass
class Plan:
    """What it takes to bring an index up to date with some images. Numbers are of rows of `table`."""

    table: pa.Table
    new: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    relabelled: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)  # already, and not changed since
    gone: list[tuple[int, str]] = field(default_factory=list)  # ids and paths of rows
    forgotten: set[str] = field(default_factory=set)  # images that could not be read, and are not there any more

    @property
    def to_read(self) -> list[int]:
        return sorted([*self.new, *self.changed])

    @property
    def unchanged(self) -> int:
        others = (self.new, self.changed, self.relabelled, self.unreadable)
        return len(self.table) - sum(map(len, others))

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.relabelled or self.gone or self.forgotten)


@dataclass(frozen=True)
class Changes:
    """What was done to an index: numbers of images. skipped: path and reason of those that could not be read now."""

    added: int
    changed: int
    relabelled: int
    removed: int
    unchanged: int
    skipped: list[tuple[str, str]]


def build(
    directory: str | Path,
    encoder: Encoder,
    source: Source | TokenSource,
    *,
    kind: str = "auto",
    metric: str = "cosine",
    batch_size: int = 64,
    workers: int | None = None,
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """An index of all images of `source` in a new directory. Those that cannot be read are listed, see `Index.skipped`.

    kind, metric, memory: see `Index.build`. batch_size, workers: see `extract`. shown: whether with progress bars.
    A ValueError where no image can be read, or an earlier call that was stopped read otherwise.
    """
    index = Index.__new__(Index)
    index._begin(directory, kind, metric, 0, reading_of(encoder))
    with index._building():
        table = listed(source)
        read = _Reading(index, encoder, source, batch_size, workers)
        parts, rows, skipped = read(table, range(len(table)), shown)
        if not parts:
            read.clear()
            raise ValueError(
                f"none of the {len(table):,} images of {source.name} could be read: "
                f"{extract.reasons([(path, reason) for path, reason, *_ in skipped])}"
            )
        index.meta["dimension"] = read.dim
        index._fill(parts, rows, memory, shown, skipped)
        read.clear()
    return index


def build_from_store(
    directory: str | Path,
    store: FeatureStore,
    spec: str | None = None,
    *,
    kind: str = "auto",
    metric: str = "cosine",
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """An index of features that `randfeat extract` has read. spec: which, where there are several."""
    features = store.as_numpy(spec)
    if features.ndim != 2:
        raise ValueError(f"{store.directory} holds maps, {features.shape[1:]} an image: choose a spec with a pool")
    resolved = store.specs[store.number(spec)]
    reading = {
        "model": store.meta["model"],
        "spec": resolved,
        "encoder": store.meta["encoder"] | {"specs": [resolved]},
    }
    root, classes = Path(store.meta["source"]["name"]), store.classes
    root = root.parent if root.is_file() else root
    known = (store.directory / META).stat().st_mtime_ns

    def found(path: str) -> tuple[str, int | None, int | None]:
        name, size, mtime_ns = _file(os.path.join(root, path))  # noqa: PTH118
        if mtime_ns is None:  # it lies elsewhere, or in an archive
            return path, None, None
        return (name, size, mtime_ns) if mtime_ns <= known else (name, None, None)  # changed since it was read

    rows = []
    for one, label in zip(store.paths, store.table["label"].to_pylist(), strict=True):
        path, size, mtime_ns = found(one)
        rows.append((path, _label(label, classes), size, mtime_ns))
    skipped: list[Skipped] = []
    for one, reason in store.skipped:
        path, size, mtime_ns = found(one)
        skipped.append((path, reason, size, mtime_ns))
    index = Index.__new__(Index)
    index._begin(directory, kind, metric, features.shape[1], reading)
    with index._building():
        index._fill([features], _table(rows), memory, shown, skipped)
    return index


def plan(index: Index, source: Source | TokenSource, drop: bool = True) -> Plan:
    """What has changed since the index was made. drop: whether rows below the folder of `source` that it does not name
    any more are to go; then it must be a folder of image files, or a ValueError says so.
    """
    table, root = listed(source), ""
    if drop:
        if not isinstance(source, FileSource):
            raise ValueError(f"{source.name} is no folder or list of image files: add it instead")
        root = os.path.join(os.path.abspath(source.root), "")  # noqa: PTH100, PTH118
    made = Plan(table)
    known: dict[str, tuple[int, int | None, int | None, str | None]] = {}
    for segment in index.segments:
        rows = segment.left()
        columns = (segment.rows.take(name, rows) for name in ("path", "id", "size", "mtime_ns", "label"))
        known.update((path, more) for path, *more in zip(*columns, strict=True))  # type: ignore[misc]
    unreadable = {path: (size, mtime_ns) for path, _, size, mtime_ns in index.skipped}
    for number, row in enumerate(_keys(table)):
        path, *now = row
        if path in known:
            _, *before, label = known.pop(path)
            if before != now or not isinstance(before[0], int):
                made.changed.append(number)
            elif label != table["label"][number].as_py():
                made.relabelled.append(number)
        elif path in unreadable and unreadable.pop(path) == tuple(now) and now[0] is not None:
            made.unreadable.append(number)
        else:
            made.new.append(number)
    if drop:
        made.gone = [(of[0], path) for path, of in known.items() if path.startswith(root)]
        made.forgotten = {path for path in unreadable if path.startswith(root)}
    return made


def sync(
    index: Index,
    source: Source | TokenSource,
    encoder: Encoder | None = None,
    *,
    drop: bool = True,
    batch_size: int = 64,
    workers: int | None = None,
    shown: bool = False,
) -> Changes:
    """Brings an index up to date with the images of `source`: reads those that are new or have another size or time of
    change, takes over labels, and, with `drop`, removes those that are gone from the folder. All at once.

    encoder: is not needed where nothing is to be read.
    """
    if index.directory is None:
        raise ValueError("an index in memory is kept in step with nothing: save it first, and open it from there")
    with index._writing():
        todo, rows = plan(index, source, drop), SCHEMA.empty_table()
        parts: list[Part] = []
        skipped: list[Skipped] = []
        if todo.to_read:
            if encoder is None:
                raise ValueError(f"{len(todo.to_read):,} images are to be read: give the encoder of the index")
            check(index.reading, encoder)
            read = _Reading(index, encoder, source, batch_size, workers)
            parts, rows, skipped = read(todo.table, todo.to_read, shown)
        if todo.relabelled:
            again = todo.table.take(todo.relabelled)
            for part, which in index.parts([id_ for id_ in index.find(again["path"].to_pylist()) if id_ is not None]):
                parts, rows = [*parts, part], pa.concat_tables([rows, again.take(which)])
        lost = {path for path, *_ in skipped}  # changed into what cannot be read: its row goes
        lost_ids = [id_ for id_ in index.find(sorted(lost)) if id_ is not None]
        gone = [id_ for id_, _ in todo.gone] + lost_ids
        if todo or skipped:
            read_now = {*rows["path"].to_pylist()}
            old = [one for one in index.skipped if one[0] not in todo.forgotten | lost | read_now]
            index._change(parts, rows, gone, [*old, *skipped])
        if todo.to_read:
            read.clear()
    of_new = {todo.table["path"][number].as_py() for number in todo.new}
    return Changes(
        len(of_new - lost),
        len(todo.changed) - len(lost - of_new),
        len(todo.relabelled),
        len(gone),
        todo.unchanged,
        [(path, reason) for path, reason, *_ in skipped],
    )


def listed(source: Source | TokenSource) -> pa.Table:
    """The rows of a source as an index has them, with ids 0: absolute paths, names of labels, and sizes and times of
    change of files.
    """
    labels = [_label(label, source.classes) for label in source.labels or [None] * len(source)]
    if isinstance(source, FileSource):
        files_ = (_file(os.path.join(source.root, file)) for file in source.files)  # noqa: PTH118
    else:
        files_ = ((path, size, None) for path, size in zip(source.paths, source.sizes(), strict=True))
    return _table([(path, label, size, mtime) for (path, size, mtime), label in zip(files_, labels, strict=True)])


class _Reading:
    """Reads images of a source into INDEX/unfinished."""

    def __init__(
        self, index: Index, encoder: Encoder, source: Source | TokenSource, batch_size: int, workers: int | None
    ) -> None:
        assert index.directory is not None
        self.source, self.batch_size = source, batch_size
        self.workers = decoding.default_workers() if workers is None else workers
        self.reader, self.encode = extract.reader_and_encode(encoder, source)
        shape = self.encode(torch.from_numpy(np.stack([self.reader.blank()])))[0].shape[1:]
        if len(shape) != 1:
            raise ValueError(f"{encoder.specs[0]} gives a map {shape} of each image: choose a spec with a pool")
        self.dim, self.most = shape[0], extract.default_shard([shape])
        self.folder = index.directory / UNFINISHED
        settings = {"format": FORMAT, **reading_of(encoder)}
        before = files.read_json(self.folder / SETTINGS, FORMAT)
        if before and (other := difference(before, settings, ("model",))):
            raise ValueError(f"{self.folder} holds features with {other}: go on with the same settings, or delete it")
        self.folder.mkdir(exist_ok=True)
        files.write_json(self.folder / SETTINGS, settings)

    def __call__(
        self, table: pa.Table, numbers: Sequence[int], shown: bool
    ) -> tuple[list[Part], pa.Table, list[Skipped]]:
        """Reads these rows of `listed`; returns features, the rows they are of, and what could not be read."""
        wanted = dict(zip(_keys(table.take(pa.array(numbers, pa.int64()))), numbers, strict=True))
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
        with (
            closing(decoding.batches(self.reader, batches, self.workers)) as following,
            progress.bar(len(numbers), what, "image", done=done, shown=shown) as bar,
        ):
            for start in range(0, len(batches), each):
                read = self._read(batches[start : start + each], following, bar.update)
                self._take(self._write(name + start // each, table, *read), wanted, table, parts, tables, skipped)
        return parts, pa.concat_tables(tables), skipped

    def clear(self) -> None:
        """The index has it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _there(self) -> list[Path]:
        """What a call that was stopped has left; a table is written last."""
        return sorted(self.folder.glob("*.parquet"))

    def _take(
        self,
        path: Path,
        wanted: dict[Key, int],
        table: pa.Table,
        parts: list[Part],
        tables: list[pa.Table],
        skipped: list[Skipped],
    ) -> None:
        """Moves what a part has of what is wanted to the results."""
        there = pq.read_table(path, schema=UNREAD)
        reasons, rows, numbers = there["reason"].to_pylist(), [], []
        read = 0
        for key, reason in zip(_keys(there), reasons, strict=True):
            number = wanted.pop(key, None)
            if number is not None and reason is None:
                rows.append(read)
                numbers.append(number)
            elif number is not None:
                skipped.append((key[0], reason, *key[1:]))
            read += reason is None
        if rows:
            parts.append(_Part(path.with_suffix(".npy"), np.array(rows)))
            tables.append(table.take(pa.array(numbers)))

    def _read(
        self, numbers: Sequence[Sequence[int]], batches: Iterator[decoding.Batch], done: Callable[[int], Any]
    ) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
        """Features of the images that could be read, their numbers, and the numbers and reasons of the others."""
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
        """A part; returns the path of its table, which is written last."""
        rows = table.take(pa.array(read + [one for one, _ in unread], pa.int64())).select(UNREAD.names[:-1])
        reasons = pa.array([None] * len(read) + [reason for _, reason in unread], pa.string())
        path = self.folder / f"{number:06}.parquet"
        npy.write(path.with_suffix(".npy"), features.shape, "<f4", [features])
        with files.writing(path) as file:
            pq.write_table(rows.append_column(UNREAD.field("reason"), reasons), file)
        return path


class _Part:
    """Rows of an array on disk. It is open only while it is looked at: of a million images there are thousands."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self.path, self.rows = path, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[self.rows[rows]]


def _file(path: str) -> tuple[str, int | None, int | None]:
    """The absolute path of a file, its size and its time of change; None for both where there is none."""
    path = os.path.abspath(path)  # noqa: PTH100  a million times
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return printable(path), None, None
    return printable(path), found.st_size, found.st_mtime_ns


def _label(label: int | None, classes: Sequence[str] | None) -> str | None:
    return None if label is None else str(label) if classes is None else classes[label]


def _table(rows: Sequence[tuple[str, str | None, int | None, int | None]]) -> pa.Table:
    columns = [*zip(*rows, strict=True)] or [(), (), (), ()]
    return pa.table([[0] * len(rows), *map(list, columns)], schema=SCHEMA)


def _keys(table: pa.Table) -> Iterator[Key]:
    """What an image is known by."""
    return zip(*(table[name].to_pylist() for name in UNREAD.names[:-1]), strict=True)
