"""Crops of an image that become tokens.

Each rule makes the same number of crops of every image, the first of them central, as a function of the image and its
number only. Images are pictures, or arrays of values where a rule has their range.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from randfeat.data.crop import AnyImage, CentreCrop, joined, layers
from randfeat.utils import rng


@dataclass(frozen=True)
class Crops(ABC):
    """Crop rule. size: height and width of a crop. channels, value_range: as of a `CentreCrop`."""

    size: tuple[int, int]
    channels: int
    value_range: tuple[float, float] | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of crops per picture."""

    @abstractmethod
    def __call__(self, image: AnyImage, number: int) -> np.ndarray:
        """Return the crops of an image, (count, h, w, channels): uint8, or with a range float32 in [0, 1].

        image: a picture, with a range an array (H, W, C). number: its row in the source. Raises as `CentreCrop`.
        """

    def centre(self, times: float = 1) -> CentreCrop:
        """Return the centre crop of so many times the size."""
        h, w = self.size
        return CentreCrop((int(h * times), int(w * times)), self.channels, self.value_range)

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

    def __call__(self, image: AnyImage, number: int) -> np.ndarray:
        middle = self.centre()(image)
        return np.stack([middle, middle[:, ::-1]][: self.count])

    def __str__(self) -> str:
        return f"{self.centre()}{'; and mirrored' if self.flip else ''}"


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

    def __call__(self, image: AnyImage, number: int) -> np.ndarray:
        h, w = self.size
        crops = []
        for r in self.ranges:
            large = self.centre(r)(image)
            down, across = large.shape[0] - h, large.shape[1] - w
            corners = ((down // 2, across // 2), (0, 0), (0, across), (down, 0), (down, across))
            five = [large[top : top + h, left : left + w] for top, left in corners]
            crops += five + [crop[:, ::-1] for crop in five]
        return np.stack(crops)

    def __str__(self) -> str:
        larger = " and ".join(f"{r:g}" for r in self.ranges)
        return f"ten-crop of {larger} times {self.centre()}"


@dataclass(frozen=True)
class RandomCrops(Crops):
    """Centre crop and `others` random resized crops (Szegedy et al. 2015, arXiv 1409.4842).

    scale: range of the crop's share of the picture's area, drawn uniformly. ratio: range of width by height relative to
    `size`, drawn uniformly in its logarithm. The place is uniform, and half of the crops are mirrored. A crop longer
    than the picture is shrunk to fit. contrast: values are multiplied by a factor drawn uniformly from 1 - contrast to
    1 + contrast, and cut at the largest, so that crops that are to agree do not do so by their brightness.
    """

    others: int = 4
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    seed: int = 0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if self.others < 1:
            raise ValueError(f"others must be 1 or more random crops beside the centre crop, got {self.others}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two shares of the area from above 0 to 1, smaller first, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two numbers above 0, smaller first, got {self.ratio}")
        if not 0 <= self.contrast < 1:
            raise ValueError(f"contrast must be from 0 to less than 1, got {self.contrast}")

    @property
    def count(self) -> int:
        return 1 + self.others

    def __call__(self, image: AnyImage, number: int) -> np.ndarray:
        seen = layers(image, self.channels, self.value_range)
        drawn = rng.uniform(rng.derive(self.seed, number, 0), 5 * self.others).view(-1, 5).tolist()
        others = [self._crop(seen, *numbers) for numbers in drawn]
        if self.contrast:
            factors = 1 + self.contrast * (2 * rng.uniform(rng.derive(self.seed, number, 1), self.others) - 1)
            others = [self._multiplied(crop, factor) for crop, factor in zip(others, factors.tolist(), strict=True)]
        return np.stack([self.centre()(image), *others])

    def _multiplied(self, crop: np.ndarray, factor: float) -> np.ndarray:
        largest = 1.0 if self.value_range else 255
        changed = np.minimum(crop * factor, largest)
        return (changed if self.value_range else changed.round()).astype(crop.dtype)

    def _crop(
        self, seen: list[Image.Image], area: float, shape: float, x: float, y: float, mirrored: float
    ) -> np.ndarray:
        picture = seen[0]
        (low, high), (narrow, wide) = self.scale, self.ratio
        size = (low + (high - low) * area) * picture.width * picture.height
        proportion = math.exp(math.log(narrow) + math.log(wide / narrow) * shape) * self.size[1] / self.size[0]
        width, height = math.sqrt(size * proportion), math.sqrt(size / proportion)
        shrink = min(1, picture.width / width, picture.height / height)
        width, height = min(width * shrink, picture.width), min(height * shrink, picture.height)  # but for rounding
        left, top = x * (picture.width - width), y * (picture.height - height)
        box = left, top, min(left + width, picture.width), min(top + height, picture.height)
        made = [layer.resize(self.size[::-1], Image.Resampling.BICUBIC, box) for layer in seen]
        crop = joined(made, self.channels)
        return crop[:, ::-1] if mirrored < 0.5 else crop

    def __str__(self) -> str:
        scale, ratio = (f"{low:g}-{high:g}" for low, high in (self.scale, self.ratio))
        own = f"{self.others} random crops, scale {scale}, ratio {ratio}, seed {self.seed}"
        own += f", contrast {self.contrast:g}" if self.contrast else ""
        return f"{self.centre()}; and {own}"


@dataclass(frozen=True)
class MovedCrops(Crops):
    """Centre crop, and `others` of it moved by up to `reach` pixels down and across, half of them mirrored.

    Moves are drawn uniformly among whole pixels; the edge fills the gap. A tokenizer cuts each where it stands, so
    that one picture is shown in other tokens, at its full size.
    """

    others: int = 4
    reach: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.others < 1:
            raise ValueError(f"others must be 1 or more moved crops beside the centre crop, got {self.others}")
        if not 1 <= self.reach < min(self.size):
            raise ValueError(
                f"reach must be from 1 to less than the {min(self.size)} pixels of a side, got {self.reach}"
            )

    @property
    def count(self) -> int:
        return 1 + self.others

    def __call__(self, image: AnyImage, number: int) -> np.ndarray:
        middle = self.centre()(image)
        padded = np.pad(middle, ((self.reach, self.reach), (self.reach, self.reach), (0, 0)), mode="edge")
        drawn = rng.uniform(rng.derive(self.seed, number, 0), 3 * self.others).view(-1, 3).numpy()
        corners = (drawn[:, :2] * (2 * self.reach + 1)).astype(int)
        height, width = self.size
        others = [padded[top : top + height, left : left + width] for top, left in corners]
        mirrored = drawn[:, 2] < 0.5
        return np.stack([middle, *(one[:, ::-1] if m else one for one, m in zip(others, mirrored, strict=True))])

    def __str__(self) -> str:
        return f"{self.centre()}; and {self.others} moved by up to {self.reach} pixels, seed {self.seed}"
