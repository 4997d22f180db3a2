"""What stands beside an array of features or tokens: which image each row is of, and which images have none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import files

ROWS, SKIPPED = "rows.parquet", "skipped.csv"


def write(directory: Path, table: pa.Table, skipped: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Writes the table and the list of (path, reason); returns the SHA-256 of each file by its name."""
    with files.writing(directory / ROWS) as file:
        pq.write_table(table, file, row_group_size=1 << 16)
    listed = io.StringIO()
    csv.writer(listed, lineterminator="\n").writerows([("path", "reason"), *skipped])
    files.write_bytes(directory / SKIPPED, listed.getvalue().encode())
    return {name: files.sha256(directory / name) for name in (ROWS, SKIPPED)}


def read(directory: Path, schema: pa.Schema, count: int) -> pa.Table:
    """The table; a ValueError if it is damaged, or has other columns or another number of rows."""
    path = directory / ROWS
    try:
        table = pq.read_table(path)
        if table.schema == schema and table.num_rows == count:
            return table
        found = f"{path} has {table.num_rows} rows of {', '.join(table.column_names)}"
    except (OSError, pa.ArrowInvalid) as error:
        found = f"{path} cannot be read ({str(error).splitlines()[0]})"
    raise ValueError(f"{found}, not {count} of {', '.join(schema.names)}: it is damaged, copy the directory again")


def read_skipped(directory: Path) -> list[tuple[str, str]]:
    """Path and reason of each image that could not be read."""
    with (directory / SKIPPED).open(encoding="utf-8", newline="") as file:
        return [(path, reason) for path, reason in list(csv.reader(file))[1:]]


def check(directory: Path, written: Iterable[tuple[str, str]], paths: list[str]) -> None:
    """A ValueError for the first file, of (name, SHA-256), that is not what was written, and for a path that is there
    twice.
    """
    for name, digest in written:
        if not (directory / name).is_file() or files.sha256(directory / name) != digest:
            raise ValueError(f"{directory / name} is missing or not what was written: copy the directory again")
    if (twice := first_twice(paths)) is not None:
        raise ValueError(f"{directory / ROWS} names {twice} twice")


def first_twice(paths: Iterable[str]) -> str | None:
    """The first path that was there before."""
    seen: set[str] = set()
    return next((path for path in paths if path in seen or seen.add(path)), None)  # type: ignore[func-returns-value]
