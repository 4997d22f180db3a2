"""randfeat's own models as encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import models
from ..data.crop import AnyImage, CentreCrop
from ..data.images import Images
from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline
from .encoder import Encoder


@dataclass(frozen=True)
class Cropped:
    """Crop of an image as `GeneratorEncoder.encode` takes it."""

    crop: CentreCrop

    def __call__(self, image: AnyImage) -> np.ndarray:
        """Return a picture as uint8 (h, w, channels), values as float32 (channels, h, w) in [0, 1]."""
        made = self.crop(image)
        return made if self.crop.value_range is None else np.moveaxis(made, -1, 0)


class GeneratorEncoder(Encoder):
    """Features of a generator. All specs share the tokenizer, and passes where they can (see `readout.read`).

    specs: what `FeatureSpec` parses; without any, the model's own. Raises a ValueError for what the model cannot do.
    """

    prepare: Cropped

    def __init__(self, pipeline: Pipeline, specs: Sequence[str | FeatureSpec] = (), name: str = "") -> None:
        self.pipeline, self.name = pipeline, name or models.name_of(pipeline.generator)
        self._specs = [pipeline.resolve_spec(spec) for spec in specs or (None,)]
        self.specs = tuple(str(spec) for spec in self._specs)
        self.value_range = pipeline.tokenizer.value_range
        self.prepare = Cropped(CentreCrop(pipeline.image_size, pipeline.tokenizer.channels, self.value_range))

    def example(self) -> AnyImage:
        if self.value_range is None:
            return super().example()
        return np.full((*self.pipeline.image_size, self.pipeline.tokenizer.channels), self.value_range[0])

    @torch.no_grad()
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """Return the features of images, uint8 (B, h, w, channels) or floats (B, channels, h, w) in [0, 1]."""
        batch = batch.to(self.pipeline.generator.device)
        pixels = batch.movedim(-1, 1).float() / 255 if batch.dtype == torch.uint8 else batch
        return self.pipeline.features_of_pixels(pixels, self._specs)

    def as_batch(self, images: Images) -> Tensor:
        """Return images as floats (B, channels, h, w) in [0, 1], those given as floats without rounding to 8 bits."""
        return self.pipeline.as_images(images)

    def encode_tokens(self, tokens: Tensor) -> list[np.ndarray]:
        """Return the features of images given as tokens (B, N) in raster space. Raises as `check_tokens`."""
        self.check_tokens()
        return [found.numpy() for found in self.pipeline.features_of_tokens(tokens, self._specs)]

    def check_tokens(self) -> None:
        """Raise a ValueError for specs with sub-patch shifts, which need pixels."""
        if moved := next((spec for spec in self.specs if "/shifts" in spec), None):
            raise ValueError(f"tokens do not move: leave the shifts out of {moved}, or give the images")

    def with_specs(self, specs: Sequence[str]) -> GeneratorEncoder:
        return GeneratorEncoder(self.pipeline, specs, self.name)

    def dense(self) -> GeneratorEncoder:
        return self.with_specs([self.pipeline.generator.default_dense_spec])

    def compile(self, batch_size: int) -> None:
        self.pipeline.compile(batch_size)

    def record(self) -> dict[str, Any]:
        return {**self.pipeline.record(), "preprocessing": str(self.prepare.crop), "specs": [*self.specs]}
