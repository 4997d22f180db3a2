"""Evaluators of samples: networks whose features Fréchet distance, precision, recall and Inception Score compare.

A number on samples means nothing without its evaluator, so each has a name, which is kept with every number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.crop import images_of
from ..data.errors import NoneReadable, SkippedImage
from ..data.sources import Source, open_source
from ..inference.likelihood import class_log_prob
from ..pipeline.pipeline import Pipeline
from ..utils import arrays, progress
from ..utils.checks import check_whole_number
from .encoder import Encoder

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
FEATURES = ["2048", "logits_unbiased"]


class EvaluatorOutput(NamedTuple):
    """Output of an evaluator for B images: features (B, F), and, of a classifier, logits (B, C)."""

    features: Tensor
    logits: Tensor | None = None


class Evaluator(ABC):
    """Network that samples and real images are compared by.

    name: for the record. is_inception: whether its Fréchet distance is what papers call FID.
    """

    name: str
    is_inception = False

    @abstractmethod
    def __call__(self, images: Sequence[Image.Image]) -> EvaluatorOutput:
        """Return the output for one batch of images of any size and mode; `Inception` takes those of one size only."""


class Inception(Evaluator):
    """Inception network of FID as torch-fidelity has it: the TensorFlow weights of 2015 and TensorFlow's resizing.

    weights: the file; by default the one that torch-fidelity keeps in the cache of torch's hub. Its numbers differ from
    those of ADM's evaluator in the third digit. Raises a ValueError where the package or the file is missing.
    """

    name, is_inception = "Inception of 2015 by torch-fidelity", True

    def __init__(self, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError("FID needs torch-fidelity: pip install torch-fidelity") from None
        path = Path(torch.hub.get_dir(), "checkpoints", INCEPTION) if weights is None else weights
        if not path.is_file():
            raise ValueError(f"the weights of Inception are not at {path}: get {ADDRESS}, or choose another evaluator")
        try:
            torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would unpickle any code
            self._network = FeatureExtractorInceptionV3("inception", FEATURES, str(path)).to(device)
        except Exception as error:
            raise ValueError(f"{path} does not hold the weights of Inception: get {ADDRESS}") from error
        self._device = device

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> EvaluatorOutput:
        sizes = {image.size for image in images}
        if len(sizes) > 1:
            found = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)[:2])
            raise ValueError(f"pictures are of {found} pixels, and FID compares those of one size: crop them first")
        stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])
        found = self._network(torch.from_numpy(stacked).movedim(-1, 1).to(self._device))
        return EvaluatorOutput(*(values.cpu() for values in found))


class EncoderEvaluator(Evaluator):
    """Features of any encoder of pictures, of randfeat's models or of timm's."""

    def __init__(self, encoder: Encoder) -> None:
        encoder.check_reads_pictures("an evaluator of samples")
        self._encoder, self.name = encoder, f"{encoder.name} {encoder.specs[0]}"

    def __call__(self, images: Sequence[Image.Image]) -> EvaluatorOutput:
        features = self._encoder.features([image.convert("RGB") for image in images], len(images))
        return EvaluatorOutput(torch.from_numpy(features[0]))


class LikelihoodEvaluator(Evaluator):
    """log p(image | class) of each class by a class-conditional model, averaged over `orders` orders.

    It is both features and logits: its softmax is the posterior of the classes. Raises a ValueError for a model
    without classes.
    """

    def __init__(self, model: Pipeline, orders: int = 4, name: str = "") -> None:
        if not model.classes.count:
            raise ValueError(f"{name or 'the model'} was trained without labels: it has no likelihood of classes")
        model.check_reads_pictures("an evaluator of samples")
        self._model, self._orders = model, orders
        self.name = f"class likelihoods of {name}, {orders} orders"

    def __call__(self, images: Sequence[Image.Image]) -> EvaluatorOutput:
        tokens = self._model.encode(list(images))
        logits = class_log_prob(self._model.inference_generator(), tokens, None, self._orders).mean(-1)
        return EvaluatorOutput(logits, logits)


def evaluate(evaluator: Evaluator, images: Iterable[Image.Image], count: int, batch_size: int = 64) -> EvaluatorOutput:
    """Return the output of an evaluator for the first `count` images. Raises a ValueError where there are none."""
    check_whole_number("the number of images", count, 1)
    check_whole_number("batch_size", batch_size, 1)
    following = islice(iter(images), count)
    parts = []
    with progress.bar(count, "evaluating", "image", told="") as bar:
        while batch := list(islice(following, batch_size)):
            parts.append(evaluator(batch))
            bar.update(len(batch))
    if not parts:
        raise ValueError("there are no pictures to evaluate: give some")
    logits = [part.logits for part in parts if part.logits is not None]
    return EvaluatorOutput(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)


def load_images(
    data: str | Path, split: str | None = None, on_skip: Callable[[SkippedImage], object] | None = None
) -> tuple[int, Iterator[Image.Image]]:
    """Return the number of images and the images themselves, one at a time.

    data: an `.npz` as ADM's (`arr_0`, uint8 (N, H, W, 3)), or whatever `open_source` opens. on_skip: called with path
    and reason of each image that cannot be read, which is left out (the number counts it); without it, an
    UnreadableImage ends the reading. Raises as `open_source` does.
    """
    if str(data).endswith(".npz"):
        images = arrays.read_images(Path(data))
        first = next(images, None)  # raises for an archive of something else
        if first is None:
            raise ValueError(f"{data} holds no pictures: its arr_0 has the length 0")
        return arrays.count_images(Path(data)), chain([first], images)
    source = open_source(data, split)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens, not pictures: give the pictures")
    return len(source), _read(source, on_skip)


def _read(source: Source, on_skip: Callable[[SkippedImage], object] | None) -> Iterator[Image.Image]:
    """Yield the images of a source. Raises a NoneReadable at the end where all were skipped."""
    rows, skipped = range(len(source)), []
    for image in images_of(source, rows) if on_skip is None else images_of(source, rows, skipping=True):
        if isinstance(image, Image.Image):
            yield image
        elif isinstance(image, SkippedImage) and on_skip is not None:
            on_skip(image)
            skipped.append(image)
    if skipped and len(skipped) == len(source):
        raise NoneReadable(skipped)
