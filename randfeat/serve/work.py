"""Works of the service: what is computed for images of several requests at once.

Works are equal where model and options are, so that requests of the same kind share a batch. An item of DrawSamples is
a label with a seed, of the others an image as the encoder prepares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.labels import Label
from ..features.encoder import Encoder
from ..index import Index
from ..index.query import Filter, Match
from ..inference.successive_halving import SuccessiveHalving
from ..pipeline.pipeline import Pipeline

MANY = 50  # classes; of more, only the leading ones are read to the end, by successive halving


@dataclass(frozen=True)
class ReadFeatures:
    """Features of images at the one spec of an encoder."""

    encoder: Encoder

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the features of each image, float32 (F) or (F, h, w)."""
        return [*self.encoder.encode(torch.from_numpy(np.stack(images)))[0]]


@dataclass(frozen=True)
class Classify:
    """Classes of images by likelihood. top: classes in an answer."""

    model: Pipeline
    orders: int
    top: int

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Return the likeliest classes of each image, the best first, as `likelihood.RankedClass`."""
        halving = SuccessiveHalving() if self.model.classes.count > MANY else None
        found = self.model.classify(np.stack(images), orders=self.orders, halving=halving)
        return [[one._asdict() for one in best] for best in found.top(self.top)]


@dataclass(frozen=True)
class SearchIndex:
    """Neighbours of images in an index. encoder: the one that read the index."""

    encoder: Encoder
    index: Index
    k: int
    where: Filter

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[Match]]:
        """Return the matches of each image, the nearest first."""
        features = self.encoder.encode(torch.from_numpy(np.stack(images)))[0]
        return self.index.search(features, self.k, self.where or None)


@dataclass(frozen=True)
class DrawSamples:
    """Samples of a model."""

    model: Pipeline

    def __call__(self, wanted: Sequence[tuple[Label, int]]) -> list[np.ndarray]:
        """Return an image (H, W, channels) for each label and seed, as values in files."""
        labels, seeds = zip(*wanted, strict=True)
        return [*self.model.in_range(self.model.sample(labels, seed=seeds))]
