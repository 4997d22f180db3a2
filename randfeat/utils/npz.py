"""Samples as evaluators of generators take them: one `.npz` as ADM's sampler writes it, whatever its size."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, files: Sequence[Path], labels: Sequence[int] | None) -> None:
    """Write `arr_0`, uint8 (N, H, W, 3), from N picture files of one size, and `arr_1`, int64 (N,), from labels.

    One picture is in memory at a time, and equal pictures make equal bytes: entries carry no date. Grey pictures become
    three equal channels, since evaluators take colour.
    """
    with Image.open(files[0]) as first:
        shape = (len(files), first.height, first.width, 3)
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("wb") as target:
        with zipfile.ZipFile(target, "w") as archive:
            with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as entry:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(entry, header)
                for file in files:
                    with Image.open(file) as picture:
                        entry.write(np.asarray(picture.convert("RGB"), dtype=np.uint8).tobytes())
            if labels is not None:
                with archive.open(zipfile.ZipInfo("arr_1.npy"), "w") as entry:
                    np.lib.format.write_array(entry, np.array(labels, dtype=np.int64))
        target.flush()
        os.fsync(target.fileno())
    scratch.replace(path)


def count(path: Path) -> int:
    """Return how many images a file of `write` holds; 0 where there is none, or it is something else."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            np.lib.format.read_magic(entry)
            return np.lib.format.read_array_header_1_0(entry)[0][0]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return 0


def read(path: Path) -> Iterator[Image.Image]:
    """Yield the pictures of `arr_0` one after the other, whatever the size of the file.

    Raises a FileNotFoundError, or a ValueError for a file that holds no uint8 (N, H, W, 3).
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: check the path")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            version = np.lib.format.read_magic(entry)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = header(entry)
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
