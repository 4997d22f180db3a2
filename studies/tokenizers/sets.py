"""Pictures of the study, as arrays and as a source, and the division of their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from randfeat.data.builtin import DATASETS, make_fashion, make_photographs
from randfeat.data.sources import Source
from randfeat.utils import arrays

FILE, GROUPS = "pictures.npz", "groups.npz"
OWN_SPLIT = ("fashion",)  # sets with test images of their own, which no seed draws
SEED = 1  # of places and of the split; sizes and rates were tried on seed 0


@dataclass(frozen=True)
class Setting:
    """Numbers of a set.

    stride: pixels of a token's side. codes: of every tokenizer. fit: largest number of images that tokenizers and
    generators learn from. probed, tested: of images that probes are fitted on and scored on. steps: of the generator.
    """

    stride: int
    codes: int
    fit: int = 10_000
    probed: int = 2000
    tested: int = 2000
    steps: int = 0


SETTINGS = {
    "fashion": Setting(4, 512, steps=800),
    "letters": Setting(4, 512, steps=800),
    "cluttered": Setting(4, 512, steps=2400),
    "photographs": Setting(8, 1024),  # of 64 x 64 pixels, in colour; reconstructed only
}
HELD_OUT = 300  # largest number of validation images
MAKERS = DATASETS | {"fashion": make_fashion, "photographs": partial(make_photographs, size=64)}


@dataclass(frozen=True)
class Pictures:
    """A set of pictures.

    images: uint8 (n, H, W) or (n, H, W, 3). labels, groups: int64 (n,). fit, held_out: rows of training images that
    networks learn from and are validated on, of other groups. probed, tested: rows that probes are fitted on, and the
    test images.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fit: np.ndarray
    held_out: np.ndarray
    probed: np.ndarray
    tested: np.ndarray

    @property
    def setting(self) -> Setting:
        """Numbers of the set."""
        return SETTINGS[self.name]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        height, width = self.images.shape[1:3]
        return height // self.setting.stride, width // self.setting.stride

    def source(self, rows: np.ndarray) -> ArraySource:
        """Return some of the images as a source."""
        return ArraySource(self.name, self.images[rows])


class ArraySource(Source):
    """Images in memory: uint8 (n, H, W) or (n, H, W, 3)."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        super().__init__(name, [f"{row:06}" for row in range(len(images))])
        self.images = images

    def sizes(self) -> Iterable[int]:
        return [self.images[0].nbytes] * len(self)

    def read(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])

    def values(self, i: int) -> np.ndarray:
        image = self.images[i]
        return image[..., None] if image.ndim == 2 else image


def make(name: str, folder: Path, seed: int = SEED) -> Pictures:
    """Return a set, from its file in the folder where there is one.

    A tenth of the training groups is for validation. seed: of places and of the split, and of which rows take part.
    """
    if (path := folder / FILE).exists():
        with np.load(path) as file:
            return Pictures(name, **file)
    setting = SETTINGS[name]
    made = MAKERS[name](seed=seed, split_seed=None if name in OWN_SPLIT else seed)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.unique(made.groups[~made.test]))
    watched = np.isin(made.groups, groups[: max(1, len(groups) // 10)]) & ~made.test
    pools = {
        "fit": (~watched & ~made.test, setting.fit),
        "held_out": (watched, HELD_OUT),
        "probed": (~made.test, setting.probed),
        "tested": (made.test, setting.tested),
    }
    rows = {part: np.sort(rng.permutation(np.flatnonzero(pool))[:most]) for part, (pool, most) in pools.items()}
    taken, places = np.unique(np.concatenate([*rows.values()]), return_inverse=True)
    ends = np.cumsum([len(part) for part in rows.values()])[:-1]
    divided = dict(zip(rows, np.split(places, ends), strict=True))
    pictures = Pictures(name, made.images[taken], made.labels[taken], made.groups[taken], **divided)
    arrays.write_npz(path, {key: value for key, value in vars(pictures).items() if key != "name"})
    return pictures


def keep_groups(pictures: Pictures, folder: Path) -> None:
    """Write the groups of the test images, which intervals need, where they are not there."""
    if not (path := folder / GROUPS).exists():
        arrays.write_npz(path, {"tested": pictures.groups[pictures.tested]})
