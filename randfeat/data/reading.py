"""Images read in batches, where those that cannot be read end the reading or are left out, as `errors` has the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from warnings import warn

import numpy as np
import torch
from torch import Tensor

from .errors import NoneReadable, OnError, SkippedImage, SkippedImages, UnreadableImage, check_on_error
from .images import Images, batches

Rows = TypeVar("Rows", Tensor, np.ndarray)


class ReadBatches:
    """Batches of prepared images, to be iterated over once: tensors whose first axis is the images.

    images: any number of them, as `images.batches` takes them; a `SkippedImage` among them is one that could not be
    read, see `crop.images_of`. prepare: makes a tensor of one batch, each image by itself. on_error: see
    `errors.OnError`. what: title of a progress bar, None for no bar. kept: numbers of the images that were read so far.
    here: those of the batch at hand. total: number of images so far.

    Raises an UnreadableImage or, where images are skipped and none is left, a NoneReadable.
    """

    def __init__(
        self,
        images: Images | Iterable[Any],
        size: int,
        prepare: Callable[[Any], Tensor],
        on_error: OnError = "raise",
        what: str | None = None,
    ) -> None:
        check_on_error(on_error)
        self._batches, self._prepare, self._on_error = batches(images, size, what), prepare, on_error
        self.kept: list[int] = []
        self.here: list[int] = []
        self.total = 0
        self._skipped: list[SkippedImage] = []

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._batches:
            if self._on_error == "raise" or isinstance(batch, (Tensor, np.ndarray)):
                prepared, read = self._prepare(batch), [*range(len(batch))]
            else:
                prepared, read = self._of_each(batch)
            self.here = [self.total + place for place in read]
            self.kept += self.here
            self.total += len(batch)
            if self.here:
                yield prepared
        if self._skipped and not self.kept:
            raise NoneReadable(self._skipped)
        if self._skipped and self._on_error == "skip":
            warn(SkippedImages(self._skipped, self.total), stacklevel=3)

    @property
    def skipped(self) -> list[int]:
        """Numbers of the images that were skipped."""
        return np.setdiff1d(np.arange(self.total), self.kept).tolist()

    def aligned(self, rows: Rows) -> Rows:
        """Return a row for each image, given those of the images that were read: floats, NaN where one was skipped."""
        if not self._skipped:
            return rows
        shape = self.total, *rows.shape[1:]
        if isinstance(rows, Tensor):
            full: Any = torch.full(shape, torch.nan, dtype=rows.dtype)
        else:
            full = np.full(shape, np.nan, dtype=rows.dtype)
        full[self.kept] = rows
        return full

    def _of_each(self, batch: list[Any]) -> tuple[Tensor, list[int]]:
        """Return the images of a batch that can be read, prepared, and their places in it."""
        parts, read = [], []
        for place, image in enumerate(batch):
            if isinstance(image, SkippedImage):
                self._skip(image)
                continue
            try:
                if image is None:
                    raise UnreadableImage("an empty cell")
                parts.append(self._prepare([image]))
                read.append(place)
            except UnreadableImage as error:
                self._skip(SkippedImage(_name(image, self.total + place), error.reason))
        return torch.cat(parts) if parts else torch.empty(0), read

    def _skip(self, image: SkippedImage) -> None:
        self._skipped.append(image)
        if callable(self._on_error):
            self._on_error(image)


def _name(image: Any, number: int) -> str:
    """Return the path of an image, or its number where it has none."""
    path = image.get("path") if isinstance(image, Mapping) else image
    return str(path) if isinstance(path, (str, Path)) and path else f"image {number}"
