"""Models of the study: objectives, sizes, and training steps for the same number of floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from randfeat.pretrain import Objective, TrainingConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec
from randfeat.models import Generator, create

from .controls import (
    Classifier,
    ClassifierObjective,
    MaskedObjective,
    MaskedTransformer,
    PixelAutoencoder,
    PixelObjective,
    shaped,
)
from .material import Material
from .variants import Agree, Noise, Prefix

RATES = (1e-3, 2e-3, 4e-3)  # learning rates that every model is tuned over
WIDTH, DEPTH, HEADS, FFN, DROPOUT = 64, 6, 4, 168, 0.1
BATCH = 64
VARIANTS = {  # of RandAR and of ARPG
    "prefix": {"objective": Prefix},
    "noise": {"objective": Noise},
    "crops": {"crops": True},
    "agree": {"objective": Agree},
    "agree-crops": {"objective": Agree, "crops": True},
}
PIXELS = {"pixels": PixelAutoencoder, "classifier": Classifier}  # architectures that read pixels in place of tokens


@dataclass(frozen=True)
class StudyModel:
    """Model of the study: an architecture and its pretraining.

    family: its feature specs are in `configs/FAMILY.yaml`. order: order mode of training, None for the architecture's
    own. labels: trained with labels; such a model is no source of features here but classifies itself. trained: False
    leaves the initial weights. crops: train on each image at several places. plain: name of the model that this is a
    variant of.
    """

    name: str
    architecture: str
    family: str
    order: str | None = None
    labels: bool = False
    trained: bool = True
    objective: Callable[[Generator, bool], nn.Module] = Objective
    crops: bool = False
    plain: str | None = None


MODELS = {
    one.name: one
    for one in (
        StudyModel("randar", "randar", "randar"),
        StudyModel("arpg", "arpg", "arpg"),
        StudyModel("raster", "randar", "randar", order="raster"),
        StudyModel("masked", "masked", "masked", objective=MaskedObjective),
        StudyModel("pixels-mae", "pixels", "masked", objective=PixelObjective),
        StudyModel("randar-labels", "randar", "randar", labels=True),
        StudyModel("arpg-labels", "arpg", "arpg", labels=True),
        StudyModel("vit-labels", "classifier", "masked", labels=True, objective=ClassifierObjective),
        StudyModel("random-weights", "randar", "randar", trained=False),
        *(
            StudyModel(f"{name}-{how}", name, name, plain=name, **changes)
            for name in ("randar", "arpg")
            for how, changes in VARIANTS.items()
        ),
    )
}


@dataclass(frozen=True)
class ModelSize:
    """Width and blocks of RandAR, and images per step; the other models have as many blocks in total."""

    width: int = WIDTH
    depth: int = DEPTH
    batch: int = BATCH

    @property
    def heads(self) -> int:
        """Attention heads of 64 dimensions each, at least 4."""
        return max(HEADS, self.width // 64)


SIZE = ModelSize()


def build(model: StudyModel, material: Material, seed: int, size: ModelSize = SIZE) -> Generator:
    """Return a network with initial weights drawn by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _build(model, material, size)


def _build(model: StudyModel, material: Material, size: ModelSize) -> Generator:
    shape = dict(
        grid=material.grid,
        vocab_size=len(material.codebook),
        num_classes=len(np.unique(material.labels)) if model.labels else 0,
        embed_dim=size.width,
        depth=size.depth // 2 if model.architecture == "arpg" else size.depth,
        num_heads=size.heads,
        ffn_dim=FFN * size.width // WIDTH,
        dropout=DROPOUT,
    )
    if model.architecture == "masked":
        return MaskedTransformer(**shape)
    if model.architecture in PIXELS:
        patch = material.patches.shape[1] // math.prod(material.grid)
        return shaped(PIXELS[model.architecture], patch)(**shape | {"vocab_size": 256})
    return create(model.architecture, **shape)


