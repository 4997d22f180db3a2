"""What a number on samples comes from: a network that turns pictures into features, named with every number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from randfeat.features.encoder import Encoder
from randfeat.inference.likelihood import class_log_prob
from randfeat.pipeline.pipeline import Pipeline

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"
FEATURES = ["2048", "logits_unbiased"]


class EvaluatorOutput(NamedTuple):
    """What an evaluator sees in B pictures: features (B, F), and, of a classifier, logits (B, C)."""

    features: Tensor
    logits: Tensor | None = None


class Evaluator(ABC):
    """name: for the record. is_inception: whether its Fréchet distance is what papers call FID."""

    name: str
    is_inception = False

    @abstractmethod
    def __call__(self, pictures: Sequence[Image.Image]) -> EvaluatorOutput:
        """Pictures of any size and mode, or of one size where the evaluator says so."""


class Inception(Evaluator):
    """The Inception of FID, as torch-fidelity has it: the TensorFlow weights of 2015 and TensorFlow's resizing.

    weights: the file; by default that which torch-fidelity keeps where torch's hub does. Its numbers differ from those
    of ADM's evaluator in the third digit. Raises a ValueError where the package or the file is not there.
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
            torch.load(path, map_location="cpu", weights_only=True)  # which torch-fidelity does without that care
            self._network = FeatureExtractorInceptionV3("inception", FEATURES, str(path)).to(device)
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} does not hold the weights of Inception ({reason}): get {ADDRESS}") from None
        self._device = device

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> EvaluatorOutput:
        sizes = {picture.size for picture in pictures}
        if len(sizes) > 1:
            found = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)[:2])
            raise ValueError(f"pictures are of {found} pixels, and FID compares those of one size: crop them first")
        stacked = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        found = self._network(torch.from_numpy(stacked).movedim(-1, 1).to(self._device))
        return EvaluatorOutput(*(values.cpu() for values in found))


class Encoded(Evaluator):
    """Features of any encoder: of one of our models, or of timm's."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.name = encoder, f"{encoder.name} {encoder.specs[0]}"

    def __call__(self, pictures: Sequence[Image.Image]) -> EvaluatorOutput:
        return EvaluatorOutput(
            torch.from_numpy(self._encoder.features([picture.convert("RGB") for picture in pictures])[0])
        )


class Likelihoods(Evaluator):
    """log p(picture | class) of each class by a class-conditional model, averaged over `orders` orders. Its softmax is
    the posterior of the classes."""

    def __init__(self, model: Pipeline, orders: int = 4, name: str = "") -> None:
        if not model.classes.count:
            raise ValueError(f"{name or 'the model'} was trained without labels: it has no likelihood of classes")
        self._model, self._orders = model, orders
        self.name = f"class likelihoods of {name}, {orders} orders"

    def __call__(self, pictures: Sequence[Image.Image]) -> EvaluatorOutput:
        tokens = self._model.encode(list(pictures))
        logits = class_log_prob(self._model.packed(), tokens, None, self._orders).mean(-1)
        return EvaluatorOutput(logits, logits)
