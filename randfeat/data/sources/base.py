"""Base classes of sources: named rows, with labels where these are known."""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..decode import File, open_picture, open_values

Labels = list[int | None] | None


class Rows(ABC):
    """Rows of a data set. They can be pickled, so that worker processes read them.

    name: the name that the user gave. paths: a stable and unique name of each row. labels: the class index of each row,
    None for a row without one; None if no row has one. classes: a name for each class index, where they are known.
    """

    def __init__(
        self, name: str, paths: Sequence[str], labels: Labels = None, classes: list[str] | None = None
    ) -> None:
        if not len(paths):
            raise ValueError(f"{name} holds no images")
        self.name, self.paths, self.labels, self.classes = name, paths, labels, classes

    def __len__(self) -> int:
        return len(self.paths)

    @abstractmethod
    def sizes(self) -> Iterable[int]:
        """Return the bytes of each row's file, -1 for a missing one; of rows in one file or group, the bytes of all."""

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of the names, labels and sizes of the rows and of the names of the classes.

        It depends on neither the machine, the place nor the dates of the files.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        labels = self.labels or [None] * len(self)
        for path, label, size in zip(self.paths, labels, self.sizes(), strict=True):
            digest.update(json.dumps([path, label, size]).encode())
        return digest.hexdigest()


class Source(Rows):
    """Rows that are images."""

    @abstractmethod
    def read(self, i: int) -> Image.Image:
        """Return the picture of row i as `decode.open_picture` does; an UnreadableImage says why there is none."""

    @abstractmethod
    def values(self, i: int) -> np.ndarray:
        """Return the values of row i, (H, W, C), as `decode.open_values` does and raises."""


class EncodedSource(Source):
    """Rows that are image files, wherever these lie: on a disk, within others, in a table."""

    @abstractmethod
    def file(self, i: int) -> File:
        """Return the path of the file of row i, or a stream of its bytes; an UnreadableImage where there is none."""

    def read(self, i: int) -> Image.Image:
        return open_picture(self.file(i))

    def values(self, i: int) -> np.ndarray:
        return open_values(self.file(i))


class TokenSource(Rows):
    """Rows that are tokens of images.

    grid: rows and columns of tokens. vocab_size and tokenizer (a fingerprint, see `weights.fingerprint`): None where
    the files do not hold them.
    """

    grid: tuple[int, int]
    vocab_size: int | None = None
    tokenizer: str | None = None

    @abstractmethod
    def tokens(self, i: int) -> np.ndarray:
        """Return row i: integers (crops, N) in raster space. Raises an UnreadableImage for a file without tokens."""


def numbered(values: Sequence[Any], classes: Sequence[str] | None = None) -> tuple[Labels, list[str] | None]:
    """Return class indices, and the names of the classes, of labels as written.

    Whole numbers, also written as text, are indices; -1 means none, and lower ones are a ValueError. Other texts become
    the classes, in sorted order, unless `classes` gives them already.
    """
    values = [None if value != value else value for value in values]  # pandas' nan
    if classes is None and all(value is None or _is_index(value) for value in values):
        lowest = min((int(value) for value in values if value is not None), default=0)
        if lowest < -1:
            raise ValueError(f"a label is {lowest}: class indices count from 0, and -1 means none")
        indices: list[int | None] = [None if value is None or int(value) < 0 else int(value) for value in values]
        return (None if all(index is None for index in indices) else indices), None
    texts = [None if value is None else str(value) for value in values]
    names = sorted({text for text in texts if text is not None}) if classes is None else list(classes)
    index_of = {name: index for index, name in enumerate(names)}
    return [None if text is None else index_of[text] for text in texts], names


def check_unique(name: str | Path, paths: Sequence[str]) -> None:
    """Raise a ValueError that names a path which occurs twice."""
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise ValueError(f"{name} has {twice} more than once: expected each image once")


def _is_index(value: Any) -> bool:
    """Return whether a label is a whole number, also as text or as a float."""
    if isinstance(value, str):
        return re.fullmatch(r"\s*-?\d+\s*", value) is not None
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def printable(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes that are no UTF-8 are escaped."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path


def size_of(path: str | Path) -> int:
    """Return the bytes of a file, -1 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  pathlib is slow for a million files
    except OSError:
        return -1
