"""Tables of LanceDB with features: ids, vectors, paths, labels, feature spec and fingerprint of the model.

A place is written `lancedb:PATH`: a folder, or an object store as LanceDB names it, `lancedb:s3://bucket/folder`.
Versions, filters in SQL and further columns are LanceDB's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

PREFIX = "lancedb:"
TABLE = "images"  # name of the table in its database
RECORD = "randfeat"  # key of the metadata with what decided the numbers
BLOCK = 8192  # rows of a batch


class Block(NamedTuple):
    """Some rows: ids, int64 (n,); vectors, float32 (n, F); paths and labels, None for a row without one."""

    ids: np.ndarray
    vectors: np.ndarray
    paths: Sequence[str]
    labels: Sequence[str | None]


def is_place(name: object) -> bool:
    """Return whether a name is one of a database."""
    return str(name).startswith(PREFIX)


def write(place: str, blocks: Iterable[Block], width: int, metric: str, encoder: Mapping[str, Any] | None) -> Any:
    """Write rows to a new table, and return it, LanceDB's.

    width: F. metric: cosine, dot or l2, by which the rows are compared. encoder: what read them, with `model`, `spec`
    and `encoder` as an index keeps it; None where no model did. Raises a FileExistsError for a table that is there, and
    a RuntimeError where the package is missing.
    """
    database, given = connect(place), encoder or {}
    if _has_table(database):
        raise FileExistsError(f"{place} holds a table {TABLE} already: choose another place, or drop it with LanceDB")
    vector = pa.list_(pa.float32(), width)
    columns = {"id": pa.int64(), "path": pa.string(), "label": pa.string(), "spec": pa.string(), "model": pa.string()}
    record = {"format": "features of randfeat in LanceDB, version 1", "metric": metric, "encoder": encoder}
    schema = pa.schema([*columns.items(), ("vector", vector)], metadata={RECORD: json.dumps(record)})
    constant = given.get("spec"), fingerprint(given["encoder"]) if given else None

    def batches() -> Iterable[pa.RecordBatch]:
        for ids, vectors, paths, labels in blocks:
            flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
            same = [pa.array([value] * len(ids), pa.string()) for value in constant]
            texts = [pa.array(values, pa.string()) for values in (paths, labels)]
            arrays = [pa.array(ids), *texts, *same, pa.FixedSizeListArray.from_arrays(flat, type=vector)]
            yield pa.record_batch(arrays, schema=schema)

    return database.create_table(TABLE, data=batches(), schema=schema)


def open_table(place: str) -> tuple[Any, dict[str, Any]]:
    """Return a table that `write` wrote, LanceDB's, and its record: `metric` and `encoder`.

    Raises a FileNotFoundError where there is none, and a ValueError for a table of something else.
    """
    database = connect(place)
    if not _has_table(database):
        raise FileNotFoundError(
            f"{place} holds no table {TABLE}: write one with `randfeat index export INDEX --to {place}`"
        )
    table = database.open_table(TABLE)
    held = (table.schema.metadata or {}).get(RECORD.encode())
    if held is None:
        raise ValueError(f"the table {TABLE} in {place} was not written by randfeat: it lacks its record")
    return table, json.loads(held)


def connect(place: str) -> Any:
    """Return LanceDB's connection to a place. Raises a RuntimeError where the package is missing."""
    if not is_place(place) or place == PREFIX:
        raise ValueError(f"a place of LanceDB is written {PREFIX}PATH, got {place!r}")
    os.environ.setdefault("LANCE_LOG", "error")  # it would warn of each table that is not there yet
    try:
        import lancedb
    except ModuleNotFoundError:
        raise RuntimeError(f"{place} needs LanceDB: pip install 'randfeat[lancedb]'") from None
    return lancedb.connect(place.removeprefix(PREFIX))


def fingerprint(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an encoder's record, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _has_table(database: Any) -> bool:
    try:
        database.open_table(TABLE)
    except (ValueError, FileNotFoundError):
        return False
    return True
