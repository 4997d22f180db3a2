"""Tokenizers that are compared, at equal numbers of tokens and codes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from randfeat.pretrain import fit_patches
from randfeat.pretrain.vq import TokenizerConfig, read_tokenizer_recipe
from randfeat.pretrain.vq.run import train_tokenizer
from torch import Tensor

from randfeat import tokenizers, weights
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic
from randfeat.weights.loading import load_tokenizer

from .sets import Pictures

RECIPE = "tokenizer_tiny"
BATCH = 500  # images encoded at once
SECONDS = "seconds.json"  # of the training, beside the tokenizer


@dataclass(frozen=True)
class Arm:
    """A tokenizer of the study. title: in tables. learned: trained by the recipe with `changes`, else k-means."""

    title: str
    learned: bool = True
    changes: tuple[str, ...] = ()


ARMS = {
    "patches": Arm("k-means patches", learned=False),
    "learned": Arm("learned"),
    "shifted": Arm("learned, shifted images", changes=("images.shift=2",)),
    "equivariant": Arm("learned, equivariance", changes=("loss.equivariance=0.5",)),
}
SMALL = (
    "network.width=8",
    "network.multipliers=[1,2,4]",
    "network.norm_groups=8",
    "quantizer.l2_norm=false",
    "quantizer.start=200",
    "training.steps=1500",
    "training.batch_size=64",
    "training.learning_rate=0.003",
    "training.warmup=30",
    "training.ema=0.99",
    "training.eval_every=500",
    "running.save_every=100",
)
LARGE = (
    "network.width=8",
    "network.multipliers=[1,2,4,8]",
    "network.norm_groups=4",
    "quantizer.l2_norm=false",
    "quantizer.start=250",
    "training.steps=5000",
    "training.batch_size=32",
    "training.learning_rate=0.0015",
    "training.ema=0.995",
    "training.eval_every=500",
    "images.shift=2",
)
TRAINED = {
    "cluttered": SMALL,
    "letters": SMALL,
    "fashion": SMALL,
    "photographs": LARGE,
}  # changes of the recipe, by set


def recipe(pictures: Pictures, arm: Arm, seed: int) -> TokenizerConfig:
    """Return the recipe of a learned tokenizer."""
    height, width = pictures.images.shape[1:3]
    setting = pictures.setting
    sized = (
        f"images.size=[{height},{width}]",
        f"network.stride={setting.stride}",
        f"quantizer.vocab_size={setting.codes}",
        f"training.seed={seed}",
        "images.canvas=1.0",
        "images.flip=false",  # letters and digits are no longer the same, mirrored
    )
    return read_tokenizer_recipe(RECIPE, [*sized, *TRAINED[pictures.name], *arm.changes])


def tokenizer(name: str, pictures: Pictures, seed: int, folder: Path) -> Tokenizer:
    """Return a tokenizer, from the folder where it is already; a training goes on from its last checkpoint."""
    arm, began = ARMS[name], time.process_time()
    if not (folder / SECONDS).exists():
        if arm.learned:
            own = recipe(pictures, arm, seed)
            held_out = pictures.source(pictures.held_out)
            train_tokenizer(own, pictures.source(pictures.fit), folder, validation=held_out, device="cpu", workers=0)
        else:
            size, setting = pictures.images.shape[1:3], pictures.setting
            made = fit_patches(pictures.source(pictures.fit), size, setting.stride, setting.codes, seed)
            with atomic.replace_directory(folder, lambda _: True) as whole:
                weights.write(whole, {"name": tokenizers.name_of(made), **made.config}, made.state_dict())
        atomic.write_json(folder / SECONDS, {"seconds": round(time.process_time() - began, 1)})
    return load_tokenizer(folder).eval()


@torch.no_grad()
def encoded(made: Tokenizer, images: Tensor) -> Tensor:
    """Return images (n, C, H, W) in [0, 1] as tokens, int64 (n, N)."""
    return torch.cat([made.encode(part).flatten(1) for part in images.split(BATCH)])
