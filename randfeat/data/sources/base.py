"""Base classes of sources: named rows, with labels where these are known."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..decode import File, content_of, open_picture, open_values
from ..errors import UnreadableImage
from ..labels import as_id, as_label

Labels = list[int | None] | None
# size of a file; times in ns of the change of its content and of its entry, which no program can set; -1 where there is
# no file. Of a row in an archive the times are those of the archive
State = tuple[int, int, int]
NO_FILE: State = (-1, -1, -1)


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

        It depends on neither the machine, the place nor the dates of the files: see `states` for changes in them.
        """
        return self.fingerprint_of(self.sizes())

    def fingerprint_of(self, sizes: Iterable[int]) -> str:
        """Return `fingerprint` as it is where the rows have these sizes."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        labels = self.labels or [None] * len(self)
        for path, label, size in zip(self.paths, labels, sizes, strict=True):
            digest.update(json.dumps([path, label, size]).encode())
        return digest.hexdigest()

    def states(self) -> Iterable[State] | None:
        """Return the state of each row's file, or of the file that holds it; None where `fingerprint` tells all."""
        return None

    def content(self, i: int) -> bytes | None:
        """Return the bytes by which a row whose state has changed is known to be the same; None without any."""
        return None


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

    def content(self, i: int) -> bytes | None:
        try:
            return content_of(self.file(i))
        except UnreadableImage:
            return None


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


def numbered(values: Sequence[Any]) -> tuple[Labels, list[str] | None]:
    """Return class indices, and the names of the classes, of labels as written, see `labels.as_label`.

    Whole numbers, also written as text, are indices, of which some may not occur; -1 means none, and lower ones are a
    ValueError. Other texts become the classes, in sorted order.
    """
    found = [as_label(value) for value in values]
    ids = [as_id(label) for label in found]
    found = [None if id_ == -1 else label for label, id_ in zip(found, ids, strict=True)]
    if any(id_ is None and label is not None for label, id_ in zip(found, ids, strict=True)):
        texts = [None if label is None else str(label) for label in found]
        names = sorted({text for text in texts if text is not None})
        return indexed(texts, names), names
    lowest = min((id_ for id_ in ids if id_ is not None), default=0)
    if lowest < -1:
        raise ValueError(f"a label is {lowest}: class indices count from 0, and -1 means none")
    labels = [None if id_ == -1 else id_ for id_ in ids]
    return (None if all(label is None for label in labels) else labels), None


def indexed(texts: Sequence[str | None], classes: Sequence[str]) -> Labels:
    """Return the class index of each text among the names of classes; None of None."""
    index_of = {name: index for index, name in enumerate(classes)}
    return [None if text is None else index_of[text] for text in texts]


def of_named(values: Sequence[Any], classes: Sequence[str]) -> Labels:
    """Return class indices of labels as written that are indices of named classes; -1 means none.

    Raises a ValueError for another label. None where no row has one.
    """
    labels: list[int | None] = []
    for value in values:
        label = as_label(value)
        index = as_id(label)
        if label is not None and (index is None or not -1 <= index < len(classes)):
            raise ValueError(f"a label is {label!r}, and there are {len(classes)} classes: expected an index from 0")
        labels.append(None if index == -1 else index)
    return None if all(label is None for label in labels) else labels


def check_unique(name: str | Path, paths: Sequence[str]) -> None:
    """Raise a ValueError that names a path which occurs twice."""
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise ValueError(f"{name} has {twice} more than once: expected each image once")


def printable(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes that are no UTF-8 are escaped."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    return path


def size_of(path: str | Path) -> int:
    """Return the bytes of a file, -1 where there is none."""
    return state_of(path)[0]


def state_of(path: str | Path) -> State:
    """Return the state of a file."""
    try:
        found = os.stat(path)  # noqa: PTH116  pathlib is slow for a million files
    except OSError:
        return NO_FILE
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
