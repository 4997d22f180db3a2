"""Lists and tables of paths: .txt and .lst, .csv and .tsv, .jsonl, .parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import splits
from .base import numbered
from .folder import ARRAY, SUFFIXES, FileSource

LISTS = (".txt", ".lst")
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PATHS = ("path", "file", "filename", "file_name", "image_path", "filepath", "file_path")
LABELS = ("label", "labels", "class", "target")
SPLIT = ("split",)
LABELLED_BY = f"expected one called {', '.join(LABELS[:-1])} or {LABELS[-1]}, or --label-column with its name"
_SUFFIX = "|".join(suffix[1:] for suffix in sorted({*SUFFIXES, ARRAY}))
_LABELLED = re.compile(rf"(.*\.(?:{_SUFFIX}))\s+(?!\S*\.(?:{_SUFFIX})$)(\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Columns of a list: the path of each image, and its label and split as written, None without such a column."""

    paths: list[str]
    labels: list[Any] | None = None
    splits: list[Any] | None = None


def open_table(path: Path, split: str | None = None) -> FileSource:
    """Return the images in a list, with paths relative to its folder.

    Text labels become classes, in sorted order over the whole list. split: rows to take, by the column `split`.
    """
    columns = read(path)
    labels, classes = (None, None) if columns.labels is None else numbered(columns.labels)
    paths = columns.paths
    if columns.splits is not None or split is not None:
        chosen = splits.choose(str(path), (str(part) for part in columns.splits or ()), split)
        rows = [row for row, part in enumerate(columns.splits or ()) if str(part) == chosen]
        paths = [paths[row] for row in rows]
        labels = labels and [labels[row] for row in rows]
    return FileSource(str(path), path.parent, paths, labels, classes)


def read(path: Path) -> Columns:
    """Return the columns of a list or table. Raises a ValueError for one that cannot be read or holds no paths."""
    if path.suffix.lower() in LISTS:
        return _read_list(path)
    table = read_arrow(path)
    name = column(table.column_names, PATHS)
    if name is None:
        raise ValueError(
            f"{path} has no column of paths: expected one called {', '.join(PATHS[:-1])} or {PATHS[-1]}, "
            f"got {', '.join(table.column_names)}"
        )
    paths = table[name].to_pylist()
    if not all(isinstance(value, str) and value for value in paths):
        row = next(row for row, value in enumerate(paths) if not (isinstance(value, str) and value))
        raise ValueError(f"{path} has no path in row {row + 1}: expected one in each row of the column {name}")
    others = [column(table.column_names, names) for names in (LABELS, SPLIT)]
    return Columns(paths, *(None if name is None else table[name].to_pylist() for name in others))


def read_column(path: Path, wanted: str) -> dict[str, Any]:
    """Return the values of a column of a table by path; a ValueError lists the columns where there is no such one."""
    table = read_arrow(path, wanted)
    paths, found = (column(table.column_names, names) for names in (PATHS, (wanted.strip().lower(),)))
    if paths is None or found is None:
        raise ValueError(f"{path} has no column {wanted}: there is {', '.join(table.column_names)}")
    return dict(zip(table[paths].to_pylist(), table[found].to_pylist(), strict=True))


def without_labels(name: str) -> str | None:
    """Return why the images of a table have no labels, in a few words; None where `name` is no table of paths."""
    path = Path(name)
    if path.suffix.lower() not in TABLES or not path.is_file():
        return None
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(path).names
    else:
        names = read_arrow(path).column_names
    return None if column(names, PATHS) is None else f"its columns are {', '.join(names)}, {LABELLED_BY}"


def read_arrow(path: Path, *more: str) -> pa.Table:
    """Return a table of any form, in memory. more: columns of parquet to read beside paths, labels and splits."""
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path, columns=_wanted(pyarrow.parquet.read_schema(path).names, more))
        if path.suffix.lower() == ".jsonl":
            import pyarrow.json

            return pyarrow.json.read_json(path)
        import pyarrow.csv

        _check_delimiter(path)
        as_text = pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in (*PATHS, *SPLIT)})
        delimiter = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return pyarrow.csv.read_csv(path, parse_options=delimiter, convert_options=as_text)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{path} is no {path.suffix[1:]} table: {str(error).splitlines()[0]}") from error


def _check_delimiter(path: Path) -> None:
    """Raise a ValueError for a table whose first line has other delimiters than its suffix stands for."""
    names = {",": "commas", "\t": "tabs", ";": "semicolons"}
    wanted = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open("rb") as file:
        first = file.readline(1 << 16).decode("utf-8", "replace")
    if wanted not in first and (other := next((sign for sign in names if sign in first), None)):
        raise ValueError(
            f"{path} has {names[other]} between its columns, expected {names[wanted]}: save it again with these"
        )


def column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the name that matches the first possible one of `wanted`, in any case; None if none does."""
    for want in wanted:
        for name in names:
            if name.strip().lower() == want:
                return name
    return None


def _wanted(names: Sequence[str], more: Sequence[str]) -> list[str]:
    found = [column(names, wanted) for wanted in (PATHS, LABELS, SPLIT, *((one.strip().lower(),) for one in more))]
    return [name for name in found if name is not None] or list(names)


def _read_list(path: Path) -> Columns:
    """Read lines of a path, and of a label after a tab, or after a space behind an image suffix."""
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no list of paths: it is not UTF-8 text") from None
    paths: list[str] = []
    labels: list[str | None] = []
    for number, line in enumerate(lines, 1):
        spaced = _LABELLED.fullmatch(line.strip())
        fields = spaced.groups() if spaced and "\t" not in line else line.strip().split("\t")
        if len(fields) > 2:
            raise ValueError(
                f"{path} has {len(fields)} fields in line {number}: expected a path, or a path and a label"
            )
        paths.append(fields[0].strip())
        labels.append(fields[1].strip() if len(fields) == 2 else None)
    unlabelled = labels.count(None)
    if unlabelled == len(labels):
        return Columns(paths)
    if unlabelled:
        raise ValueError(
            f"{path} has no label in line {labels.index(None) + 1} but {len(labels) - unlabelled} others have: "
            "expected one in every line, or in none"
        )
    return Columns(paths, labels)
