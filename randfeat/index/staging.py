"""Reading images, which takes long: what has been read waits in INDEX/unfinished until the index takes it in.

A part of some hundred images is two files, features and a table of what they are of. After a kill the same call goes
on: an image is known by its path, size and time of change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..data import loader
from ..data.sources import Source, TokenSource
from ..features import extract
from ..utils import arrays, atomic, progress
from ..utils.resume import difference
from .directory import UNFINISHED, Skipped
from .index import Index
from .plans import KEY, Key, keys
from .reader import reading_of
from .rows import SCHEMA
from .vectors import Part

if TYPE_CHECKING:
    from ..features.encoder import Encoder

SETTINGS, FORMAT = "settings.json", "images being read for an index of randfeat, version 1"
UNREAD = pa.schema([*(SCHEMA.field(name) for name in KEY), ("reason", pa.string())])


class Reading:
    """Reads images of a source into INDEX/unfinished."""

    def __init__(
        self, index: Index, encoder: Encoder, source: Source | TokenSource, batch_size: int, workers: int | None
    ) -> None:
        assert index.directory is not None
        self.source, self.batch_size = source, batch_size
        self.workers = loader.default_workers() if workers is None else workers
        self.reader, self.encode = extract.reader_and_encode(encoder, source)
        shape = self.encode(torch.from_numpy(np.stack([self.reader.blank()])))[0].shape[1:]
        if len(shape) != 1:
            raise ValueError(f"{encoder.specs[0]} gives a map {shape} of each image: choose a spec with a pool")
        self.dim, self.most = shape[0], extract.default_shard([shape])
        self.folder = index.directory / UNFINISHED
        settings = {"format": FORMAT, **reading_of(encoder)}
        before = atomic.read_json(self.folder / SETTINGS, FORMAT)
        if before and (other := difference(before, settings, ("model",))):
            raise ValueError(f"{self.folder} holds features with {other}: go on with the same settings, or delete it")
        self.folder.mkdir(exist_ok=True)
        atomic.write_json(self.folder / SETTINGS, settings)

    def __call__(
        self, table: pa.Table, numbers: Sequence[int], shown: bool
    ) -> tuple[list[Part], pa.Table, list[Skipped]]:
        """Read these rows of `listed`; returns features, the rows they are of, and what could not be read."""
        wanted = dict(zip(keys(table.take(pa.array(numbers, pa.int64()))), numbers, strict=True))
        parts: list[Part] = []
        tables, there = [SCHEMA.empty_table()], self._there()
        skipped: list[Skipped] = []
        for path in there:
            self._take(path, wanted, table, parts, tables, skipped)
        left = sorted(wanted.values())
        batches = [left[start : start + self.batch_size] for start in range(0, len(left), self.batch_size)]
        each, done = max(1, self.most // self.batch_size), len(numbers) - len(left)
        name = int(there[-1].stem) + 1 if there else 0
        what = f"images ({done:,} were there)" if done else "images"
        with (
            closing(loader.batches(self.reader, batches, self.workers)) as following,
            progress.bar(len(numbers), what, "image", done=done, shown=shown) as bar,
        ):
            for start in range(0, len(batches), each):
                read = self._read(batches[start : start + each], following, bar.update)
                self._take(self._write(name + start // each, table, *read), wanted, table, parts, tables, skipped)
        return parts, pa.concat_tables(tables), skipped

    def clear(self) -> None:
        """The index has it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _there(self) -> list[Path]:
        """What a call that was stopped has left; a table is written last."""
        return sorted(self.folder.glob("*.parquet"))

    def _take(
        self,
        path: Path,
        wanted: dict[Key, int],
        table: pa.Table,
        parts: list[Part],
        tables: list[pa.Table],
        skipped: list[Skipped],
    ) -> None:
        """Move what a part has of what is wanted to the results."""
        there = pq.read_table(path, schema=UNREAD)
        reasons, rows, numbers = there["reason"].to_pylist(), [], []
        read = 0
        for key, reason in zip(keys(there), reasons, strict=True):
            number = wanted.pop(key, None)
            if number is not None and reason is None:
                rows.append(read)
                numbers.append(number)
            elif number is not None:
                skipped.append((key[0], reason, *key[1:]))
            read += reason is None
        if rows:
            parts.append(_Part(path.with_suffix(".npy"), np.array(rows)))
            tables.append(table.take(pa.array(numbers)))

    def _read(
        self, numbers: Sequence[Sequence[int]], batches: Iterator[loader.Batch], done: Callable[[int], Any]
    ) -> tuple[np.ndarray, list[int], list[tuple[int, str]]]:
        """Features of the images that could be read, their numbers, and the numbers and reasons of the others."""
        features, read, unread = [np.empty((0, self.dim), np.float32)], [], []
        for some in numbers:
            batch = next(batches)
            if batch.arrays is not None:
                encoded = self.encode(*batch.arrays)
                extract.refuse_infinite(encoded, [self.source.paths[number] for number in batch.numbers])
                features += encoded
            read += batch.numbers
            unread += batch.unread
            done(len(some))
        return np.concatenate(features), read, unread

    def _write(
        self, number: int, table: pa.Table, features: np.ndarray, read: list[int], unread: list[tuple[int, str]]
    ) -> Path:
        """Return a part; returns the path of its table, which is written last."""
        rows = table.take(pa.array(read + [one for one, _ in unread], pa.int64())).select(KEY)
        reasons = pa.array([None] * len(read) + [reason for _, reason in unread], pa.string())
        path = self.folder / f"{number:06}.parquet"
        arrays.write(path.with_suffix(".npy"), features.shape, "<f4", [features])
        with atomic.open_write(path) as file:
            pq.write_table(rows.append_column(UNREAD.field("reason"), reasons), file)
        return path


class _Part:
    """Rows of an array on disk. It is open only while it is looked at: of a million images there are thousands."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self.path, self.rows = path, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[self.rows[rows]]
