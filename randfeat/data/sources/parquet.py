"""Images inside parquet files, as Hugging Face writes them, read without unpacking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...utils.parquet import DAMAGED, damage_told
from ..decode import File, file_of_cell
from ..errors import UnreadableImage
from .base import EncodedSource, Labels, State, numbered, of_named
from .remote import AnyPath, RemotePath, of_arrow, state
from .table import LABELS, column

IMAGES = ("image", "img", "picture", "bytes", "jpg", "png")  # columns, the first preferred


class ParquetSource(EncodedSource):
    """Images in a column of parquet files. One row group, most often of about a hundred rows, is in memory."""

    def __init__(
        self, name: str, root: AnyPath, files: Sequence[str], column: str, labels: Labels, classes: list[str] | None
    ) -> None:
        """files: relative to `root`."""
        self.root, self.files, self.column = root, list(files), column
        places, rows, sizes = [], [], []
        paths: list[str] = []
        for number, file in enumerate(files):
            with damage_told(root / file):
                metadata = pq.read_metadata(of_arrow(root / file))
                groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
                # not of the column alone: pyarrow ends the process where the metadata of a column are damaged
                sizes += [group.total_byte_size for group in groups]
            places += [(number, group) for group in range(len(groups))]
            rows += [group.num_rows for group in groups]
            paths += [f"{file}/{row}" for row in range(metadata.num_rows)]
        super().__init__(name, paths, labels, classes)
        self.places, self.rows, self.group_sizes = places, np.array(rows, dtype=np.int64), sizes
        self.ends = self.rows.cumsum()
        self._held: tuple[int, pa.ChunkedArray] | None = None

    def file(self, i: int) -> File:
        place = int(np.searchsorted(self.ends, i, side="right"))
        number, group = self.places[place]
        path = self.root / self.files[number]
        if self._held is None or self._held[0] != place:
            try:
                with pq.ParquetFile(of_arrow(path)) as file:
                    self._held = place, file.read_row_group(group, columns=[self.column]).column(0)
            except DAMAGED as error:
                if isinstance(path, RemotePath) and isinstance(error, OSError):  # also one of the network
                    raise
                raise UnreadableImage("a damaged parquet file") from error
        first = int(self.ends[place] - self.rows[place])
        try:
            cell = self._held[1][i - first].as_py()
        except (UnicodeDecodeError, IndexError) as error:  # fewer rows than the file says
            raise UnreadableImage("a damaged parquet file") from error
        found = file_of_cell(cell, path.parent)
        return found.open() if isinstance(found, RemotePath) else found

    def sizes(self) -> Iterable[int]:
        """Return of each row the bytes of its row group, which the footer of the file holds: nothing else is read."""
        return np.repeat(self.group_sizes, self.rows).tolist()

    def states(self) -> Iterable[State]:
        """Return of each row the bytes of its row group, and the times of its file."""
        times = [state(self.root / file)[1:] for file in self.files]
        of_rows = np.repeat([number for number, _ in self.places], self.rows).tolist()
        return ((size, *times[number]) for size, number in zip(self.sizes(), of_rows, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}  # images stay in their process


def open_parquet(name: str, root: AnyPath, files: Sequence[str]) -> ParquetSource:
    """Open parquet files, relative to `root`, with one column of images; see `label_column` for the labels."""
    schemas = [_schema(root / file) for file in files]
    images = image_column(schemas[0])
    if images is None:
        raise ValueError(f"{root / files[0]} has no column of images: expected `image`, got {schemas[0].names}")
    for file, schema in zip(files, schemas, strict=True):
        if image_column(schema) != images:
            raise ValueError(f"{root / file} has no column {images} of images, as {root / files[0]} has")
    names = class_names(schemas[0])
    column = label_column(schemas[0].names, names)
    if column is None:
        return ParquetSource(name, root, files, images, None, None)
    values: list[Any] = []
    for file in files:
        with damage_told(root / file):
            values += pq.read_table(of_arrow(root / file), columns=[column])[column].to_pylist()
    labels, classes = (of_named(values, names[column]), names[column]) if column in names else numbered(values)
    return ParquetSource(name, root, files, images, labels, classes)


def _schema(path: AnyPath) -> pa.Schema:
    with damage_told(path):
        return pq.read_schema(of_arrow(path))


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names of each column of labels that has them in the schema, as Hugging Face writes it."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: kind.names for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}


def label_column(names: Sequence[str], classes: Mapping[str, list[str]]) -> str | None:
    """Return the column of labels: one named as in LABELS, else the first with class names; None without one."""
    return column(names, LABELS) or next(iter(classes), None)


def image_column(schema: pa.Schema) -> str | None:
    """Return the name of the column that holds encoded images; None if there is none."""
    nested = [one.name for one in schema if pa.types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0]
    plain = [one.name for one in schema if pa.types.is_binary(one.type) or pa.types.is_large_binary(one.type)]
    return column([*nested, *plain], IMAGES) or next(iter(nested), None)
