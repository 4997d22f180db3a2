"""Data sets of the study: tokens, pictures where there are some, and the division into training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from randfeat.commands.probe.pictures import codebook
from randfeat.data.builtin import DATASETS
from randfeat.data.token_store import TokenStore
from randfeat.inference.readout import sub_patch_shifts
from randfeat.tokenizers import PatchTokenizer
from randfeat.utils.arrays import write_npz
from randfeat.weights.loading import load_tokenizer

BATCH = 1024  # images tokenized at once
FITTED = 4000  # images that the tokenizer is fitted to


@dataclass(frozen=True)
class Setting:
    """Settings of a set. patch: pixels per token, along one side. codes: of the tokenizer."""

    patch: int
    codes: int


IMAGES = 3000  # largest number of training images that probes see; of test two thirds as many

SETTINGS = {
    "digits": Setting(2, 128),
    "cluttered": Setting(2, 256),
    "letters": Setting(4, 256),
    "photographs": Setting(4, 256),
}
STORED = "tokens"  # name of the set made of two token stores
WATCHED = 1000  # largest number of validation images
GROUPS = "groups.npz"  # beside the set: the groups of `tested` and of `ranked`, which tables need


@dataclass(frozen=True)
class Material:
    """A data set of the study.

    grid: rows and columns of tokens. tokens: integers (n, N). codebook: (V, c), without columns where the tokenizer
    has none. labels, groups: (n,). fit, held_out: rows that networks are trained on and validated on, together all of
    train. probed, tested: rows that probes are fitted on and scored on. images: uint8 (n, H, W) or (n, H, W, 3), or
    None for a set of tokens only.
    """

    name: str
    grid: tuple[int, int]
    tokens: np.ndarray
    codebook: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fit: np.ndarray
    held_out: np.ndarray
    probed: np.ndarray
    tested: np.ndarray
    images: np.ndarray | None = None

    @property
    def pictures(self) -> np.ndarray:
        """The images. Raises a ValueError where there are none."""
        if self.images is None:
            raise ValueError(f"there are no pictures in the set {self.name}, only tokens: use a set of images")
        return self.images

    @property
    def patch(self) -> int:
        """Pixels per token, along one side."""
        return self.pictures.shape[1] // self.grid[0]

    @property
    def tokenizer(self) -> PatchTokenizer:
        """Tokenizer of the set."""
        channels = self.pictures.shape[3] if self.pictures.ndim == 4 else 1
        made = PatchTokenizer(len(self.codebook), self.patch, channels)
        made.codebook.copy_(torch.from_numpy(self.codebook))
        return made

    @property
    def ranked(self) -> np.ndarray:
        """Half of the probed rows, by which feature specs are ranked."""
        return ranked(self.probed)

    @cached_property
    def patches(self) -> np.ndarray:
        """Pixels of each image patch by patch: uint8 (n, N * p * p * C)."""
        return self.cut(self.pictures)

    def cut(self, images: np.ndarray) -> np.ndarray:
        """Return the pixels of images of the set's size patch by patch, as `patches`."""
        rows, columns = self.grid
        p = self.patch
        cut = images.reshape(len(images), rows, p, columns, p, -1)
        return np.ascontiguousarray(cut.swapaxes(2, 3)).reshape(len(images), -1)

    def places(self, images: np.ndarray) -> list[np.ndarray]:
        """Return images of the set's size at 2 x 2 sub-patch shifts, as `shifts2` of a feature spec has them."""
        moved = (sub_patch_shifts(as_pixels(images) * 255, self.patch, 2) + 0.5).to(torch.uint8)
        return [one.reshape(images.shape) for one in moved.permute(1, 0, 3, 4, 2).numpy()]

    def encoded(self, images: np.ndarray) -> Tensor:
        """Return images of the set's size as tokens, int64 (n, N)."""
        return _encoded(self.tokenizer, images)


def ranked(probed: np.ndarray) -> np.ndarray:
    """Return the rows of `Material.ranked`."""
    return probed[::2]


