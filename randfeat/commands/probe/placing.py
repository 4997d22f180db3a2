"""Where a model's preparation puts a picture, and what of the picture it sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from randfeat.features.encoder import Encoder, PipelineEncoder
from randfeat.probes import Placement, stretched

Place = Callable[[tuple[int, int]], Placement]  # of a picture of this width and height
Box = tuple[float, float, float, float]  # left, top, right, bottom


def placement(encoder: Encoder) -> Place:
    """Where an encoder's preparation puts a picture of a size (width, height)."""
    if isinstance(encoder, PipelineEncoder):
        return partial(covering, encoder.pipeline.image_size, 1.0)
    config = encoder.prepare.config  # type: ignore[attr-defined]
    if config.get("crop_mode", "center") == "squash":
        return stretched
    if config.get("crop_mode", "center") != "center":
        raise ValueError(f"{encoder.name} pads its pictures, and points cannot be followed there: choose another model")
    return partial(covering, tuple(config["input_size"][1:]), config["crop_pct"])


def covering(target: tuple[int, int], share: float, size: tuple[int, int]) -> Placement:
    """Return a picture (width, height) is scaled until it covers `target` (height, width) over `share`, and cropped at
    the centre to the target; in pixels of the picture."""
    (height, width), (across, down) = target, size
    scale = max(width / across, height / down) / share
    seen = width / scale, height / scale
    return Placement((1.0, 1.0), ((seen[0] - across) / 2, (seen[1] - down) / 2), seen)


def region(place: Place, size: tuple[int, int]) -> Box:
    """Return the part of a picture (width, height) that lies in the input, where 0 is the edge of its first pixel."""
    (left, top), (right, bottom) = place(size).back(np.array([[0.0, 0.0], [1.0, 1.0]])) + 0.5
    return max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom)


def seen(picture: Image.Image, place: Place, size: tuple[int, int]) -> np.ndarray:
    """That part as uint8 (h, w, 3). size: (h, w)."""
    box = region(place, picture.size)
    return np.asarray(picture.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC, box))
