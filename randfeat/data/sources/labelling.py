"""Labels of a source from a separate file."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import imagenet, table
from .base import Rows, Source, numbered

AnyRows = TypeVar("AnyRows", bound=Rows)


def labelled(source: AnyRows, path: Path) -> AnyRows:
    """Return the same rows with the labels of a file.

    The file is a list or table of paths (or of file names without folders) and labels, a text of one label a line in
    the order of the rows, or ImageNet's development kit. Raises a FileNotFoundError, and a ValueError for labels that
    do not fit the rows.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file of labels {path}: check the path")
    made = copy.copy(source)
    if imagenet.is_kit(path):
        kit = imagenet.read_kit(path)
        made.labels, made.classes = imagenet.truth_of(source, kit), kit.wnids
    elif path.suffix.lower() in table.LISTS and (columns := table.read(path)).labels is None:
        if len(columns.paths) != len(source):
            raise ValueError(
                f"{path} has {len(columns.paths)} labels, {source.name} has {len(source)} images: expected one a line"
            )
        made.labels, made.classes = numbered(columns.paths)
    else:
        made.labels, made.classes = numbered(_by_path(source, path))
    return made


def by_column(source: AnyRows, column: str, path: Path | None = None) -> AnyRows:
    """Return the same rows with the labels in a column of a table, by default of the one that the rows come from."""
    path = Path(source.name) if path is None else path
    if path.suffix.lower() not in table.TABLES or not path.is_file():
        raise ValueError(f"{path} is no table, so it has no column of labels {column}: leave that out, or give a table")
    label_of = table.read_column(path, column)
    labels, classes = numbered(list(label_of.values()))  # over all splits, so that an index means the same in each
    index_of = dict(zip(label_of, labels or [None] * len(label_of), strict=True))
    made = copy.copy(source)
    made.labels, made.classes = [index_of[name] for name in _names(source, label_of, path)], classes
    return made


def warn_of_unlabelled(source: Rows) -> None:
    """Warn where some rows have a label and others have none, with their number and the first of them."""
    if source.labels is None or None not in source.labels:
        return
    count = source.labels.count(None)
    if count < len(source):
        warnings.warn(
            f"{count:,} of {len(source):,} images of {source.name} have no label (blank, -1 or none), such as "
            f"{source.paths[source.labels.index(None)]}: they are left out where labels are needed.",
            stacklevel=3,
        )


def with_kit_nearby(source: Source, folder: Path) -> Source:
    """Return the source, with the labels of the development kit if it holds ImageNet's validation images beside one."""
    if source.labels is not None or not all(imagenet.number(path) for path in source.paths):
        return source
    kit = imagenet.find_kit(folder)
    return source if kit is None else labelled(source, kit)


def _by_path(source: Rows, path: Path) -> list[Any]:
    """Return the label of each row from a list or table of paths and labels."""
    columns = table.read(path)
    if columns.labels is None:
        raise ValueError(f"{path} has no column of labels: {table.LABELLED_BY}")
    label_of = table.by_path(path, columns.paths, columns.labels)
    return [label_of[name] for name in _names(source, label_of, path)]


def _names(source: Rows, label_of: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Yield the key of each row in a file of labels: its path, or its file name without folders."""
    for row in source.paths:
        name = row if row in label_of else row.rpartition("/")[2]
        if name not in label_of:
            raise ValueError(f"{path} has no label for {row}: expected one for each image of {source.name}")
        yield name
