"""Images of a user, in any form, as pictures of 8 bits, and as a float tensor in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..utils import progress
from ..utils.checks import check_whole_number
from . import values
from .decode import MODES, UnreadableImage, as_seen, natural_range, open_picture, open_values, picture_values
from .errors import UnfitImage
from .sources import Source

Array: TypeAlias = "Tensor | np.ndarray"
Picture: TypeAlias = "Image.Image | str | Path"
Images: TypeAlias = "Array | Picture | Iterable[Array | Picture]"
AnyImage: TypeAlias = "Image.Image | np.ndarray"  # a picture, or values (H, W, C)
CHANNELS = (1, 3, 4)  # of an array that can be a picture; the fourth is opacity
STRIP = 8  # targets; of a longer picture only the middle so many are scaled

# pictures ------------------------------------------------------------------------------------------------------------


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


def images_of(
    source: Source, rows: Iterable[int], value_range: tuple[float, float] | None = None
) -> Iterator[Image.Image | Tensor]:
    """Yield rows of a source as `as_images` takes them: pictures, or with a range values as tensors (C, H, W)."""
    for row in rows:
        image = row_of(source, row, value_range)
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


def batches(
    images: Images | Iterable[Picture], size: int, what: str | None = None
) -> Iterator[Array | list[Array | Picture]]:
    """Yield images in batches of `size`, the last one smaller. what: title of a progress bar, None for no bar."""
    listed = _listed(images)
    check_whole_number("batch_size", size, 1)
    total = len(listed) if isinstance(listed, Sized) else None
    batch: Any = ()
    with progress.bar(total, what or "", "image", shown=what is not None) as bar:
        for batch in _slices(listed, size):
            yield batch
            bar.update(len(batch))
    if not len(batch):
        raise ValueError("there are no images: give at least one")


def _listed(images: Images | Iterable[Picture]) -> Any:
    """Return several images, as an array or an iterable; a ValueError for anything else."""
    if isinstance(images, (Image.Image, str, Path)):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":  # of paths or other objects
        return images.tolist()
    if isinstance(images, (Tensor, np.ndarray)) and images.ndim not in (3, 4):
        raise ValueError(
            f"images must be (B, H, W), (B, channels, H, W) or (B, H, W, channels), got {tuple(images.shape)}: "
            "give one image in a list, [image]"
        )
    if not isinstance(images, Iterable) or isinstance(images, Mapping) or hasattr(images, "columns"):
        raise ValueError(
            f"images are PIL images, paths, arrays or tensors, or a list of them, got {type(images).__name__}"
        )
    return images


def _slices(images: Tensor | np.ndarray | Iterable[Picture], size: int) -> Iterator[Any]:
    """Return an iterator over slices of an array, or lists from an iterable, of `size` images."""
    if isinstance(images, (Tensor, np.ndarray)):
        return (images[start : start + size] for start in range(0, len(images), size))
    iterator = iter(images)
    return iter(lambda: list(islice(iterator, size)), [])


def to_pil(image: Tensor) -> Image.Image:
    """Return a tensor (1 or 3, H, W) in [0, 1] as a PIL image, rounded to 8 bits; `preview` shows other channels."""
    if len(image) not in MODES:
        raise ValueError(f"a picture has 1 or 3 channels, not {len(image)}: `preview` shows some of them")
    array = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def preview(image: Tensor) -> Image.Image:
    """Return a tensor (channels, H, W) in [0, 1] as a picture of 8 bits: its first three channels, or the first alone
    of one or two, as grey.
    """
    return to_pil(image[:3] if len(image) >= 3 else image[:1])


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return the centre of a picture, at most so wide and high."""
    width, height = min(width, picture.width), min(height, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


# arrays --------------------------------------------------------------------------------------------------------------


def pictures(images: Images) -> list[Image.Image]:
    """Return each of one or several pictures that `as_images` takes: upright, of its own size, mode "L" or "RGB"."""
    several = _listed(images)
    if isinstance(several, np.ndarray) and several.ndim == 3 and several.shape[2] in (3, 4):
        raise ValueError(
            f"an array {tuple(several.shape)} looks like one picture, and a batch of grey ones would be (B, H, W): "
            "give one picture in a list, [image]"
        )
    seen = [as_seen(as_picture(image)) for image in several]
    if not seen:
        raise ValueError("there are no images: give at least one")
    return seen


def as_images(
    images: Images, channels: int, size: tuple[int, int], value_range: tuple[float, float] | None = None
) -> Tensor:
    """Return images as float32 (B, channels, H, W) in [0, 1], where `size` is (H, W).

    images: one picture or several, PIL images or paths, which `CentreCrop` brings to the size; or an array or tensor,
    (B, H, W), (B, channels, H, W) or for arrays (B, H, W, channels), or a list of such without the B. Floats lie in
    [0, 1] and have the size. uint8 of another size, or with 1, 3 or 4 channels where the model has others, are
    pictures too. Raises a ValueError for anything else, an UnreadableImage for a path without a picture.

    value_range: (low, high) of images that are values and no pictures, integers or floats from low to high, of so many
    channels and of any size, which `CentreCrop` converts: arrays as above, and files as `open_values` reads them. What
    is in [0, 1] already, such as samples, is not meant.
    """
    several = _listed(images)
    if value_range is not None:
        return _values_as_images(several, CentreCrop(size, channels, value_range))
    if isinstance(several, (Tensor, np.ndarray)):
        coloured = isinstance(several, np.ndarray) and several.ndim == 3 and several.shape[2] in (3, 4)
        if coloured and tuple(several.shape[1:]) != tuple(size):
            raise ValueError(
                f"an array {tuple(several.shape)} looks like one picture, and a batch of grey ones would be (B, H, W): "
                "give one picture in a list, [image]"
            )
        return _as_batch(several, channels, size)
    batches = [_as_one(image, channels, size) for image in several]
    if not batches:
        raise ValueError("there are no images: give at least one")
    return torch.cat(batches)


def _values_as_images(several: Any, crop: CentreCrop) -> Tensor:
    """Return images that are values as `as_images` does."""
    if isinstance(several, (Tensor, np.ndarray)) and several.ndim == 3 and crop.channels > 1:
        raise ValueError(
            f"an array {tuple(several.shape)} looks like one image, and several would be (B, {crop.channels}, H, W): "
            "give one image in a list, [image]"
        )
    crops = []
    for number, image in enumerate(several):
        named = isinstance(image, (str, Path))
        with naming(str(image) if named else f"image {number}"):
            crops.append(crop(_image_values(image, crop.channels)))
    if not crops and not isinstance(several, (Tensor, np.ndarray)):
        raise ValueError("there are no images: give at least one")
    stacked = np.stack(crops) if crops else np.empty((0, *crop.size, crop.channels), np.float32)
    return values.as_tensor(torch.from_numpy(stacked))


def _image_values(image: Array | Picture, channels: int) -> np.ndarray:
    """Return the values of one image, (H, W, C)."""
    if isinstance(image, (str, Path)):
        try:
            return open_values(image)
        except UnreadableImage as error:
            raise UnreadableImage(f"{image} cannot be read as an image: {error}") from None
    if isinstance(image, Image.Image):
        return picture_values(image)
    if not isinstance(image, (Tensor, np.ndarray)) or image.ndim not in (2, 3):
        shown = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
        raise ValueError(f"an image is a path, a PIL image, (H, W) or ({channels}, H, W), got {shown}")
    of_numpy = isinstance(image, np.ndarray)
    array = image if of_numpy else (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if array.dtype.kind not in "buif":
        raise ValueError(f"image values must be real numbers, got {array.dtype}")
    if array.ndim == 2:
        return array[..., None]
    return array if of_numpy and array.shape[0] != channels else np.moveaxis(array, 0, -1)


def _as_one(image: Array | Picture, channels: int, size: tuple[int, int]) -> Tensor:
    """Return one image as `as_images` does: (1, channels, H, W)."""
    if isinstance(image, (Tensor, np.ndarray)):
        if image.ndim not in (2, 3):
            raise ValueError(f"an image in a list must be (H, W) or ({channels}, H, W), got {tuple(image.shape)}")
        return _as_batch(image[None], channels, size)
    return torch.from_numpy(CentreCrop(size, channels)(as_picture(image))).movedim(2, 0)[None].float() / 255


def as_picture(image: Array | Picture) -> Image.Image:
    """Return an image as a PIL image: itself, the picture in the file of a path, or an array as a picture of 8 bits.

    An array is (H, W) or (H, W, channels), a tensor (H, W) or (channels, H, W), of uint8 or of floats in [0, 1].
    """
    if isinstance(image, (str, Path)):
        try:
            return open_picture(image)
        except UnreadableImage as error:
            raise UnreadableImage(f"{image} cannot be read as a picture: {error}") from None
    if isinstance(image, (Tensor, np.ndarray)):
        batch = _channels_first(image[None], CHANNELS) if image.ndim in (2, 3) else None
        if batch is None:
            raise ValueError(f"an image is (H, W) or (H, W, 3), got an array {tuple(image.shape)}")
        return _byte_picture((_in_range(batch) * 255).round().to(torch.uint8)[0])
    if not isinstance(image, Image.Image):
        raise ValueError(f"an image is a PIL image, a path, an array or a tensor, got {type(image).__name__}")
    return image


def _as_batch(images: Array, channels: int, size: tuple[int, int]) -> Tensor:
    """Return an array of several images as `as_images` does."""
    given = tuple(images.shape)
    if images.ndim not in (3, 4):
        raise ValueError(f"images must be (B, H, W) or (B, {channels}, H, W), got {given}")
    as_bytes = images.dtype in (torch.uint8, np.uint8)
    batch = _channels_first(images, (channels, *(CHANNELS if as_bytes else ())))
    if batch is None:
        raise ValueError(
            f"images must be (B, {channels}, H, W), got {given}: give PIL images, paths or uint8, which are converted"
        )
    if as_bytes and batch.shape[1:] != (channels, *size):
        none = torch.empty(0, channels, *size)
        return torch.cat([none, *(_as_one(_byte_picture(image), channels, size) for image in batch)])
    if tuple(batch.shape[2:]) != tuple(size):
        raise ValueError(
            f"images must be {size[0]} x {size[1]} pixels, got {batch.shape[2]} x {batch.shape[3]}: "
            "give PIL images, paths or uint8, which are scaled and cropped"
        )
    return _in_range(batch)


def _in_range(batch: Tensor) -> Tensor:
    """Return uint8, or floats in [0, 1], as floats in [0, 1]; a ValueError for other values."""
    if batch.dtype == torch.uint8:
        return batch.float() / 255
    if batch.is_complex():
        raise ValueError("image values must be real, got complex numbers")
    batch = batch.float()
    if batch.numel() and not (batch.min() >= 0 and batch.max() <= 1):
        raise ValueError(
            f"image values must lie in [0, 1] or be uint8, got {batch.min():.3g} to {batch.max():.3g}: divide them by "
            "the largest that there can be"
        )
    return batch


def _channels_first(images: Array, allowed: tuple[int, ...]) -> Tensor | None:
    """Return images as (B, C, H, W) with C the first of `allowed` that fits; None if none does."""
    of_numpy = isinstance(images, np.ndarray)
    # torch takes no read-only array, so that is copied
    tensor = torch.from_numpy(np.require(images, requirements=["C", "W"])) if of_numpy else torch.as_tensor(images)
    if tensor.ndim == 3:
        return tensor.unsqueeze(1) if 1 in allowed else None
    for count in allowed:
        if tensor.shape[1] == count:
            return tensor
        if of_numpy and tensor.shape[3] == count:
            return tensor.movedim(3, 1)
    return None


def _byte_picture(image: Tensor) -> Image.Image:
    """Return a uint8 tensor (1, 3 or 4, H, W) as a picture."""
    array = image.cpu().movedim(0, -1).numpy()
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array))
