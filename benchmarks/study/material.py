"""A data set as the study sees it: pictures, tokens, and who may see which of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from randfeat.builders import BUILDERS
from randfeat.tokenizers import PatchTokenizer

BATCH = 1024  # images that become tokens at a time
FITTED = 4000  # images that the tokenizer learns from


@dataclass(frozen=True)
class Setting:
    """What belongs to a set. patch: pixels of a token's side. codes: of the tokenizer."""

    patch: int
    codes: int


IMAGES = 3000  # of train that probes see at most; of test two thirds as many

SETTINGS = {
    "digits": Setting(2, 128),
    "cluttered": Setting(2, 256),
    "letters": Setting(4, 256),
    "photographs": Setting(4, 256),
}


@dataclass(frozen=True)
class Material:
    """images: uint8 (n, H, W) or (n, H, W, 3). tokens: int64 (n, N). labels, groups: (n,). fit, held_out: rows that
    networks are trained on and stopped by, all of train together. probed, tested: rows that probes are fitted on and
    scored on."""

    name: str
    setting: Setting
    images: np.ndarray
    tokens: np.ndarray
    codebook: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fit: np.ndarray
    held_out: np.ndarray
    probed: np.ndarray
    tested: np.ndarray

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.images.shape[1:3]
        return height // self.setting.patch, width // self.setting.patch

    @property
    def tokenizer(self) -> PatchTokenizer:
        channels = self.images.shape[3] if self.images.ndim == 4 else 1
        made = PatchTokenizer(len(self.codebook), self.setting.patch, channels)
        made.codebook.copy_(torch.from_numpy(self.codebook))
        return made

    @property
    def ranked(self) -> np.ndarray:
        """Of what probes are fitted on, the half that readings are ranked by."""
        return self.probed[::2]

    @cached_property
    def patches(self) -> np.ndarray:
        """The pixels of each image patch by patch: uint8 (n, N * p * p * C)."""
        return self.cut(self.images)

    def cut(self, images: np.ndarray) -> np.ndarray:
        """Images of the set's size as `patches`."""
        rows, columns = self.grid
        p = self.setting.patch
        cut = images.reshape(len(images), rows, p, columns, p, -1)
        return np.ascontiguousarray(cut.swapaxes(2, 3)).reshape(len(images), -1)

    def encoded(self, images: np.ndarray) -> Tensor:
        """Images of the set's size as tokens, int64 (n, N)."""
        return _encoded(self.tokenizer, images)


def as_pixels(images: np.ndarray) -> Tensor:
    """uint8 images -> float32 (n, C, H, W) in [0, 1]."""
    pixels = torch.from_numpy(images).float() / 255
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def _encoded(tokenizer: PatchTokenizer, images: np.ndarray) -> Tensor:
    parts = np.array_split(images, -(-len(images) // BATCH))
    return torch.cat([tokenizer.encode(as_pixels(part)).flatten(1) for part in parts])


def make(
    name: str, folder: Path, data_seed: int = 0, split_seed: int | None = None, images: int = IMAGES, line: int = 0
) -> Path:
    """The set as one file, made if it is not there yet: the rest of the study opens it with `read`.

    images: see IMAGES. line: see `run_all`.
    """
    path = folder / "material.npz"
    if path.exists():
        return path
    setting, made = SETTINGS[name], BUILDERS[name](seed=data_seed, split_seed=split_seed)
    rng = np.random.default_rng([data_seed, split_seed or 0])
    train, test = np.flatnonzero(~made.test), np.flatnonzero(made.test)
    groups = rng.permutation(np.unique(made.groups[train]))
    watched = np.isin(made.groups, groups[: max(1, len(groups) // 10)]) & ~made.test
    learnt = rng.permutation(np.flatnonzero(~watched & ~made.test))[:FITTED]
    tokenizer = PatchTokenizer.fit(as_pixels(made.images[learnt]), setting.codes, setting.patch)
    arrays = dict(
        images=made.images,
        tokens=_encoded(tokenizer, made.images).numpy(),
        codebook=tokenizer.codebook.numpy(),
        labels=made.labels,
        groups=made.groups,
        fit=np.flatnonzero(~watched & ~made.test),
        held_out=rng.permutation(np.flatnonzero(watched))[:1000],
        probed=np.sort(rng.permutation(train)[:images]),
        tested=np.sort(rng.permutation(test)[: 2 * images // 3]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npz")
    np.savez(unfinished, **arrays)
    unfinished.replace(path)
    return path


def read(name: str, path: Path) -> Material:
    """What `make` left."""
    with np.load(path) as arrays:
        return Material(name, SETTINGS[name], **arrays)
