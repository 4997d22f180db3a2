"""Pictures of images of any number of channels."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from randfeat.data.images import to_pil


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Return images (n, channels, H, W) in [0, 1] as grey or RGB pictures of the channels in `about_channels`."""
    channels = images.shape[1]
    return [to_pil(image[:3] if channels >= 3 else image[:1]) for image in images]


def about_channels(channels: int) -> str:
    """Return a sentence about the channels that pictures show, "" where they show all."""
    if channels in (1, 3):
        return ""
    kept = "the first three, as red, green and blue" if channels > 3 else "the first"
    return f"Of the {channels} channels pictures show {kept}."
