"""Where a picture lies in the resized, cropped or padded input whose features were read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Placement:
    """input = picture * scale + offset, along x and y; the input is `size` (width, height) large.

    Only ratios count, so the input may have any unit: pixels of the picture, or its own.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[float, float]

    def into(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (p, 2) in pixels of the picture as shares of the input; outside 0..1 they were cropped away."""
        return ((points + 0.5) * self.scale + self.offset) / self.size  # a pixel's centre is half a pixel in

    def back(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares (p, 2) of the input as points in pixels of the picture."""
        return (shares * self.size - self.offset) / self.scale - 0.5


def stretched(size: Size) -> Placement:
    """Return the whole picture fills the input, each side scaled by itself."""
    return Placement((1.0, 1.0), (0.0, 0.0), size)


def centre_cropped(size: Size) -> Placement:
    """Return the largest centred square of the picture is the input: resized by its shorter side, then cropped."""
    return _centred(size, min(size))


def padded(size: Size) -> Placement:
    """Return the picture is centred in a square input: resized by its longer side, then padded."""
    return _centred(size, max(size))


def _centred(size: Size, side: int) -> Placement:
    return Placement((1.0, 1.0), ((side - size[0]) / 2, (side - size[1]) / 2), (side, side))
