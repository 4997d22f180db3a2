"""Arrays on disk: `.npy` files and `.npz` files of samples of any size, written and read block by block, and small
`.npz` files.

`np.lib.format` writes and reads the headers. Values go through `file.write`, not through `open_memmap`: on a full disk
the first is an OSError, the second a signal that kills the process, and the SHA-256 is computed on the way.
"""

from __future__ import annotations

import errno
import hashlib
import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
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
        with path.open("rb") as file:
            read_header(file)
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


def write_npz(path: Path, arrays: Mapping[str, ArrayLike], compressed: bool = True) -> None:
    """Write named arrays as one `.npz` file, as `atomic.open_write` does; its folder is made where it is missing.

    Raises an OSError, on a full disk for instance, and then leaves what was there.
    """
    save = np.savez_compressed if compressed else np.savez
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.open_write(path) as file:
        save(file, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]


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
        with _named_faults(), zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            return read_header(entry)[0][0]
    except (FileNotFoundError, ValueError, EOFError):
        return 0


def read_images(path: Path) -> Iterator[Image.Image]:
    """Yield the pictures of `arr_0` in a `.npz` one after the other, one of them in memory at a time.

    Raises a FileNotFoundError, or a ValueError for a file that holds no uint8 (N, H, W, 3).
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: check the path")
    try:
        with _named_faults(), zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            shape, by_column, dtype = read_header(entry)
            if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
                raise ValueError(f"arr_0 is {dtype} {shape}")
            if by_column:  # in Fortran's order a picture is spread over all of it
                with archive.open("arr_0.npy") as whole:
                    yield from map(Image.fromarray, np.ascontiguousarray(np.lib.format.read_array(whole)))
                return
            size = shape[1] * shape[2] * 3
            for number in range(shape[0]):
                pixels = entry.read(size)
                if len(pixels) < size:
                    raise ValueError(f"it ends at picture {number} of {shape[0]}")
                yield Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape[1:]))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} holds no pictures as uint8 (N, H, W, 3): {error}") from None


@contextmanager
def _named_faults() -> Iterator[None]:
    """Raise a ValueError of a few words for whatever zipfile, and what it reads with, raise of a damaged file."""
    damaged = "it is no zip file, or damaged"
    try:
        yield
    except KeyError:
        raise ValueError("it has no arr_0") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, UnicodeDecodeError, RuntimeError) as error:
        raise ValueError(damaged) from error  # RuntimeError of encryption, and of methods that are not known
    except OSError as error:
        if error.errno != errno.EINVAL:  # of an offset before the beginning
            raise
        raise ValueError(damaged) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether it is in Fortran order, and type of the array whose `.npy` header is read here.

    Raises a ValueError of a few words.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, by_column, dtype = read(file)
        if min(shape, default=0) < 0:
            raise ValueError("a negative size")
        return shape, by_column, dtype
    except Exception as error:  # numpy has Python's parser read it, and lets through what this raises
        if str(error).startswith("EOF"):
            raise
        raise ValueError("its header is damaged") from error


def header_of(content: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of the array in the bytes of a `.npy` file.

    Raises a ValueError of a few words where they are damaged, not all there, or of Python objects.
    """
    file = io.BytesIO(content)
    try:
        shape, _, dtype = read_header(file)
    except ValueError as error:
        if str(error).startswith("EOF"):
            raise ValueError("truncated") from error
        raise
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which may hold programs: expected numbers")
    if math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise ValueError("truncated")
    return shape, dtype
