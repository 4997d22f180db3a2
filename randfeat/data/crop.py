"""The centre crop by which all images get one size: pictures, and arrays of values with a range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import values
from .decode import MODES, as_seen, natural_range, picture_values
from .errors import SkippedImage, UnfitImage, UnreadableImage
from .sources import Source

AnyImage: TypeAlias = "Image.Image | np.ndarray"  # a picture, or values (H, W, C)
STRIP = 8  # targets; of a longer picture only the middle so many are scaled


@dataclass(frozen=True)
class CentreCrop:
    """Centre crop of ADM (Dhariwal and Nichol, 2021), by which all images get one size.

    An image is halved with a box filter while at least twice as large as the target, scaled with bicubic interpolation
    until it covers the target, and cropped at the centre; one of the target's size is left as it is.
    size: height and width. channels: of the result. value_range: None for pictures, which become 1 (grey) or 3 (RGB)
    channels; or the (low, high) of arrays, of exactly so many channels.
    """

    size: tuple[int, int]
    channels: int
    value_range: tuple[float, float] | None = None

    def __str__(self) -> str:
        h, w = self.size
        kind = MODES[self.channels] if self.value_range is None else values.described(self.channels, self.value_range)
        return f"{kind} {h} x {w}: box-halved while at least twice as large, bicubic until it covers, centre crop"

    def __call__(self, image: AnyImage) -> np.ndarray:
        """Return a picture as uint8 (h, w, channels); with a value range, an array (H, W, C) as float32 in [0, 1].

        Raises an UnreadableImage for an image without pixels, and an UnfitImage for other channels or values.
        """
        fitting = [fitted(layer, self.size) for layer in layers(image, self.channels, self.value_range)]
        return joined(fitting, self.channels)

    def of(self, source: Source, i: int) -> np.ndarray:
        """Return the crop of row i of a source, read as its picture or, with a value range, as its values.

        Raises as `__call__`; an UnfitImage names the file.
        """
        with naming(source.paths[i]):
            return self(row_of(source, i, self.value_range))


def row_of(source: Source, i: int, value_range: tuple[float, float] | None) -> AnyImage:
    """Return row i of a source as a crop takes it: its picture, or with a value range its values (H, W, C)."""
    return source.read(i) if value_range is None else source.values(i)


@overload
def images_of(
    source: Source, rows: Iterable[int], value_range: tuple[float, float] | None = None
) -> Iterator[Image.Image | Tensor]: ...


@overload
def images_of(
    source: Source, rows: Iterable[int], value_range: tuple[float, float] | None = None, *, skipping: Literal[True]
) -> Iterator[Image.Image | Tensor | SkippedImage]: ...


def images_of(
    source: Source, rows: Iterable[int], value_range: tuple[float, float] | None = None, *, skipping: bool = False
) -> Iterator[Image.Image | Tensor | SkippedImage]:
    """Yield rows of a source as `as_images` takes them: pictures, or with a range values as tensors (C, H, W).

    skipping: a `SkippedImage` comes in place of an image that cannot be read, which `reading.ReadBatches` takes; else
    an UnreadableImage names it.
    """
    for row in rows:
        try:
            image = row_of(source, row, value_range)
        except UnreadableImage as error:
            path = source.paths[row]
            if not skipping:
                text = f"{path} of {source.name} cannot be read ({error.reason}): take it out"
                raise UnreadableImage(text, error.reason) from None
            yield SkippedImage(path, error.reason)
            continue
        yield image if isinstance(image, Image.Image) else torch.from_numpy(image).movedim(-1, 0)


def are_pictures(channels: int | None, value_range: tuple[float, float] | None) -> bool:
    """Return whether images of so many channels, None for any, and of this range are read as pictures of 8 bits."""
    return value_range is None and (channels is None or channels in MODES)


def kind_of(
    images: Iterable[AnyImage], name: str, channels: int | None = None, value_range: tuple[float, float] | None = None
) -> tuple[int, tuple[float, float] | None]:
    """Return the channels and the value range of images, those given or else found.

    Pictures have 1 channel where all are grey, else 3, and no range. Arrays have their channels, and the natural range
    of their type. name: of the data. Raises a ValueError where arrays have several numbers of channels, or no such
    range.
    """
    read = list(images)
    if are_pictures(channels, value_range):
        return channels or (1 if all(isinstance(one, Image.Image) and one.mode == "L" for one in read) else 3), None
    arrays = [one for one in read if isinstance(one, np.ndarray)]
    several, types = sorted({array.shape[2] for array in arrays}), {array.dtype for array in arrays}
    if channels is None and len(several) > 1:
        raise ValueError(
            f"images of {name} have {' and '.join(map(str, several))} channels: give images of one kind, or --channels "
            "for those that are meant"
        )
    found = value_range or (natural_range(types.pop()) if len(types) == 1 else None)
    if found is None:
        raise ValueError(f"the range of the values of {name} is not known by their type: state it (--range LOW HIGH)")
    return channels or several[0], found


def layers(image: AnyImage, channels: int, value_range: tuple[float, float] | None) -> list[Image.Image]:
    """Return what is scaled in one: a picture of so many channels; or each channel of an array, floats in [0, 1]."""
    if value_range is not None:
        array = picture_values(image) if isinstance(image, Image.Image) else image
        unit = values.to_unit(array, channels, value_range)
        return [Image.fromarray(np.ascontiguousarray(unit[..., channel])) for channel in range(channels)]
    if not isinstance(image, Image.Image):
        raise ValueError(f"an array {image.shape} is no picture: state the range of its values (value_range)")
    if channels not in MODES:
        raise ValueError(f"pictures have 1 or 3 channels, not {channels}: state the range of the values (value_range)")
    picture = as_seen(image).convert(MODES[channels])
    if 0 in picture.size:
        raise UnreadableImage("no pixels")
    return [picture]


def joined(layers: list[Image.Image], channels: int) -> np.ndarray:
    """Return the `layers` of an image as (h, w, channels): uint8 of a picture, else float32 in [0, 1]."""
    if layers[0].mode == "F":
        return np.stack([np.asarray(layer) for layer in layers], axis=-1).clip(0, 1)  # bicubic interpolation overshoots
    width, height = layers[0].size
    return np.array(layers[0], dtype=np.uint8).reshape(height, width, channels)


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture of any mode brought to a height and width by the rule of `CentreCrop`."""
    h, w = size
    # a picture one pixel wide and thousands high would fill the memory if all of it were scaled
    picture = _middle(picture, round(STRIP * picture.height * w / h) or 1, round(STRIP * picture.width * h / w) or 1)
    while picture.width >= 2 * w and picture.height >= 2 * h:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = max(w / picture.width, h / picture.height)
    covering = max(w, round(picture.width * scale)), max(h, round(picture.height * scale))
    return _middle(picture.resize(covering, Image.Resampling.BICUBIC), w, h)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Put the name of a file before the text of an UnfitImage that is raised in this block."""
    try:
        yield
    except UnfitImage as error:
        raise UnfitImage(f"{path} {error}") from None


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return the centre of a picture, at most so wide and high."""
    width, height = min(width, picture.width), min(height, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
