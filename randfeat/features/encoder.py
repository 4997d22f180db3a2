"""Base of encoders: networks that turn images into features.

An encoder has two halves, so that many processes can prepare images for one that computes: `prepare` goes with the
workers that decode, `encode` takes what they made, stacked. Extraction to disk, the scikit-learn transformer, indexes
and evaluators of samples all read images by `Encoder.encode`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.crop import AnyImage
from ..data.errors import OnError
from ..data.images import Array, Images, Picture, as_picture
from ..data.reading import ReadBatches

TIMM = "timm:"  # begins the names of timm's models
OPEN_CLIP = "open_clip:"  # begins those of open_clip's
EMBEDDING = "embedding"  # the one feature spec of open_clip's


class Encoder(ABC):
    """Network that turns images into one or several features.

    name: as the user gave it. specs: one for each array that `encode` returns, with layers as numbers. prepare: turns
    an upright picture of any size and mode into an array; all arrays have one shape and type. It can be pickled, and
    holds no weights. value_range: None, or of an encoder that reads values the (low, high) of these: `prepare` then
    takes arrays (H, W, C). reads_texts: whether `encode_texts` does.
    """

    name: str
    specs: tuple[str, ...]
    prepare: Callable[[Any], np.ndarray]
    value_range: tuple[float, float] | None = None
    reads_texts = False

    def check_reads_pictures(self, what: str) -> None:
        """Raise a ValueError where the encoder reads values and no pictures. what: subject of the sentence."""
        if self.value_range is not None:
            low, high = self.value_range
            raise ValueError(
                f"{what} takes pictures of 8 bits, and {self.name} reads values from {low:g} to {high:g}: leave it out"
            )

    def example(self) -> AnyImage:
        """Return some image that `prepare` takes."""
        return Image.new("RGB", (64, 64))

    @abstractmethod
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """Return for each spec the features of B prepared images: float32 (B, F), or (B, F, h, w) for pool `none`.

        batch: what `prepare` made of each, stacked. Other images in the batch change features by rounding alone.
        """

    def features(
        self, images: Images | Iterable[Picture], batch_size: int = 64, on_error: OnError = "raise"
    ) -> list[np.ndarray]:
        """Return the features of images for each spec, as `encode`.

        images: any number of PIL images, paths or arrays, or one array of them, as `Pipeline.features` takes them;
        `batch_size` of them are held at a time. on_error: "skip" gives an image that cannot be read NaN, and a warning
        with path and reason; a function is called with these, see `data.errors.OnError`.
        """
        reading = ReadBatches(images, batch_size, self.as_batch, on_error)
        parts = [self.encode(batch) for batch in reading]
        return [reading.aligned(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)]

    def as_batch(self, images: Array | Sequence[Array | Picture]) -> Tensor:
        """Return several images as `encode` takes them."""
        return torch.from_numpy(np.stack([self.prepare(as_picture(image)) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the features of texts, in the space of those of images: float32 (n, F).

        Raises a ValueError where the network reads no texts, or not these.
        """
        raise ValueError(
            f"{self.name} reads pictures and no texts: to search by text build the index with a text-image model, "
            f"--model {OPEN_CLIP}NAME@FILE"
        )

    @abstractmethod
    def with_specs(self, specs: Sequence[str]) -> Encoder:
        """Return an encoder of the same network with other specs. Raises a ValueError for what it cannot do."""

    @abstractmethod
    def dense(self) -> Encoder:
        """Return an encoder of the same network with one feature at every position: for points and masks, and for
        probes that pool by themselves.
        """

    def compile(self, batch_size: int) -> None:
        """Let torch's compiler run `encode` from now on, of `batch_size` images at a time, to which smaller batches are
        filled up; the first one takes a minute or more.
        """
        raise ValueError(f"{self.name} is not compiled: leave --compile out, it is for models of randfeat")

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return all that decides the numbers, as JSON: hash and configuration of the weights, preprocessing, specs,
        dtype.
        """
