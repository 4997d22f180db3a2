"""Images in: whatever a user holds becomes a float tensor in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from . import progress

Picture: TypeAlias = "Image.Image | str | Path"
Images: TypeAlias = "Tensor | np.ndarray | Picture | Sequence[Picture]"
MODES = {1: "L", 3: "RGB"}


def as_images(images: Images, channels: int, size: tuple[int, int]) -> Tensor:
    """Images as float32 (B, channels, H, W) in [0, 1].

    images: PIL pictures or paths (one or several; scaled to cover `size`, height and width, with bicubic resampling and
    cropped at the centre), or an array or tensor, (B, H, W), (B, channels, H, W) or for arrays (B, H, W, channels),
    of floats in [0, 1] or of uint8, which is taken as it is.
    """
    if isinstance(images, (Image.Image, str, Path)):
        images = [images]
    if isinstance(images, np.ndarray):
        if images.ndim == 4 and images.shape[-1] == channels and images.shape[1] != channels:
            images = images.transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))  # a copy of a read-only one
    if isinstance(images, Tensor):
        if images.ndim not in (3, 4):
            raise ValueError(f"images must be (B, H, W) or (B, {channels}, H, W), got {tuple(images.shape)}")
        images = images.unsqueeze(1) if images.ndim == 3 else images
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if images.numel() and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"image values must lie in [0, 1] (or be uint8), got {images.min():.3g} to {images.max():.3g}"
            )
        return images
    if not len(images):
        raise ValueError("there are no images: give at least one")
    return torch.cat([_as_array(picture, channels, size) for picture in images])


def _as_array(picture: Picture, channels: int, size: tuple[int, int]) -> Tensor:
    if not isinstance(picture, Image.Image):
        with Image.open(picture) as opened:
            return _as_array(opened, channels, size)
    upright = ImageOps.exif_transpose(picture).convert(MODES[channels])
    fitted = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(fitted, dtype=np.float32) / 255).reshape(1, *size, channels).movedim(3, 1)


def batches(images: Images | Iterable[Picture], size: int, what: str | None = None) -> Iterator[Images]:
    """Images in batches of `size`, the last one smaller. what: the title of a progress bar, which None leaves out."""
    if isinstance(images, (Image.Image, str, Path)):
        images = [images]
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"batch_size must be a whole number from 1, got {size}")
    total = len(images) if isinstance(images, Sized) else None
    batch: Any = ()
    with progress.bar(total, what or "", "image", shown=what is not None) as bar:
        for batch in _slices(images, size):
            yield batch
            bar.update(len(batch))
    if not len(batch):
        raise ValueError("there are no images: give at least one")


def _slices(images: Tensor | np.ndarray | Iterable[Picture], size: int) -> Iterator[Any]:
    if isinstance(images, (Tensor, np.ndarray)):
        return (images[start : start + size] for start in range(0, len(images), size))
    iterator = iter(images)
    return iter(lambda: list(islice(iterator, size)), [])


def to_pil(image: Tensor) -> Image.Image:
    """A tensor (channels, H, W) in [0, 1] as a PIL image, rounded to 8 bits."""
    array = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
