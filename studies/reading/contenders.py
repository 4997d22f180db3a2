"""Who takes part, of which size, and how many steps of training each gets for the same number of floating-point
operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from randfeat.pretrain import Objective, TrainingConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from randfeat import models
from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec
from randfeat.models import Generator

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

RATES = (1e-3, 2e-3, 4e-3)  # that every contender is tuned over
WIDTH, DEPTH, HEADS, FFN, DROPOUT = 64, 6, 4, 168, 0.1
BATCH = 64
VARIANTS = {  # of RandAR and of ARPG
    "prefix": {"objective": Prefix},
    "noise": {"objective": Noise},
    "crops": {"crops": True},
    "agree": {"objective": Agree},
    "agree-crops": {"objective": Agree, "crops": True},
}
PIXELS = {"pixels": PixelAutoencoder, "classifier": Classifier}  # models that see these in place of tokens


@dataclass(frozen=True)
class Contender:
    """A way to pretrain. family: of the readings that fit it, `configs/FAMILY.yaml`. order: mode of training,
    None for the model's own. labels: whether it sees them; then it is no source of features here but classifies
    itself. trained: or left with the weights that it starts from. crops: whether it sees each image at several places
    in turn. plain: of which contender it is a variant.
    """

    name: str
    model: str
    family: str
    order: str | None = None
    labels: bool = False
    trained: bool = True
    objective: Callable[[Generator, bool], nn.Module] = Objective
    crops: bool = False
    plain: str | None = None


CONTENDERS = {
    one.name: one
    for one in (
        Contender("randar", "randar", "randar"),
        Contender("arpg", "arpg", "arpg"),
        Contender("raster", "randar", "randar", order="raster"),
        Contender("masked", "masked", "masked", objective=MaskedObjective),
        Contender("pixels-mae", "pixels", "masked", objective=PixelObjective),
        Contender("randar-labels", "randar", "randar", labels=True),
        Contender("arpg-labels", "arpg", "arpg", labels=True),
        Contender("vit-labels", "classifier", "masked", labels=True, objective=ClassifierObjective),
        Contender("random-weights", "randar", "randar", trained=False),
        *(
            Contender(f"{name}-{how}", name, name, plain=name, **changes)
            for name in ("randar", "arpg")
            for how, changes in VARIANTS.items()
        ),
    )
}


@dataclass(frozen=True)
class Size:
    """Width and blocks of RandAR, the others have as many blocks in all; and the images of a step."""

    width: int = WIDTH
    depth: int = DEPTH
    batch: int = BATCH

    @property
    def heads(self) -> int:
        """Of 64 numbers each, unless they are too few then."""
        return max(HEADS, self.width // 64)


SIZE = Size()


def build(contender: Contender, material: Material, seed: int, size: Size = SIZE) -> Generator:
    """Return a network with weights drawn by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _build(contender, material, size)


def _build(contender: Contender, material: Material, size: Size) -> Generator:
    shape = dict(
        grid=material.grid,
        vocab_size=len(material.codebook),
        num_classes=len(np.unique(material.labels)) if contender.labels else 0,
        embed_dim=size.width,
        depth=size.depth // 2 if contender.model == "arpg" else size.depth,
        num_heads=size.heads,
        ffn_dim=FFN * size.width // WIDTH,
        dropout=DROPOUT,
    )
    if contender.model == "masked":
        return MaskedTransformer(**shape)
    if contender.model in PIXELS:
        patch = material.patches.shape[1] // math.prod(material.grid)
        return shaped(PIXELS[contender.model], patch)(**shape | {"vocab_size": 256})
    return models.create(contender.model, **shape)


def seen_by(contender: Contender, material: Material) -> Tensor:
    """What the network reads of each image: tokens, or pixels. int64 or uint8 (n, ...)."""
    return torch.from_numpy(material.patches if sees_pixels(contender) else material.tokens)


def shown_to(contender: Contender, material: Material, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """What a network is trained on: what it reads of the rows, or crops of them (n, crops, N), the image as it is and
    at 2 x 2 places, and for each crop another one as its pair."""
    if not contender.crops:
        return seen_by(contender, material)[rows], None
    images = material.pictures[rows]
    crops = torch.stack([as_seen(contender, material, moved) for moved in (images, *material.places(images))], 1)
    return crops, crops.roll(2, 1)


def sees_pixels(contender: Contender) -> bool:
    return contender.model in PIXELS


def as_seen(contender: Contender, material: Material, images: np.ndarray) -> Tensor:
    """Return the same of any images of the set's size."""
    if sees_pixels(contender):
        return torch.from_numpy(material.cut(images))
    return material.encoded(images)


def labels_for(contender: Contender, material: Material, rows: np.ndarray) -> Tensor | None:
    """Return the labels of some rows, where the contender sees any."""
    return torch.from_numpy(material.labels[rows]) if contender.labels else None


def flops_of_training(contender: Contender, material: Material, size: Size = SIZE) -> int:
    """Of one image, forwards and backwards; attention counts in full where a mask hides half of it. A variant, which
    costs no more, counts as the plain one."""
    contender = CONTENDERS[contender.plain or contender.name]
    with torch.device("meta"):
        network = _build(contender, material, size)
        tokens = torch.zeros(1, seen_by(contender, material).shape[1], dtype=torch.int64)
        order = torch.zeros(1, math.prod(material.grid), dtype=torch.int64)
        labels = torch.zeros(1, dtype=torch.int64) if contender.labels else None
    network.train()
    with FlopCounterMode(display=False) as counter:
        contender.objective(network, False)(tokens, labels, order)[0].backward()
    return counter.get_total_flops()


def flops_of_reading(network: Generator, spec: FeatureSpec, values: int) -> int:
    """Of one image with all passes. network: on the device `meta`. values: that it reads of an image."""
    spec, passes = readout.check(network, spec), len(spec.passes)
    tokens = torch.zeros(passes, values, dtype=torch.int64, device="meta")
    order = torch.zeros(passes, math.prod(network.grid), dtype=torch.int64, device="meta")
    labels = torch.zeros(passes, dtype=torch.int64, device="meta")
    network.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network.states(tokens, labels, order, [int(layer) for layer in spec.layers], spec.context, spec.stream)
    return counter.get_total_flops()


def recipe(
    contender: Contender,
    material: Material,
    steps: int,
    rate: float,
    seed: int,
    size: Size = SIZE,
) -> TrainingConfig:
    """steps: of RandAR of the same size; every other contender gets as many as cost the same, a variant as many as the
    plain one."""
    reference = CONTENDERS["randar"]
    each, ours = (flops_of_training(one, material, size) for one in (reference, contender))
    taken = max(1, round(steps * each / ours))
    return TrainingConfig(
        steps=taken,
        batch_size=size.batch,
        order=contender.order,
        learning_rate=rate,
        warmup=max(1, taken // 10),
        eval_every=max(1, taken // 8),
        other_crops=None if contender.crops else 0.0,
        label_dropout=0.1 if contender.model in ("randar", "arpg") else 0.0,
        seed=seed,
    )


def tuned(training: TrainingConfig, share: float) -> TrainingConfig:
    """Return the same recipe with a share of its steps, for finding the learning rate."""
    taken = max(1, round(training.steps * share))
    return replace(training, steps=taken, warmup=max(1, taken // 10), eval_every=max(1, taken // 2))
