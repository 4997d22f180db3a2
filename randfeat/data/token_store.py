"""A token store: a directory with the tokens of many images, so that no tokenizer runs again.

    tokens.npy      uint16, uint32 where the codebook needs it, (n, crops, N) in raster space
    rows.parquet    path, label, width and height in pixels of each image
    skipped.csv     path and reason of each image that could not be read
    meta.json       tokenizer, grid, crops, vocabulary, classes, counts, and the SHA-256 of the files

meta.json is written last: with it a store is whole. `TokenWriter` fills one, in any order and in any number of
processes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..utils import arrays, atomic, resume
from ..utils.resume import check_same_settings
from . import store as rows

META, TOKENS = "meta.json", "tokens.npy"
SIZES = "sizes.npy"  # of the images, in an unfinished store: none, for a row that is not written
FORMAT = "tokens of randfeat, version 1"
FREE = ("more.source.name",)  # what may differ between the run that began a store and one that goes on with it
UNKNOWN = -1  # width or height of an image
ROW_SCHEMA = pa.schema([("path", pa.string()), ("label", pa.int64()), ("width", pa.int32()), ("height", pa.int32())])


class TokenStore:
    """Tokens on disk. Row i of `tokens` belongs to row i of `table`. Nothing is read before it is used."""

    def __init__(self, directory: Path, meta: dict[str, Any]) -> None:
        """What `open` does after it has looked whether all is there."""
        self.directory, self.meta = directory, meta

    @classmethod
    def open(cls, directory: str | Path) -> TokenStore:
        """Open what a `TokenWriter` finished. Raises a FileNotFoundError where none is or it is unfinished, and a
        ValueError where it is damaged; see also `verify`.
        """
        directory = Path(directory)
        meta = atomic.read_json(directory / META, FORMAT)
        if meta is None:
            if resume.is_unfinished(directory):
                raise FileNotFoundError(f"the tokens in {directory} are unfinished: run the same command again")
            raise FileNotFoundError(f"{directory} is no token store: it has no {META}")
        store = cls(directory, meta)
        store.tokens  # noqa: B018  raises for a wrong file
        rows.check_form(directory, ROW_SCHEMA, len(store))
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.directory, self.meta)  # other processes map the files themselves

    def __len__(self) -> int:
        return self.meta["count"]

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that made them, see `weights.fingerprint`."""
        return self.meta["tokenizer"]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        h, w = self.meta["grid"]
        return h, w

    @property
    def vocab_size(self) -> int:
        return self.meta["vocab_size"]

    @property
    def crops(self) -> int:
        """How often each image was tokenised, the first time from the middle."""
        return self.meta["crops"]

    @property
    def classes(self) -> list[str] | None:
        """The names of the labels, where they are known."""
        return self.meta["classes"]

    @cached_property
    def tokens(self) -> np.ndarray:
        """uint16 or uint32 (n, crops, N), mapped from the disk and not to be written to."""
        shape = len(self), self.crops, self.grid[0] * self.grid[1]
        return arrays.read(self.directory / TOKENS, shape, dtype_of(self.vocab_size))

    @cached_property
    def table(self) -> pa.Table:
        """The rows: `path`, `label` (or null), and `width` and `height` of the image in pixels (or null)."""
        return rows.read(self.directory, ROW_SCHEMA, len(self))

    @property
    def paths(self) -> list[str]:
        return self.table["path"].to_pylist()

    @property
    def labels(self) -> list[int | None] | None:
        """One for each image, None for one without; None if no image has one."""
        column = self.table["label"]
        return None if column.null_count == len(self) else column.to_pylist()

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of each image that could not be read."""
        return rows.read_skipped(self.directory)

    def verify(self) -> None:
        """Read all of it; a ValueError names the first thing that is not as it was written, or cannot be."""
        rows.check(self.directory, self.meta["files"].items(), self.paths)
        for block in arrays.blocks(self.tokens):
            if block.max() >= self.vocab_size:
                raise ValueError(f"{self.directory / TOKENS} holds {block.max()} of a vocabulary of {self.vocab_size}")


class TokenWriter:
    """Fills a token store row by row, and goes on where it was stopped.

    paths, labels: of all images, known from the start. Several processes may write at once if each has rows of its
    own; one of them, after all are done, calls `finish`. The same arguments go on with what is there, `complete` if
    that is all; a ValueError names the one that differs, and a FileExistsError refuses a directory of something else.
    """

    complete: bool

    def __init__(
        self,
        directory: str | Path,
        paths: Sequence[str],
        labels: Sequence[int | None] | None,
        *,
        tokenizer: str,
        grid: tuple[int, int],
        vocab_size: int,
        crops: int = 1,
        classes: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """tokenizer: its fingerprint (`weights.fingerprint`); config: its keywords, where they are known. more: what
        else decided the tokens, the crops for instance, as JSON.
        """
        self.directory, self.paths, self.labels = Path(directory), paths, labels
        self.shape, self.dtype = (len(paths), crops, grid[0] * grid[1]), dtype_of(vocab_size)
        self.vocab_size = vocab_size
        classes = None if classes is None else list(classes)
        own_rows = hashlib.sha256(json.dumps([[*paths], labels and [*labels]]).encode()).hexdigest()
        own: dict[str, Any] = {"tokenizer_config": dict(config or {}), "tokenizer": tokenizer}
        own |= {"grid": list(grid), "vocab_size": vocab_size, "crops": crops, "classes": classes}
        self._settings = json.loads(json.dumps({"format": FORMAT, **own, "rows": own_rows, "more": more or {}}))
        self._work = self.directory / resume.FOLDER
        self._begin()

    def missing(self) -> np.ndarray:
        """Return the rows that are not written, in order: int64 (m,)."""
        if self.complete:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self._sizes()[:, 0] == 0)

    def write(self, start: int, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Tokens (rows, crops, N) of the images from `start` on, and the sizes (rows, 2) of these, width and height, or
        UNKNOWN."""
        tokens, sizes = np.asarray(tokens), np.asarray(sizes)
        if tokens.shape[1:] != self.shape[1:] or sizes.shape != (len(tokens), 2):
            raise ValueError(
                f"tokens {tokens.shape} and sizes {sizes.shape}, expected (rows, {self.shape[1]}, {self.shape[2]}) and "
                "(rows, 2)"
            )
        if not 0 <= start <= start + len(tokens) <= self.shape[0]:
            raise ValueError(f"rows {start} to {start + len(tokens) - 1} are outside 0..{self.shape[0] - 1}")
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < self.vocab_size and (sizes != 0).all()):
            found = f"{tokens.min()}..{tokens.max()} and from {sizes.min()}"
            raise ValueError(f"tokens lie in 0..{self.vocab_size - 1} and sizes from 1, got {found}")
        _write_rows(self._work / TOKENS, self.shape, start, tokens.astype(self.dtype))
        # a row counts as written once it has a size
        _write_rows(self._work / SIZES, (self.shape[0], 2), start, sizes.astype(np.int32))

    def finish(self, skipped: Mapping[int, str] | None = None) -> TokenStore:
        """Close the store and opens it. skipped: reason for each row that could not be read; it is left out of the
        store. A ValueError says how many others are missing.
        """
        skipped = dict(skipped or {})
        missing = set(self.missing().tolist())
        if forgotten := len(missing - skipped.keys()):
            raise ValueError(
                f"{forgotten} of {self.shape[0]} rows are not written, {min(missing - skipped.keys())} for one: write "
                "them, or say why they were skipped"
            )
        kept = np.array([row for row in range(self.shape[0]) if row not in skipped], dtype=np.int64)
        if not len(kept):
            raise ValueError("no image could be read: a token store holds one at least")
        tokens = arrays.read(self._work / TOKENS, self.shape, self.dtype)
        pieces = (tokens[part] for part in np.array_split(kept, -(-len(kept) // 4096)))
        digests = {TOKENS: arrays.write(self.directory / TOKENS, (len(kept), *self.shape[1:]), self.dtype, pieces)}
        sizes = np.ma.masked_equal(self._sizes()[kept], UNKNOWN)
        width, height = (pa.array(side.data, pa.int32(), mask=np.ma.getmaskarray(side)) for side in sizes.T)
        labels = [None] * self.shape[0] if self.labels is None else self.labels
        columns = [[self.paths[row] for row in kept], [labels[row] for row in kept], width, height]
        reasons = [(self.paths[row], skipped[row]) for row in sorted(skipped)]
        digests |= rows.write(self.directory, pa.table(columns, schema=ROW_SCHEMA), reasons)
        meta = self._settings | {"count": len(kept), "skipped": len(skipped), "files": digests}
        atomic.write_json(self.directory / META, meta)
        shutil.rmtree(self._work)
        return TokenStore.open(self.directory)

    def _begin(self) -> None:
        whole = atomic.read_json(self.directory / META, FORMAT)
        self.complete = whole is not None
        if whole is not None:
            check_same_settings(self.directory, whole, self._settings, "tokens", (*FREE, "count", "skipped", "files"))
            shutil.rmtree(self._work, ignore_errors=True)  # what a kill may have left
            return
        resume.begin(self.directory, self._settings, "tokens", FREE)
        for name, shape, dtype in ((TOKENS, self.shape, self.dtype), (SIZES, (self.shape[0], 2), np.dtype(np.int32))):
            if not (self._work / name).exists():
                with atomic.open_write(self._work / name) as file:  # zeros, which take no room on most disks
                    file.write(head := arrays.header(shape, dtype))
                    file.truncate(len(head) + math.prod(shape) * dtype.itemsize)

    def _sizes(self) -> np.ndarray:
        return arrays.read(self._work / SIZES, (self.shape[0], 2), np.int32)


def dtype_of(vocab_size: int) -> np.dtype:
    """Return the smallest of the two types that holds all tokens."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _write_rows(path: Path, shape: tuple[int, ...], start: int, rows: np.ndarray) -> None:
    """Put rows in their place in an array on disk, and waits until the disk has them."""
    before = len(arrays.header(shape, rows.dtype)) + start * math.prod(shape[1:]) * rows.itemsize
    with path.open("r+b") as file:
        file.seek(before)
        file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
