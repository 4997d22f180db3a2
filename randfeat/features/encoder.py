"""Encoders: pictures in, features out, whichever network reads them. What `extract` and `FeatureExtractor` run.

An encoder has two halves, so that many processes can prepare pictures for one that computes: `prepare` goes with the
workers that decode, `encode` takes what they made, stacked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import models, tokenizers, weights
from ..data.images import CentreCrop, UnreadableImage, open_picture
from ..inference import readout
from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline
from ..weights.loading import load

TIMM = "timm:"


class Encoder(ABC):
    """Base of what turns pictures into features.

    name: as the user gave it. specs: one for each array that `encode` returns, with layers as numbers. prepare: picture
    -> array, upright pictures of any size and mode to arrays of one shape and type; it can be pickled, and holds no
    weights.
    """

    name: str
    specs: tuple[str, ...]
    prepare: Callable[[Image.Image], np.ndarray]

    @abstractmethod
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """What `prepare` made of B pictures, stacked -> for each spec float32 (B, F), or (B, F, h, w) for pool `none`.

        What comes back for a picture does not depend on the others in the batch but for rounding.
        """

    def features(self, images: Any) -> list[np.ndarray]:
        """`prepare` and `encode` of one batch of PIL images, paths, or uint8 arrays (H, W) or (H, W, channels)."""
        return self.encode(torch.from_numpy(np.stack([self.prepare(_picture(image)) for image in images])))

    @abstractmethod
    def with_specs(self, specs: Sequence[str]) -> Encoder:
        """Return the same network, read so. Raises a ValueError for what it cannot do."""

    @abstractmethod
    def dense(self) -> Encoder:
        """Return the same network, read at every position: for points and masks, and for probes that pool by
        themselves."""

    def compile(self) -> None:
        """From now on `encode` goes through torch's compiler, which takes a minute or more at the first batches."""
        raise ValueError(f"{self.name} is not compiled: leave --compile out, it is for models of randfeat")

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return all that decides the numbers, as JSON: hash and configuration of the weights, preprocessing, specs,
        dtype."""


class PipelineEncoder(Encoder):
    """Features of randfeat's own models. All specs share the tokenizer, and passes where they can (`features.read`).

    specs: what `FeatureSpec` parses; none is the model's own. Raises a ValueError for what the model cannot do.
    """

    def __init__(self, pipeline: Pipeline, specs: Sequence[str | FeatureSpec] = (), name: str = "") -> None:
        self.pipeline, self.name = pipeline, name or models.name_of(pipeline.generator)
        self._specs = [pipeline.reading(spec) for spec in specs or (None,)]
        self.specs = tuple(str(spec) for spec in self._specs)
        self._crop = CentreCrop(pipeline.image_size, pipeline.tokenizer.channels)
        self.prepare = self._crop

    @torch.no_grad()
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """uint8 pictures (B, h, w, channels) -> see `Encoder.encode`."""
        pixels = batch.to(self.pipeline.generator.device).movedim(-1, 1).float() / 255
        return self._read(partial(self.pipeline.encode_pixels, pixels))

    def features(self, images: Any) -> list[np.ndarray]:
        """Return one batch of whatever `data.as_images` takes."""
        return self._read(partial(self.pipeline.encode, images))

    def encode_tokens(self, tokens: Tensor) -> list[np.ndarray]:
        """Tokens (B, N) in raster space -> as `encode`, and as `check_tokens`."""
        self.check_tokens()
        return self._read(lambda shifts: tokens)

    def check_tokens(self) -> None:
        """Raise a ValueError for specs with shifts, which are of pictures."""
        if moved := next((spec for spec in self.specs if "/shifts" in spec), None):
            raise ValueError(f"tokens do not move: leave the shifts out of {moved}, or give the images")

    def _read(self, tokens: Callable[[int], Tensor]) -> list[np.ndarray]:
        """Of what the tokens are with so many shifts."""
        found: dict[FeatureSpec, Tensor] = {}
        for shifts in dict.fromkeys(spec.shifts for spec in self._specs):
            specs = [spec for spec in self._specs if spec.shifts == shifts]
            found |= dict(zip(specs, readout.read(self.pipeline.reader(), tokens(shifts), specs), strict=True))
        return [found[spec].numpy() for spec in self._specs]

    def with_specs(self, specs: Sequence[str]) -> PipelineEncoder:
        return PipelineEncoder(self.pipeline, specs, self.name)

    def dense(self) -> PipelineEncoder:
        return self.with_specs([self.pipeline.generator.dense_reading])

    def compile(self) -> None:
        self.pipeline.compile()

    def record(self) -> dict[str, Any]:
        generator, tokenizer = self.pipeline.generator, self.pipeline.tokenizer
        return {
            "generator": {"name": models.name_of(generator), **generator.config},
            "tokenizer": {"name": tokenizers.name_of(tokenizer), **tokenizer.config},
            "preprocessing": str(self._crop),
            "specs": [*self.specs],
            "dtype": str(generator.dtype).removeprefix("torch."),
            "weights": weights.fingerprint(generator, tokenizer),
        }


def open_encoder(
    model: str | Pipeline,
    specs: Sequence[str | FeatureSpec] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Encoder:
    """Return an encoder of one of our models or of timm's.

    model: a pipeline, which keeps its device and dtype; what `load` takes; or `timm:NAME` or `timm:NAME@CHECKPOINT`,
        a model of timm with its published weights or those of a file.
    specs: what `FeatureSpec` parses, or for timm's models `timm_encoder.TimmSpec`; none is the model's own.
    device: "auto" takes CUDA, else Apple's MPS, else the CPU. dtype: of the weights. options: more keywords of `load`.

    Raises what `load` does, and a ValueError for a spec that the model cannot do.
    """
    if isinstance(model, Pipeline):
        return PipelineEncoder(model, specs)
    if str(model).startswith(TIMM):
        from .timm_encoder import open_timm  # which takes seconds to import, as timm does

        if options:
            raise ValueError(f"{model} is a model of timm, which takes no {', '.join(options)}: leave it out")
        return open_timm(str(model).removeprefix(TIMM), [str(spec) for spec in specs], device, dtype)
    return PipelineEncoder(load(model, device=device, dtype=dtype, **options), specs, str(model))


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        try:
            return open_picture(image)
        except UnreadableImage as error:
            raise UnreadableImage(f"{image} cannot be read as a picture: {error}") from None
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(
            "an image is a PIL image, a path, or a uint8 array (H, W) or (H, W, 3), "
            f"got {type(image).__name__} of {array.dtype} and shape {array.shape}"
        )
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
