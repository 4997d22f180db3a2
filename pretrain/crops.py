"""Crops of a picture that become tokens.

Each rule makes the same number of crops of every picture, the first of them central, as a function of the picture and
its number only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from PIL import Image

from randfeat.data.decode import as_seen
from randfeat.data.images import CentreCrop
from randfeat.utils import rng

MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Crops(ABC):
    """Crop rule. size: height and width of a crop. channels: 1 (grey) or 3 (RGB)."""

    size: tuple[int, int]
    channels: int

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of crops per picture."""

    @abstractmethod
    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        """Return the crops of a picture, uint8 (count, h, w, channels). number: its row in the source."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the rule in words, for the token store's record."""


@dataclass(frozen=True)
class CentreCrops(Crops):
    """ADM's centre crop and, with `flip`, its mirror image (as in the code of RandAR and LlamaGen)."""

    flip: bool = True

    @property
    def count(self) -> int:
        return 2 if self.flip else 1

    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        middle = CentreCrop(self.size, self.channels)(picture)
        return np.stack([middle, middle[:, ::-1]][: self.count])

    def __str__(self) -> str:
        return f"{CentreCrop(self.size, self.channels)}{'; and mirrored' if self.flip else ''}"


@dataclass(frozen=True)
class TenCrops(Crops):
    """Ten crops for each range r: centre and four corners of the r times larger centre crop, then all five mirrored.

    ARPG and LlamaGen use 1.1; LlamaGen's best results add 1.05.
    """

    ranges: tuple[float, ...] = (1.1, 1.05)

    def __post_init__(self) -> None:
        if not self.ranges or not all(1 <= r <= 4 for r in self.ranges):
            raise ValueError(f"ranges of ten-crops must be one or more numbers from 1 to 4, got {self.ranges}")

    @property
    def count(self) -> int:
        return 10 * len(self.ranges)

    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        h, w = self.size
        crops = []
        for r in self.ranges:
            large = CentreCrop((int(h * r), int(w * r)), self.channels)(picture)
            down, across = large.shape[0] - h, large.shape[1] - w
            corners = ((down // 2, across // 2), (0, 0), (0, across), (down, 0), (down, across))
            five = [large[top : top + h, left : left + w] for top, left in corners]
            crops += five + [crop[:, ::-1] for crop in five]
        return np.stack(crops)

    def __str__(self) -> str:
        larger = " and ".join(f"{r:g}" for r in self.ranges)
        return f"ten-crop of {larger} times {CentreCrop(self.size, self.channels)}"


@dataclass(frozen=True)
class RandomCrops(Crops):
    """Centre crop and `others` random resized crops (Szegedy et al. 2015, arXiv 1409.4842).

    scale: range of the crop's share of the picture's area, drawn uniformly. ratio: range of width by height relative to
    `size`, drawn uniformly in its logarithm. The place is uniform, and half of the crops are mirrored. A crop longer
    than the picture is shrunk to fit.
    """

    others: int = 4
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.others < 1:
            raise ValueError(f"others must be 1 or more random crops beside the centre crop, got {self.others}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two shares of the area from above 0 to 1, smaller first, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two numbers above 0, smaller first, got {self.ratio}")

    @property
    def count(self) -> int:
        return 1 + self.others

    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        seen = as_seen(picture).convert(MODES[self.channels])
        drawn = rng.uniform(rng.derive(self.seed, number, 0), 5 * self.others).view(-1, 5).tolist()
        others = [self._crop(seen, *numbers) for numbers in drawn]
        return np.stack([CentreCrop(self.size, self.channels)(picture), *others])

    def _crop(self, picture: Image.Image, area: float, shape: float, x: float, y: float, mirrored: float) -> np.ndarray:
        (low, high), (narrow, wide) = self.scale, self.ratio
        size = (low + (high - low) * area) * picture.width * picture.height
        proportion = math.exp(math.log(narrow) + math.log(wide / narrow) * shape) * self.size[1] / self.size[0]
        width, height = math.sqrt(size * proportion), math.sqrt(size / proportion)
        shrink = min(1, picture.width / width, picture.height / height)
        width, height = min(width * shrink, picture.width), min(height * shrink, picture.height)  # but for rounding
        left, top = x * (picture.width - width), y * (picture.height - height)
        box = left, top, min(left + width, picture.width), min(top + height, picture.height)
        made = picture.resize(self.size[::-1], Image.Resampling.BICUBIC, box)
        crop = np.array(made, dtype=np.uint8).reshape(*self.size, self.channels)
        return crop[:, ::-1] if mirrored < 0.5 else crop

    def __str__(self) -> str:
        scale, ratio = (f"{low:g}-{high:g}" for low, high in (self.scale, self.ratio))
        own = f"{self.others} random crops, scale {scale}, ratio {ratio}, seed {self.seed}"
        return f"{CentreCrop(self.size, self.channels)}; and {own}"
