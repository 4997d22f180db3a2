"""Samples as evaluators of generators take them: one `.npz` as ADM's sampler writes it, whatever its size."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, files: Sequence[Path], labels: Sequence[int] | None) -> None:
    """Writes `arr_0`, uint8 (N, H, W, 3), from N picture files of one size, and `arr_1`, int64 (N,), from labels.

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
    """How many images a file of `write` holds; 0 where there is none, or it is something else."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
            np.lib.format.read_magic(entry)
            return np.lib.format.read_array_header_1_0(entry)[0][0]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return 0
