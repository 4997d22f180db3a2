"""Arrays on disk of any size, written and read block by block: `.npy` files, and `.npz` files of samples.

`np.lib.format` writes and reads the headers. Values go through `file.write`, not through `open_memmap`: on a full disk
the first is an OSError, the second a signal that kills the process, and the SHA-256 is computed on the way.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from . import atomic

BLOCK = 1 << 24  # bytes of an array that are read at a time


def header(shape: tuple[int, ...], dtype: DTypeLike) -> bytes:
    """Return the bytes of a `.npy` file before the values, in C order, of an array of this shape."""
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def write(path: Path, shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[np.ndarray]) -> str:
    """Write a `.npy` file of this shape from blocks of its rows, one of them in memory at a time.

    Returns the SHA-256 of the file, as 64 hexadecimal digits. Raises a ValueError where blocks do not make this shape.
    """
    digest, rows = hashlib.sha256(head := header(shape, dtype)), 0
    with atomic.open_write(path) as file:
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
    """Return the array of a `.npy` file, mapped into memory and read-only.

    Raises a ValueError for a file that is damaged or holds another shape or type.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape == shape and array.dtype == dtype:
            return array
        found = f"holds {array.dtype} {array.shape}"
    except (OSError, ValueError, EOFError) as error:
        found = f"cannot be read ({error})"
    raise ValueError(f"{path} {found}, not {np.dtype(dtype)} {shape}: it is damaged or another file, copy it again")


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of an array in pieces of about `BLOCK` bytes."""
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def write_images(path: Path, files: Sequence[Path], labels: Sequence[int] | None) -> None:
    """Write a `.npz` as evaluators of generators take it and ADM's sampler makes it: `arr_0`, uint8 (N, H, W, 3), from
    N picture files of one size, and `arr_1`, int64 (N,), from labels.

    One picture is in memory at a time. Equal pictures make equal bytes, since entries carry no date. Grey pictures
    become three equal channels, because evaluators take colour.
    """
    with Image.open(files[0]) as first:
        shape = (len(files), first.height, first.width, 3)
    with atomic.open_write(path) as target, zipfile.ZipFile(target, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as entry:
            entry.write(header(shape, np.uint8))
            for file in files:
                with Image.open(file) as picture:
                    entry.write(np.asarray(picture.convert("RGB"), dtype=np.uint8).tobytes())
        if labels is not None:
            with archive.open(zipfile.ZipInfo("arr_1.npy"), "w") as entry:
                np.lib.format.write_array(entry, np.array(labels, dtype=np.int64))


def count_images(path: Path) -> int:
    """Return the number of images in a `.npz` of samples; 0 where there is no file, or one of something else."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            return _read_header(entry)[0][0]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return 0


def read_images(path: Path) -> Iterator[Image.Image]:
    """Yield the pictures of `arr_0` in a `.npz` one after the other, one of them in memory at a time.

    Raises a FileNotFoundError, or a ValueError for a file that holds no uint8 (N, H, W, 3).
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: check the path")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            shape, by_column, dtype = _read_header(entry)
            if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8 or by_column:
                raise ValueError(f"arr_0 is {dtype} {shape}")
            size = shape[1] * shape[2] * 3
            for number in range(shape[0]):
                pixels = entry.read(size)
                if len(pixels) < size:
                    raise ValueError(f"it ends at picture {number} of {shape[0]}")
                yield Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape[1:]))
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError) as error:
        raise ValueError(f"{path} holds no pictures as uint8 (N, H, W, 3): {error}") from None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether it is in Fortran order, and type of the array whose `.npy` header is read here."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read_header(file)
