"""Likelihoods of a pipeline: of images, of each token, and classification by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.errors import OnError
from ..data.images import Images, Picture, as_images
from ..data.labels import Label
from ..data.reading import ReadBatches
from ..inference import likelihood, successive_halving
from ..inference.likelihood import Classification, LogProb
from ..inference.successive_halving import SuccessiveHalving
from ..inference.views import Views
from .base import BATCH, BasePipeline


class LikelihoodPipeline(BasePipeline):
    """A tokenizer with the generator of its tokens: features and likelihoods of images.

    Every result has a row for each image that was given. on_error: "raise" raises for an image that cannot be read;
    "skip" leaves its row NaN, with a warning that has path and reason; a function is called with these instead, see
    `data.errors.OnError`.
    """

    def log_prob(
        self,
        images: Images | Iterable[Picture],
        labels: Sequence[Label] | None = None,
        orders: int = 16,
        seed: int = 0,
        batch_size: int = BATCH,
        on_error: OnError = "raise",
    ) -> LogProb:
        """Return log p(image | label) in nats in each of `orders` orders, the same for all images, with mean and std.

        labels: one for each image, by default the null class. Any number of images, as for `features`; on_error, too.
        """
        reading = ReadBatches(images, batch_size, self.as_images, on_error)
        parts = [
            likelihood.log_prob(self.inference_generator(), tokens, label, orders, seed=seed)
            for tokens, label in self.labelled_tokens(reading, labels)
        ]
        return LogProb(reading.aligned(torch.cat(parts)))

    def classify(
        self,
        images: Images | Iterable[Picture],
        classes: Sequence[Label] | None = None,
        orders: int = 16,
        seed: int = 0,
        halving: SuccessiveHalving | None = None,
        batch_size: int = BATCH,
        progress: bool = False,
        on_error: OnError = "raise",
        views: Views | None = None,
    ) -> Classification:
        """Return classes by likelihood: the mean of log p(image | class) over `orders` orders, the same for all images
        and classes.

        classes: classes to choose from, all by default. halving: reads only the leading classes in all orders, for many
        classes (see `successive_halving`). Any number of images, as for `features`. progress: show a bar. on_error: as
        in `features`; an image that is skipped has no class. views: moved, mirrored, cropped or jittered views of an
        image, of which each order reads another, which takes no more passes (see `inference.views`).
        """
        columns = self._classes(classes)
        likelihood.check_classes(self.generator, columns)  # both raise before anything is read
        likelihood.orders_of(self.generator, orders, seed=seed)
        names, parts = [self.classes.short(index) for index in columns], []
        views, size = views or Views(), self.image_size
        prepare = partial(self._images_of_size, views.larger(size))
        reading = ReadBatches(images, batch_size, prepare, on_error, "classifying" if progress else None)
        for pixels in reading:
            with torch.no_grad():
                there = pixels.to(self.generator.device)
                tokens = views.encode(self.tokenizer, there, size, orders, seed).cpu()
            if halving is not None:
                how = self.inference_generator(), tokens, columns, orders, halving
                scores, order, passes = successive_halving.rank_classes(*how, seed=seed)
            else:
                each = likelihood.class_log_prob(self.inference_generator(), tokens, columns, orders, seed=seed)
                distinct = orders if self.generator.many_orders else views.count(orders)
                scores = each[..., :distinct].mean(2)
                order = scores.argsort(dim=1, descending=True, stable=True)
                passes = torch.full((len(tokens),), float(len(columns) * distinct))
            parts.append(Classification(scores, order, columns, names, passes))
        return Classification.concatenated(parts).with_skipped(reading.skipped)

    def surprisal(
        self,
        images: Images | Iterable[Picture],
        labels: Sequence[Label] | None = None,
        orders: int = 16,
        exact: bool = False,
        seed: int = 0,
        batch_size: int = BATCH,
        on_error: OnError = "raise",
    ) -> Tensor:
        """Return the surprisal of each token of images: the mean over `orders` orders of -log p(token | tokens before
        it), in nats, float32 (B, h, w).

        exact: given all other tokens, which takes h * w times as long. labels: one for each image, by default the null
        class. `drawing.heat` shows a map. on_error: as in `features`.
        """
        reading = ReadBatches(images, batch_size, self.as_images, on_error)
        parts = [
            likelihood.surprisal(self.inference_generator(), tokens, label, orders, exact, seed=seed)
            for tokens, label in self.labelled_tokens(reading, labels)
        ]
        return reading.aligned(torch.cat(parts)).unflatten(1, self.generator.grid)

    def _images_of_size(self, size: tuple[int, int], images: Any) -> Tensor:
        """Return images as `as_images` does, of another size: of pictures, with the detail that they have."""
        if size == self.image_size:
            return self.as_images(images)
        if isinstance(images, list):
            return torch.cat([self._images_of_size(size, image) for image in images])
        ready = self.tokenizer.value_range is None and isinstance(images, (Tensor, np.ndarray))
        if ready and images.dtype not in (torch.uint8, np.uint8):  # floats have the size of the model, as everywhere
            return F.interpolate(self.as_images(images), size, mode="bicubic", antialias=True).clamp(0, 1)
        return as_images(images, self.tokenizer.channels, size, self.tokenizer.value_range)

    def _classes(self, classes: Sequence[Label] | None) -> list[int]:
        """Return the indices of classes to choose from, all by default."""
        if classes is None:
            return list(range(self.generator.num_classes))
        indices = self.classes.indices(classes)
        if self.generator.num_classes in indices or len(set(indices)) < len(indices):
            raise ValueError(
                f"classes to choose from are named once each, and the null class is none, got {list(classes)}"
            )
        return indices
