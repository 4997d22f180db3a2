"""What stands beside an array of features or tokens: which image each row is of, and which images have none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..utils import atomic

ROWS, SKIPPED = "rows.parquet", "skipped.csv"


def write(directory: Path, table: pa.Table, skipped: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Write the table and the list of (path, reason); returns the SHA-256 of each file by its name."""
    with atomic.open_write(directory / ROWS) as file:
        pq.write_table(table, file, row_group_size=1 << 16)
    listed = io.StringIO()
    csv.writer(listed, lineterminator="\n").writerows([("path", "reason"), *skipped])
    atomic.write_bytes(directory / SKIPPED, listed.getvalue().encode())
    return {name: atomic.sha256(directory / name) for name in (ROWS, SKIPPED)}


def read(directory: Path, schema: pa.Schema, count: int) -> pa.Table:
    """Return the table; a ValueError if it is damaged, or has other columns or another number of rows."""
    check_form(directory, schema, count)
    try:
        return pq.read_table(directory / ROWS)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(f"{directory / ROWS} cannot be read ({str(error).splitlines()[0]})", schema, count) from None


def check_form(directory: Path, schema: pa.Schema, count: int) -> None:
    """The ValueError that `read` would raise for the columns and the number of rows, without reading a million."""
    path = directory / ROWS
    try:
        with pq.ParquetFile(path) as file:
            found, names, rows = file.schema_arrow, file.schema_arrow.names, file.metadata.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(f"{path} cannot be read ({str(error).splitlines()[0]})", schema, count) from None
    if not found.equals(schema) or rows != count:
        raise _damaged(f"{path} has {rows} rows of {', '.join(names)}", schema, count)


def _damaged(found: str, schema: pa.Schema, count: int) -> ValueError:
    return ValueError(f"{found}, not {count} of {', '.join(schema.names)}: it is damaged, copy the directory again")


def read_skipped(directory: Path) -> list[tuple[str, str]]:
    """Path and reason of each image that could not be read."""
    with (directory / SKIPPED).open(encoding="utf-8", newline="") as file:
        return [(path, reason) for path, reason in list(csv.reader(file))[1:]]


def check(directory: Path, written: Iterable[tuple[str, str]], paths: list[str]) -> None:
    """A ValueError for the first file, of (name, SHA-256), that is not what was written, and for a path that is there
    twice.
    """
    for name, digest in written:
        if not (directory / name).is_file() or atomic.sha256(directory / name) != digest:
            raise ValueError(f"{directory / name} is missing or not what was written: copy the directory again")
    if (twice := first_twice(paths)) is not None:
        raise ValueError(f"{directory / ROWS} names {twice} twice")


def first_twice(paths: Iterable[str]) -> str | None:
    """Return the first path that was there before."""
    seen: set[str] = set()
    return next((path for path in paths if path in seen or seen.add(path)), None)  # type: ignore[func-returns-value]
