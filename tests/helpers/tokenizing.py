"""Small trainings of tokenizers, at the level of a module so that other processes can call them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import kills
import numpy as np
import torch
from PIL import Image
from randfeat.pretrain import group
from randfeat.pretrain.config import OptimConfig
from randfeat.pretrain.vq import TokenizerConfig, train_tokenizer
from randfeat.pretrain.vq.config import (
    GANConfig,
    ImagesConfig,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    QuantizerConfig,
)
from torch import Tensor

from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source
from randfeat.weights import read_safetensors

SIZE = 8
RECIPE = TokenizerConfig(
    network=NetworkConfig(stride=4, width=8, multipliers=(1, 1, 2), num_res_blocks=1, latent_dim=8, norm_groups=2),
    quantizer=QuantizerConfig(vocab_size=16, code_dim=4, revive_after=3),
    images=ImagesConfig(size=(SIZE, SIZE), canvas=1.25, shift=1),
    training=OptimConfig(steps=12, batch_size=6, learning_rate=3e-3, warmup=2, eval_every=4, ema=0.8),
    running=MachineConfig(save_every=3, micro_batch=2),
)
GAN = replace(
    RECIPE,
    loss=LossConfig(l1=0.5, gan=GANConfig(weight=0.5, start=4, width=4, layers=1, adaptive=True), equivariance=0.5),
)


class Squares(Source):
    """Images in memory, each a square of one grey level on another. unreadable: rows without a picture."""

    def __init__(self, count: int = 24, size: int = SIZE, mode: str = "L", unreadable: Iterable[int] = ()) -> None:
        super().__init__("squares", [f"{i}.png" for i in range(count)])
        self.size, self.mode, self.unreadable = size, mode, frozenset(unreadable)

    def read(self, i: int) -> Image.Image:
        if i in self.unreadable:
            raise UnreadableImage("truncated")
        rng = np.random.default_rng(i)
        array = np.full((self.size, self.size), rng.integers(256), np.uint8)
        top, left = rng.integers(0, self.size // 2, 2)
        array[top : top + self.size // 2, left : left + self.size // 2] = rng.integers(256)
        return Image.fromarray(array).convert(self.mode)

    def values(self, i: int) -> np.ndarray:
        return np.asarray(self.read(i)).reshape(self.size, self.size, -1)

    def sizes(self) -> Iterable[int]:
        return [self.size**2] * len(self)


def trained(directory: Path, recipe: TokenizerConfig = RECIPE, **how: Any) -> dict[str, Tensor]:
    """Train in a directory and return the weights that were kept and all that the last checkpoint holds."""
    how = {"source": Squares(), "held_out": 0.25, "device": "cpu", "workers": 0, **how}
    made = train_tokenizer(recipe, how.pop("source"), directory, **how)
    last = max(directory.glob("step-*"))
    files = [made / "model.safetensors", *sorted(last.glob("*.safetensors"))]
    return {f"{path.name} {name}": value for path in files for name, value in read_safetensors(path).items()}


def train_in_process(
    directory: Path, recipe: TokenizerConfig, touches: Any, number: int = 0, torn: bool = False
) -> None:
    """Train in a process that may die at a touch of a file, see `kills`; count these."""
    torch.set_num_threads(1)
    kills.die_at(directory, number, torn, partial(kills.count, touches))
    trained(directory, recipe)


def train_in_group(
    rank: int, world: int, port: int, directory: Path, recipe: TokenizerConfig, signalled: int | None = None
) -> None:
    """Train in a process of several; the second gets a signal after step `signalled`."""
    torch.set_num_threads(1)
    names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR="localhost", MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in names.items()})

    def look(step: Any) -> None:
        if step.step == signalled and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with group():
        trained(directory, recipe, on_step=look)
