"""Features of readers, kept on disk in half precision, so that every measure reads them once they are made."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from randfeat.utils import progress

AT_ONCE = 500  # images read together


class Reader(ABC):
    """Source of features.

    variants: names of its vectors. dense: names of its maps. key: changes with what its features depend on, such as
    weights.
    """

    variants: tuple[str, ...]
    dense: tuple[str, ...] = ()
    key: str = "1"

    @abstractmethod
    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        """Return float32 features of images, uint8 (n, 28, 28), by variant: (n, d), of dense ones (n, D, 7, 7)."""


class Features:
    """Features of a reader, made where they are missing. folder: of the memory maps."""

    def __init__(self, name: str, reader: Reader, images: np.ndarray, folder: Path) -> None:
        self.name, self.reader, self.images = name, reader, images
        self.folder = folder / name / reader.key

    def of(self, variants: Sequence[str], rows: np.ndarray, part: str) -> dict[str, np.ndarray]:
        """Return memory maps, float16 (n, ...), of the images in these rows. part: name of the rows, in file names."""
        paths = {variant: self.folder / f"{part}-{len(rows)}-{_slug(variant)}.npy" for variant in variants}
        if missing := [variant for variant, path in paths.items() if not path.exists()]:
            self._make(missing, rows, paths)
        return {variant: np.load(path, mmap_mode="r") for variant, path in paths.items()}

    def _make(self, variants: Sequence[str], rows: np.ndarray, paths: dict[str, Path]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = {variant: paths[variant].with_suffix(".unfinished") for variant in variants}
        made: dict[str, np.memmap] = {}
        with progress.bar(len(rows), f"reading {self.name}", "image") as bar:
            for start in range(0, len(rows), AT_ONCE):
                some = rows[start : start + AT_ONCE]
                for variant, x in self.reader.read(self.images[some], variants).items():
                    if variant not in made:
                        shape = (len(rows), *x.shape[1:])
                        made[variant] = np.lib.format.open_memmap(unfinished[variant], "w+", np.float16, shape)
                    made[variant][start : start + len(some)] = x
                bar.update(len(some))
        for variant, array in made.items():
            array.flush()
            unfinished[variant].replace(paths[variant])


def _slug(variant: str) -> str:
    return re.sub(r"[^\w*@.,-]+", "_", variant)
