"""Stores on disk: arrays of many images, a table of the images in their order, and a list of those that are missing.

    rows.parquet    path and label of the image of each row, and what else a kind of store keeps of it
    skipped.csv     path and reason of each image that could not be read
    meta.json       how the arrays were made, counts, and the SHA-256 of the files

meta.json is written last: a store that has it is complete.
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..utils import atomic
from ..utils.parquet import DAMAGED
from ..utils.resume import is_unfinished

if TYPE_CHECKING:
    from typing_extensions import Self

META, ROWS, SKIPPED = "meta.json", "rows.parquet", "skipped.csv"


class Store(ABC):
    """Arrays on disk. Row i of each belongs to row i of `table`. Nothing is read before it is used.

    directory: where it lies. meta: what meta.json holds. FORMAT: of meta.json. ROW_SCHEMA: of the table. NAME,
    UNFINISHED: how error messages call a store, and an unfinished one.
    """

    FORMAT: ClassVar[str]
    ROW_SCHEMA: ClassVar[pa.Schema]
    NAME: ClassVar[str]
    UNFINISHED: ClassVar[str]  # with {} for the directory

    def __init__(self, directory: Path, meta: dict[str, Any]) -> None:
        self.directory, self.meta = directory, meta

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open a complete store. Raises a FileNotFoundError where there is none or it is unfinished, and a ValueError
        where it is damaged; see also `verify`.
        """
        directory = Path(directory)
        meta = atomic.read_json(directory / META, cls.FORMAT)
        if meta is None:
            if is_unfinished(directory):
                raise FileNotFoundError(f"{cls.UNFINISHED.format(directory)} unfinished: run the same command again")
            raise FileNotFoundError(f"{directory} is no {cls.NAME}: it has no {META}")
        store = cls(directory, meta)
        with atomic.fields_of(directory / META):
            store._check_arrays()
            check_table(directory, cls.ROW_SCHEMA, len(store))
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.directory, self.meta)  # other processes map the files themselves

    def __len__(self) -> int:
        return self.meta["count"]

    @property
    @abstractmethod
    def classes(self) -> list[str] | None:
        """Names of the labels, where they are known."""

    @cached_property
    def table(self) -> pa.Table:
        """Rows of the store: `path`, a string, `label`, an int64 or null, and more columns of the kind of store.

        Raises a ValueError for a damaged file, and for a label that is not one of the classes.
        """
        try:
            table = pq.read_table(self.directory / ROWS)
            table.validate(full=True)  # text that is no UTF-8
        except DAMAGED as error:
            raise _unreadable(self.directory, error, self.ROW_SCHEMA, len(self)) from None
        limits = pc.min_max(table["label"]).as_py()
        if limits["min"] is not None and limits["min"] < 0:
            raise ValueError(f"{self.directory} has label {limits['min']}, and labels start at 0")
        if self.classes is not None and limits["max"] is not None and limits["max"] >= len(self.classes):
            raise ValueError(f"{self.directory} has label {limits['max']}, and {len(self.classes)} classes")
        return table

    @property
    def paths(self) -> list[str]:
        """Name of each row in the source that was read."""
        return self.table["path"].to_pylist()

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of each image that could not be read."""
        with (self.directory / SKIPPED).open(encoding="utf-8", newline="") as file:
            return [(path, reason) for path, reason in list(csv.reader(file))[1:]]

    def verify(self) -> None:
        """Read all of it. Raises a ValueError that names the first thing that is not as it was written, or is
        impossible.
        """
        for name, written in self.meta["files"].items():
            digest = written if isinstance(written, str) else written["sha256"]
            if not (self.directory / name).is_file() or atomic.sha256(self.directory / name) != digest:
                raise ValueError(
                    f"{self.directory / name} is missing or not what was written: copy the directory again"
                )
        if (twice := first_twice(self.paths)) is not None:
            raise ValueError(f"{self.directory / ROWS} names {twice} twice")
        if len(self.skipped) != self.meta["skipped"]:
            raise ValueError(f"{self.directory / SKIPPED} does not list {self.meta['skipped']} images")
        self._verify_arrays()

    @abstractmethod
    def _check_arrays(self) -> None:
        """Raise a ValueError for an array of another shape or type than meta.json says, without reading it."""

    @abstractmethod
    def _verify_arrays(self) -> None:
        """Read the arrays. Raises a ValueError for a value that is impossible."""


def write_rows(directory: Path, table: pa.Table, skipped: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Write the table and the list of (path, reason); return the SHA-256 of each file by its name."""
    with atomic.open_write(directory / ROWS) as file:
        pq.write_table(table, file, row_group_size=1 << 16)
    atomic.write_bytes(directory / SKIPPED, as_csv([("path", "reason"), *skipped]))
    return {name: atomic.sha256(directory / name) for name in (ROWS, SKIPPED)}


def as_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return rows as CSV that `csv.reader` reads back as they were."""
    text = io.StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:  # before Python 3.13 a carriage return is no reason for quotes, and would end the row
        (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)
    return text.getvalue().encode()


def check_table(directory: Path, schema: pa.Schema, count: int) -> None:
    """Raise a ValueError for a table that is damaged, or has other columns or another number of rows.

    It reads the end of the file alone: a table of a million rows would take a second.
    """
    path = directory / ROWS
    try:
        with pq.ParquetFile(path) as file:
            found, names, rows = file.schema_arrow, file.schema_arrow.names, file.metadata.num_rows
    except DAMAGED as error:
        raise _unreadable(directory, error, schema, count) from None
    if not found.equals(schema) or rows != count:
        raise _damaged(f"{path} has {rows} rows of {', '.join(names)}", schema, count)


def first_twice(paths: Iterable[str]) -> str | None:
    """Return the first path that occurs a second time."""
    seen: set[str] = set()
    return next((path for path in paths if path in seen or seen.add(path)), None)  # type: ignore[func-returns-value]


def _unreadable(directory: Path, error: Exception, schema: pa.Schema, count: int) -> ValueError:
    reason = "there is no such file" if isinstance(error, FileNotFoundError) else "no parquet file, or damaged"
    return _damaged(f"{directory / ROWS} cannot be read ({reason})", schema, count)


def _damaged(found: str, schema: pa.Schema, count: int) -> ValueError:
    return ValueError(f"{found}, not {count} of {', '.join(schema.names)}: it is damaged, copy the directory again")
