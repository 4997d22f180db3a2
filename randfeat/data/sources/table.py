"""Lists and tables of paths: .txt and .lst, .csv and .tsv, .jsonl, .parquet."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...utils.parquet import damage_told
from ..labels import as_text
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
    parts = [as_text(part) for part in columns.splits or ()]
    if any(parts) or split is not None:
        spelled = {splits.plain(part): part for part in sorted((part for part in parts if part), reverse=True)}
        chosen = splits.choose(str(path), spelled.values(), split)
        rows = [row for row, part in enumerate(parts) if part is not None and splits.same(part, chosen)]
        if unnamed := parts.count(None):
            first = paths[parts.index(None)]
            warnings.warn(
                f"{unnamed:,} rows of {path} name no split, such as {first}: they are left out.", stacklevel=2
            )
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
    return by_path(path, table[paths].to_pylist(), table[found].to_pylist())


def by_path(table: Path, paths: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return the value of each path in a table; a ValueError for a path that has two."""
    value_of: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        before = value_of.setdefault(path, value)
        if before is not value and as_text(before) != as_text(value):
            raise ValueError(f"{table} has {before} and {value} for {path}: expected one for each image")
    return value_of


def without_labels(name: str) -> str | None:
    """Return why the images of a table have no labels, in a few words; None where `name` is no table of paths."""
    path = Path(name)
    if path.suffix.lower() not in TABLES or not path.is_file():
        return None
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        with damage_told(path):
            names = pyarrow.parquet.read_schema(path).names
    else:
        names = read_arrow(path).column_names
    if column(names, PATHS) is None:
        return None
    if (there := column(names, LABELS)) is not None:
        return f"its column {there} is blank"
    return f"its columns are {', '.join(names)}, {LABELLED_BY}"


def read_arrow(path: Path, *more: str) -> pa.Table:
    """Return a table of any form, in memory. more: columns of parquet to read beside paths, labels and splits."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        with damage_told(path):
            names = _wanted(_distinct(path, pyarrow.parquet.read_schema(path).names, more), more)
            read_table = pyarrow.parquet.read_table(path, columns=names)
            read_table.validate(full=True)  # text that is no UTF-8
            return read_table
    try:
        _check_encoding(path)
        if path.suffix.lower() == ".jsonl":
            import pyarrow.json

            return pyarrow.json.read_json(path)
        import pyarrow.csv

        _check_delimiter(path)
        as_text = pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in (*PATHS, *SPLIT)})
        delimiter = pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        read_table = pyarrow.csv.read_csv(path, parse_options=delimiter, convert_options=as_text)
        _distinct(path, read_table.column_names, more)
        return read_table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{path} is no {path.suffix[1:]} table: {str(error).splitlines()[0]}") from error


def _distinct(path: Path, names: list[str], more: Sequence[str]) -> list[str]:
    """Return the names of the columns of a table; a ValueError for one that is read and there twice."""
    for name in _wanted(names, more):
        if names.count(name) > 1:
            raise ValueError(f"{path} has the column {name} {names.count(name)} times: rename or remove all but one")
    return names


def _check_encoding(path: Path) -> None:
    """Raise a ValueError for a text that is not UTF-8, such as what spreadsheets write for older Windows."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it again as {path.suffix[1:].upper()} in UTF-8") from None


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
