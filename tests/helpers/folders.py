"""Folders compared byte by byte; folders and tables of small images."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a folder by its path in it; hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(root, *names, value=None):
    """Write an image of one grey level for each name: that of its place, or `value`."""
    for place, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), place if value is None else value).save(path)
    return root


def levels(source):
    """Return the grey level of every image of a source that `fill` made."""
    return [source.read(i).getpixel((0, 0)) for i in range(len(source))]


def write_table(path, columns):
    """Write columns as the kind of table that the suffix names."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        from pyarrow import csv

        csv.write_csv(table, path, csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ","))
    return path
