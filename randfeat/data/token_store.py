"""Token stores: directories with the tokens of many images, so that no tokenizer runs again.

    tokens.npy      uint16, uint32 where the codebook needs it, (n, crops, N) in raster space
    rows.parquet    path, label, width and height in pixels of each image
    skipped.csv     path and reason of each image that could not be read
    inputs.npy      size, time of change and SHA-256 of the file of each image, where it has one, see `states`
    meta.json       tokenizer, grid, crops, vocabulary, classes, counts, and the SHA-256 of the files

Beside the rest of a `store.Store`. `TokenWriter` fills one, in any order and in any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..utils import arrays, atomic
from ..utils.folder_run import FolderRun
from .store import META, Store, write_rows

TOKENS = "tokens.npy"
SIZES = "sizes.npy"  # width and height of each image, in an unfinished store; 0 for a row that is not written
FREE = ("more.source.name",)  # may differ between the run that began a store and one that resumes it
UNKNOWN = -1  # a width or height that is not known


class TokenStore(Store):
    """Tokens on disk. Row i of `tokens` belongs to row i of `table`, which has `width` and `height` of the image in
    pixels, or null, beside path and label.
    """

    FORMAT = "tokens of randfeat, version 1"
    ROW_SCHEMA = pa.schema(
        [("path", pa.string()), ("label", pa.int64()), ("width", pa.int32()), ("height", pa.int32())]
    )
    NAME, UNFINISHED = "token store", "the tokens in {} are"

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
        """Crops of each image; the first is at its centre."""
        return self.meta["crops"]

    @property
    def classes(self) -> list[str] | None:
        return self.meta["classes"]

    @property
    def labels(self) -> list[int | None] | None:
        """Class index of each image, None for one without; None if no image has one."""
        column = self.table["label"]
        return None if column.null_count == len(self) else column.to_pylist()

    @cached_property
    def tokens(self) -> np.ndarray:
        """uint16 or uint32 (n, crops, N), mapped from the disk and read-only."""
        shape = len(self), self.crops, self.grid[0] * self.grid[1]
        return arrays.read(self.directory / TOKENS, shape, dtype_of(self.vocab_size))

    def _check_arrays(self) -> None:
        self.tokens  # noqa: B018  raises for a wrong file

    def _verify_arrays(self) -> None:
        for block in arrays.blocks(self.tokens):
            if block.max() >= self.vocab_size:
                raise ValueError(f"{self.directory / TOKENS} holds {block.max()} of a vocabulary of {self.vocab_size}")


class TokenWriter:
    """Writer of a token store, row by row and in any order. It resumes a store that is unfinished.

    paths, labels: of all images, known from the start. Several processes may write at once if each has rows of its
    own; one of them calls `finish` when all are done. The same arguments resume what is there; `complete` says that
    nothing is missing. Raises a ValueError that names the argument that differs, and a FileExistsError for a directory
    of something else.
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
        """Begin a store or resume one.

        tokenizer: its fingerprint (`weights.fingerprint`); config: its keywords, where they are known. more: all else
        that decided the tokens, the crops for instance, as JSON.
        """
        self.directory, self.paths, self.labels = Path(directory), paths, labels
        self.shape, self.dtype = (len(paths), crops, grid[0] * grid[1]), dtype_of(vocab_size)
        self.vocab_size = vocab_size
        classes = None if classes is None else list(classes)
        own_rows = hashlib.sha256(json.dumps([[*paths], labels and [*labels]]).encode()).hexdigest()
        own: dict[str, Any] = {"tokenizer_config": dict(config or {}), "tokenizer": tokenizer}
        own |= {"grid": list(grid), "vocab_size": vocab_size, "crops": crops, "classes": classes}
        settings = {"format": TokenStore.FORMAT, **own, "rows": own_rows, "more": more or {}}
        self.run = FolderRun(self.directory, settings, "tokens", FREE, META, ("count", "skipped", "files"))
        self._work = self.run.work
        self._begin()

    def missing(self) -> np.ndarray:
        """Return the numbers of the rows that are not written, in order: int64 (m,)."""
        if self.complete:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self._sizes()[:, 0] == 0)

    def write(self, start: int, tokens: np.ndarray, sizes: np.ndarray) -> None:
        """Write the tokens (rows, crops, N) of the images from `start` on, and their sizes (rows, 2): width and height
        in pixels, or UNKNOWN.
        """
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

    def forget(self, rows: Sequence[int]) -> None:
        """Take rows for not written."""
        for row in rows:
            _write_rows(self._work / SIZES, (self.shape[0], 2), row, np.zeros((1, 2), np.int32))

    def finish(self, skipped: Mapping[int, str] | None = None) -> TokenStore:
        """Complete the store, and open it.

        skipped: a reason for each row that could not be read; it is left out of the store. Raises a ValueError that
        says how many others are missing.
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
        digests |= write_rows(self.directory, pa.table(columns, schema=TokenStore.ROW_SCHEMA), reasons)
        meta = self.run.settings | {"count": len(kept), "skipped": len(skipped), "files": digests}
        atomic.write_json(self.directory / META, meta)
        self.run.finish()
        return TokenStore.open(self.directory)

    def _begin(self) -> None:
        self.complete = self.run.is_complete()
        if self.complete:
            self.run.finish()  # a kill after the last file was written may have left the rest
            return
        self.run.begin()
        for name, shape, dtype in ((TOKENS, self.shape, self.dtype), (SIZES, (self.shape[0], 2), np.dtype(np.int32))):
            if not (self._work / name).exists():
                with atomic.open_write(self._work / name) as file:  # zeros, which take no room on most disks
                    file.write(head := arrays.header(shape, dtype))
                    file.truncate(len(head) + math.prod(shape) * dtype.itemsize)

    def _sizes(self) -> np.ndarray:
        return arrays.read(self._work / SIZES, (self.shape[0], 2), np.int32)


def dtype_of(vocab_size: int) -> np.dtype:
    """Return uint16 where it holds all tokens of a vocabulary, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _write_rows(path: Path, shape: tuple[int, ...], start: int, rows: np.ndarray) -> None:
    """Put rows in their place in an array on disk, and wait until the disk has them."""
    before = len(arrays.header(shape, rows.dtype)) + start * math.prod(shape[1:]) * rows.itemsize
    with path.open("r+b") as file:
        file.seek(before)
        file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
