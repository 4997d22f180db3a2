"""Values of images of any number of channels, scaled by their range to [0, 1] and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .decode import RANGES, natural_range
from .errors import UnfitImage, UnreadableImage

Range = tuple[float, float]


def to_unit(array: np.ndarray, channels: int, value_range: Range) -> np.ndarray:
    """Return an array (H, W, C) as float32 in [0, 1]: the range's lowest value becomes 0, its highest 1.

    Raises an UnreadableImage for an array without pixels or with values that are not finite. Raises an UnfitImage for
    one of other channels, for values outside the range, beyond which floats may lie by rounding, and for bytes where
    the range goes further than these.
    """
    if array.ndim != 3 or not array.size:
        raise UnreadableImage("no pixels" if array.ndim == 3 else f"an array {array.shape}, expected (H, W, C)")
    if array.shape[2] != channels:
        raise UnfitImage(
            f"has {array.shape[2]} channels, expected {channels}: give --channels {array.shape[2]} if all images have "
            "so many, or images of one kind"
        )
    low, high = value_range
    if array.dtype == np.uint8 and high > RANGES["uint8"][1]:
        raise UnfitImage(f"is of 8 bits, where the range is from {low:g} to {high:g}: give files of one type")
    lowest, highest = float(array.min()), float(array.max())
    rounding = 1e-6 * (high - low) if array.dtype.kind == "f" else 0
    if not lowest >= low - rounding or not highest <= high + rounding:
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise UnreadableImage("values that are not finite")
        raise UnfitImage(
            f"has values from {lowest:g} to {highest:g}, outside the range from {low:g} to {high:g}: give a range that "
            "holds the values of all images (--range LOW HIGH)"
        )
    return ((array.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)


def as_tensor(crops: Tensor) -> Tensor:
    """Return crops (..., h, w, C), uint8 or floats in [0, 1], as floats (..., C, h, w) in [0, 1]."""
    images = crops.movedim(-1, -3)
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def from_unit(images: Tensor, value_range: Range) -> np.ndarray:
    """Return images (B, C, H, W) in [0, 1] as values (B, H, W, C) of their range.

    The type is the one whose natural range it is, values rounded: uint8 for 0 to 255, uint16 for 0 to 65535; and
    float32 for others. Values of integers come back as they were read, where they are left alone between.
    """
    low, high = value_range
    unit = images.detach().movedim(1, -1).double().clamp(0, 1).cpu().numpy()
    made = low + unit * (high - low)
    natural = next((dtype for dtype in (np.uint8, np.uint16) if natural_range(dtype) == tuple(value_range)), None)
    return made.astype(np.float32) if natural is None else made.round().astype(natural)


def described(channels: int, value_range: Range) -> str:
    """Return the kind of images in words, for the record of what was made of them."""
    return f"{channels} channels of {value_range[0]:g} to {value_range[1]:g}"