def as_pixels(images: np.ndarray) -> Tensor:
    """Return uint8 images as float32 (n, C, H, W) in [0, 1]."""
    pixels = torch.from_numpy(images).float() / 255
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def _encoded(tokenizer: PatchTokenizer, images: np.ndarray) -> Tensor:
    parts = np.array_split(images, -(-len(images) // BATCH))
    return torch.cat([tokenizer.encode(as_pixels(part)).flatten(1) for part in parts])


def make(
    name: str, folder: Path, data_seed: int = 0, split_seed: int | None = None, images: int = IMAGES, line: int = 0
) -> Path:
    """Return the path of a set's file, which is made if need be and opened with `read`.

    images: see IMAGES. line: of the progress bar, see `run_all`.
    """
    path = folder / "material.npz"
    if path.exists():
        return path
    setting, made = SETTINGS[name], DATASETS[name](seed=data_seed, split_seed=split_seed)
    rng = np.random.default_rng([data_seed, split_seed or 0])
    train, test = np.flatnonzero(~made.test), np.flatnonzero(made.test)
    groups = rng.permutation(np.unique(made.groups[train]))
    watched = np.isin(made.groups, groups[: max(1, len(groups) // 10)]) & ~made.test
    learnt = rng.permutation(np.flatnonzero(~watched & ~made.test))[:FITTED]
    tokenizer = PatchTokenizer.fit(as_pixels(made.images[learnt]), setting.codes, setting.patch)
    arrays = dict(
        images=made.images,
        grid=np.array(made.images.shape[1:3]) // setting.patch,
        tokens=_encoded(tokenizer, made.images).numpy(),
        codebook=tokenizer.codebook.numpy(),
        labels=made.labels,
        groups=made.groups,
        fit=np.flatnonzero(~watched & ~made.test),
        held_out=rng.permutation(np.flatnonzero(watched))[:WATCHED],
        probed=np.sort(rng.permutation(train)[:images]),
        tested=np.sort(rng.permutation(test)[: 2 * images // 3]),
    )
    return _save(path, arrays)


def of_stores(
    folder: Path, train: Path, test: Path, split_seed: int | None = None, images: int = IMAGES, line: int = 0
) -> Path:
    """Return the same of two token stores, such as ImageNet's, with the centre crop of each image.

    split_seed: of the choice of probed and validation images. Each image is a group of its own.
    """
    path = folder / "material.npz"
    if path.exists():
        return path
    stores = TokenStore.open(train), TokenStore.open(test)
    for key in ("tokenizer", "grid"):
        if len({str(store.meta[key]) for store in stores}) > 1:
            raise ValueError(f"{train} and {test} differ in their {key}: make both with the same")
    counts, rng = [len(store) for store in stores], np.random.default_rng(split_seed or 0)
    rows = rng.permutation(counts[0])
    watched = min(WATCHED, counts[0] // 10)
    book = codebook(load_tokenizer(train))
    arrays = dict(
        grid=np.array(stores[0].grid),
        tokens=np.concatenate([store.tokens[:, 0] for store in stores]).astype(np.int32),
        codebook=np.empty((stores[0].vocab_size, 0), dtype=np.float32) if book is None else book,
        labels=_labels(stores),
        groups=np.arange(sum(counts)),
        fit=np.sort(rows[watched:]),
        held_out=rows[:watched],
        probed=np.sort(rng.permutation(counts[0])[:images]),
        tested=np.sort(counts[0] + rng.permutation(counts[1])[: 2 * images // 3]),
    )
    return _save(path, arrays)


def _labels(stores: Sequence[TokenStore]) -> np.ndarray:
    found = [store.labels for store in stores]
    for store, labels in zip(stores, found, strict=True):
        if labels is None or None in labels:
            raise ValueError(f"{store.directory} has images without labels: tokenize a labelled data set")
        if store.classes != stores[0].classes:
            raise ValueError(
                f"{stores[0].directory} and {store.directory} have other classes: make both of one data set"
            )
    return np.concatenate(found)


def _save(path: Path, parts: Mapping[str, np.ndarray]) -> Path:
    groups = parts["groups"]
    shown = {"tested": groups[parts["tested"]], "ranked": groups[ranked(parts["probed"])]}
    write_npz(path.with_name(GROUPS), shown)
    write_npz(path, parts, compressed=False)
    return path


def read(name: str, path: Path) -> Material:
    """Open the file of a set."""
    with np.load(path) as file:
        arrays = dict(file)
    rows, columns = arrays.pop("grid").tolist()
    return Material(name, (rows, columns), **arrays)
