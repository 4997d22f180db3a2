"""Which parts of a picture become tokens. Each rule makes the same number of crops of every picture, the first from
its middle, and is a function of the picture and its number alone."""

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
    """size: height and width of a crop. channels: 1 (grey) or 3 (RGB)."""

    size: tuple[int, int]
    channels: int

    @property
    @abstractmethod
    def count(self) -> int:
        """Crops of a picture."""

    @abstractmethod
    def __call__(self, picture: Image.Image, number: int) -> np.ndarray:
        """Return the crops of the picture with this number among all: uint8 (count, h, w, channels)."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the rule in words, for the record."""


@dataclass(frozen=True)
class CentreCrops(Crops):
    """ADM's centre crop, and its mirror image if `flip` is set (as RandAR's and LlamaGen's code tokenises)."""

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
    """For each range r the centre and the four corners of the r times larger centre crop, then all five mirrored.

    1.1 is ARPG's and LlamaGen's; LlamaGen's best results add 1.05.
    """

    ranges: tuple[float, ...] = (1.1, 1.05)

    def __post_init__(self) -> None:
        if not self.ranges or not all(1 <= r <= 4 for r in self.ranges):
            raise ValueError(f"ranges of ten-crops are one or more numbers from 1 to 4, got {self.ranges}")

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
    """The centre crop, then `others` random ones: of an area that is a share `scale` of the picture's, with sides in a
    proportion within `ratio` (drawn evenly in its logarithm), at a place that is drawn evenly, mirrored every other
    time (Szegedy et al. 2015). A crop that would be longer than the picture is shrunk to fit.
    """

    others: int = 4
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.others < 1:
            raise ValueError(f"random crops are one or more beside that of the centre, got {self.others}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"the scale of random crops is two shares of the area, smaller first, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"the ratio of random crops is two numbers above 0, smaller first, got {self.ratio}")

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