def inputs_of(model: StudyModel, material: Material) -> Tensor:
    """Return the inputs of the network, tokens or pixels of all images: integers or uint8 (n, ...)."""
    return torch.from_numpy(material.patches if reads_pixels(model) else material.tokens)


def training_inputs(model: StudyModel, material: Material, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Return the training inputs of some rows, and for each crop another one as its pair, where there are crops.

    With crops they are (n, crops, N): the image as it is and at 2 x 2 sub-patch shifts.
    """
    if not model.crops:
        return inputs_of(model, material)[rows], None
    images = material.pictures[rows]
    crops = torch.stack([to_inputs(model, material, moved) for moved in (images, *material.places(images))], 1)
    return crops, crops.roll(2, 1)


def reads_pixels(model: StudyModel) -> bool:
    """Return whether a model reads pixels in place of tokens."""
    return model.architecture in PIXELS


def to_inputs(model: StudyModel, material: Material, images: np.ndarray) -> Tensor:
    """Return images, of the set's size, as inputs of a model."""
    if reads_pixels(model):
        return torch.from_numpy(material.cut(images))
    return material.encoded(images)


def labels_of(model: StudyModel, material: Material, rows: np.ndarray) -> Tensor | None:
    """Return the labels of some rows, or None where the model is trained without."""
    return torch.from_numpy(material.labels[rows]) if model.labels else None


def training_flops(model: StudyModel, material: Material, size: ModelSize = SIZE) -> int:
    """Return the floating-point operations of training on one image: forward and backward pass.

    Attention counts in full where a mask hides half of it. A variant counts as its plain model, since it costs no more.
    """
    model = MODELS[model.plain or model.name]
    with torch.device("meta"):
        network = _build(model, material, size)
        tokens = torch.zeros(1, inputs_of(model, material).shape[1], dtype=torch.int64)
        order = torch.zeros(1, math.prod(material.grid), dtype=torch.int64)
        labels = torch.zeros(1, dtype=torch.int64) if model.labels else None
    network.train()
    with FlopCounterMode(display=False) as counter:
        model.objective(network, False)(tokens, labels, order)[0].backward()
    return counter.get_total_flops()


def extraction_flops(network: Generator, spec: FeatureSpec, values: int) -> int:
    """Return the floating-point operations of one image's features, with all passes.

    network: on the device `meta`. values: length of its input for one image.
    """
    spec, passes = readout.check(network, spec), len(spec.passes)
    tokens = torch.zeros(passes, values, dtype=torch.int64, device="meta")
    order = torch.zeros(passes, math.prod(network.grid), dtype=torch.int64, device="meta")
    labels = torch.zeros(passes, dtype=torch.int64, device="meta")
    network.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network.states(tokens, labels, order, [int(layer) for layer in spec.layers], spec.context, spec.stream)
    return counter.get_total_flops()


def recipe(
    model: StudyModel,
    material: Material,
    steps: int,
    rate: float,
    seed: int,
    size: ModelSize = SIZE,
) -> TrainingConfig:
    """Return the training config of a model.

    steps: of RandAR of the same size. Every other model gets as many as cost the same, a variant as many as its plain
    model.
    """
    reference = MODELS["randar"]
    each, ours = (training_flops(one, material, size) for one in (reference, model))
    taken = max(1, round(steps * each / ours))
    return TrainingConfig(
        steps=taken,
        batch_size=size.batch,
        order=model.order,
        learning_rate=rate,
        warmup=max(1, taken // 10),
        eval_every=max(1, taken // 8),
        other_crops=None if model.crops else 0.0,
        label_dropout=0.1 if model.architecture in ("randar", "arpg") else 0.0,
        seed=seed,
    )


def tuned(training: TrainingConfig, share: float) -> TrainingConfig:
    """Return the config with a share of its steps, for the search of the learning rate."""
    taken = max(1, round(training.steps * share))
    return replace(training, steps=taken, warmup=max(1, taken // 10), eval_every=max(1, taken // 2))
