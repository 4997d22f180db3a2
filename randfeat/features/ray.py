"""Features of images in Ray Data: a class for `map_batches`, whose actors hold the model.

    ray.data.read_images("photos").map_batches(
        RayFeatures, fn_constructor_kwargs={"model": "arpg-l"}, concurrency=8, num_gpus=1, batch_size=64
    ).write_parquet("features")

Readers, writers, scheduling and restarts are Ray's own; this module does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..data.errors import NoneReadable, SkippedImage
from ..utils import devices
from .encoder import Encoder
from .opening import open_encoder

NOT_FINITE = "its features are not finite"


class RayFeatures:
    """Function from batches of rows to the same with features, made once in each actor.

    model: what `open_encoder` takes, a path that every machine has, or a name. spec: a feature spec, by default the
    model's own. image: column with the images, bytes of files, paths or arrays. output: column for the features,
    float32. error: column for the reason why an image has no features, because it could not be read or they are not
    finite, null for others: its features are NaN, and the job goes on. device: by default the best that the actor was
    given. dtype: of the network.
    """

    def __init__(
        self,
        model: str,
        spec: str | None = None,
        image: str = "image",
        output: str = "features",
        error: str = "error",
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        specs = [] if spec is None else [spec]
        self.encoder: Encoder = open_encoder(model, specs, devices.pick(device), getattr(torch, dtype))
        self.image, self.output, self.error = image, output, error
        self._empty: np.ndarray | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch of rows, as Ray's format numpy has it, with two columns more."""
        if self.image not in batch:
            raise ValueError(f"there is no column {self.image!r}: name one of {', '.join(batch)}")
        images, skipped = batch[self.image], list[SkippedImage]()
        try:
            features = self.encoder.features([*images], max(1, len(images)), skipped.append)[0]
        except NoneReadable:  # of this batch; there are others
            features = np.repeat(self._blank(), len(images), 0)
        finite = np.isfinite(features).reshape(len(features), -1).all(1)
        errors = np.full(len(features), None, object)
        odd = (~finite).nonzero()[0]
        # in the order of rows, unless an image was read to features that are no numbers
        found = [one.reason for one in skipped] if len(odd) == len(skipped) else [self._reason(images[i]) for i in odd]
        for row, reason in zip(odd, found, strict=True):
            errors[row], features[row] = reason, np.nan
        return {**batch, self.output: features, self.error: errors}

    def _reason(self, image: Any) -> str:
        """Return the reason why an image has no features."""
        try:
            self.encoder.features([image], 1, lambda one: None)
        except NoneReadable as error:
            return error.skipped[0].reason
        return NOT_FINITE

    def _blank(self) -> np.ndarray:
        """Return the features of an image that could not be read: NaN, (1, F) or (1, F, h, w)."""
        if self._empty is None:
            self._empty = np.full_like(self.encoder.features([self.encoder.example()])[0], np.nan)
        return self._empty
