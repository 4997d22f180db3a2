"""Arrays on disk, as `.npy` files of any size: written block by block, read as they are used."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from . import atomic

BLOCK = 1 << 24  # bytes at a time where all of an array is gone through


def header(shape: tuple[int, ...], dtype: DTypeLike) -> bytes:
    """What stands before the values, in C order, of an array of this shape."""
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def write(path: Path, shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[np.ndarray]) -> str:
    """Write an array of this shape from blocks of its rows, one of which is in memory at a time; returns the SHA-256
    of the file.
    """
    digest, rows = hashlib.sha256(head := header(shape, dtype)), 0
    with atomic.writing(path) as file:
        file.write(head)
        for block in blocks:
            if block.shape[1:] != shape[1:]:
                raise ValueError(f"rows of shape {block.shape[1:]} for an array of {shape}")
            content = np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8).data
            file.write(content)
            digest.update(content)
            rows += len(block)
        if rows != shape[0]:
            raise ValueError(f"{rows} rows for an array of {shape}")
    return digest.hexdigest()


def read(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return the array, mapped into memory and not to be written to; a ValueError if it is not of this shape and
    type."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape == shape and array.dtype == dtype:
            return array
        found = f"holds {array.dtype} {array.shape}"
    except (OSError, ValueError, EOFError) as error:
        found = f"cannot be read ({error})"
    raise ValueError(f"{path} {found}, not {np.dtype(dtype)} {shape}: it is damaged or another file, copy it again")


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of an array in pieces that are small beside the memory of any machine."""
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
