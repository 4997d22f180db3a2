"""What it takes to bring an index up to date with some images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ..data.sources import Source, TokenSource
from ..data.sources.base import printable
from ..data.sources.folder import FileSource
from .index import Index
from .rows import SCHEMA

KEY = ("path", "size", "mtime_ns")  # what an image is known by
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
    for number, (row, label) in enumerate(zip(keys(table), table["label"].to_pylist(), strict=True)):
        path, *now = row
        if path in known:
            _, *before, label_before = known.pop(path)
            if before != now or not isinstance(before[0], int):
                made.changed.append(number)
            elif label != label_before:
                made.relabelled.append(number)
        elif path in unreadable and unreadable.pop(path) == tuple(now) and now[0] is not None:
            made.unreadable.append(number)
        else:
            made.new.append(number)
    if drop:
        made.gone = [(of[0], path) for path, of in known.items() if path.startswith(root)]
        made.forgotten = {path for path in unreadable if path.startswith(root)}
    return made


def listed(source: Source | TokenSource) -> pa.Table:
    """Return the rows of a source as an index has them, with ids 0: absolute paths, names of labels, and sizes and
    times of change of files.
    """
    labels = [label_of(label, source.classes) for label in source.labels or [None] * len(source)]
    if isinstance(source, FileSource):
        files_ = (state_of(os.path.join(source.root, file)) for file in source.files)  # noqa: PTH118
    else:
        files_ = ((path, size, None) for path, size in zip(source.paths, source.sizes(), strict=True))
    return table_of([(path, label, size, mtime) for (path, size, mtime), label in zip(files_, labels, strict=True)])


def state_of(path: str) -> tuple[str, int | None, int | None]:
    """Return the absolute path of a file, its size and its time of change; None for both where there is none."""
    path = os.path.abspath(path)  # noqa: PTH100  a million times
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return printable(path), None, None
    return printable(path), found.st_size, found.st_mtime_ns


def label_of(label: int | None, classes: Sequence[str] | None) -> str | None:
    """Return a class as an index has it: its name, or its number as text."""
    return None if label is None else str(label) if classes is None else classes[label]


def table_of(rows: Sequence[tuple[str, str | None, int | None, int | None]]) -> pa.Table:
    """Rows of (path, label, size, mtime_ns), without ids yet."""
    columns = [*zip(*rows, strict=True)] or [(), (), (), ()]
    return pa.table([[0] * len(rows), *map(list, columns)], schema=SCHEMA)


def keys(table: pa.Table) -> Iterator[Key]:
    """What an image is known by."""
    return zip(*(table[name].to_pylist() for name in KEY), strict=True)
