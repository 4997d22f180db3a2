"""Row metadata of an index: id, path, label and state of the file, in memory or in a parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..utils.parquet import DAMAGED

# id: never used twice. size, mtime_ns, sha256, ctime_ns: of the image file when it was read, null for other rows
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("ctime_ns", pa.int64()),
    ]
)
DIGEST = "sha256"
BEFORE = [pa.schema([*SCHEMA][:count]) for count in (5, 6)]  # files that were written before the last ones were kept


class Rows:
    """Metadata of the rows of a segment, in the order of its vectors. A column is read when it is first used."""

    def __init__(self, source: pa.Table | Path) -> None:
        # stays open, so that the file can still be read when a writer has removed it
        self._source: Any = pq.ParquetFile(source, memory_map=True) if isinstance(source, Path) else source
        self._path = source if isinstance(source, Path) else None
        schema = self._source.schema if isinstance(source, pa.Table) else self._source.schema_arrow
        if not any(schema.equals(one) for one in (SCHEMA, *BEFORE)):
            raise ValueError(f"it has columns {', '.join(schema.names)}, not {', '.join(SCHEMA.names)}")
        self._kept = {*schema.names}
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._blank: dict[str, bool] = {}

    def __len__(self) -> int:
        return self._source.num_rows if isinstance(self._source, pa.Table) else self._source.metadata.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        if name not in self._kept:
            return pa.chunked_array([pa.nulls(len(self), SCHEMA.field(name).type)])
        if name not in self._columns:
            try:
                table = self._source if isinstance(self._source, pa.Table) else self._source.read([name])
            except DAMAGED as error:
                raise ValueError(f"{self._path} is damaged: copy the index again, or build it anew") from error
            self._columns[name] = table[name]
        return self._columns[name]

    @cached_property
    def ids(self) -> np.ndarray:
        """Ids, int64 (n,)."""
        return self.column("id").to_numpy()

    @cached_property
    def _by_id(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def with_ids(self, ids: np.ndarray) -> np.ndarray:
        """Return the row of each id, -1 where there is none."""
        if not len(self):
            return np.full(len(ids), -1)
        places = np.searchsorted(self.ids, ids, sorter=self._by_id)
        rows = self._by_id[np.minimum(places, len(self) - 1)]
        return np.where(self.ids[rows] == ids, rows, -1)

    def with_paths(self, paths: Sequence[str]) -> np.ndarray:
        """Return the rows whose path is one of these."""
        wanted = pc.is_in(self.column("path"), value_set=pa.array(paths, pa.string()))
        return np.flatnonzero(wanted.to_numpy())

    def take(self, name: str, rows: np.ndarray) -> list[Any]:
        """Return the values of these rows in a column."""
        if self._empty(name):
            return [None] * len(rows)
        return self.column(name).take(pa.array(rows)).to_pylist()

    def _empty(self, name: str) -> bool:
        if name not in self._blank:
            column = self.column(name)
            self._blank[name] = column.null_count == len(column)
        return self._blank[name]

    def table(self, rows: np.ndarray | None = None) -> pa.Table:
        """Return all columns of these rows, or of all."""
        columns = [self.column(name) for name in SCHEMA.names]
        if rows is not None:
            columns = [column.take(pa.array(rows)) for column in columns]
        return pa.table(columns, schema=SCHEMA)


def write(path: Path, table: pa.Table) -> None:
    """Write the metadata of a segment."""
    # a dictionary of paths, which all differ, would only take time
    pq.write_table(table, path, row_group_size=1 << 18, use_dictionary=["label"])
