"""Images of a user, in any form, as pictures of 8 bits, and as a float tensor in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
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
from .crop import CentreCrop, naming
from .decode import MODES, File, as_layer, as_seen, file_of_cell, open_layer, open_picture, open_values, picture_values
from .errors import UnreadableImage

Array: TypeAlias = "Tensor | np.ndarray"
Picture: TypeAlias = "Image.Image | str | Path"
Images: TypeAlias = "Array | Picture | Iterable[Array | Picture]"
FILES = (str, Path, bytes, Mapping)  # types of an image that is a file
CHANNELS = (1, 3, 4)  # of an array that can be a picture; the fourth is opacity

# pictures ------------------------------------------------------------------------------------------------------------


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
    if isinstance(images, (Image.Image, str, Path, bytes)):
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
    if isinstance(image, FILES):
        try:
            return open_values(_file(image))
        except UnreadableImage as error:
            raise UnreadableImage(f"{_named(image)} cannot be read as an image: {error}", error.reason) from None
    if isinstance(image, Image.Image):
        return picture_values(image)
    if not isinstance(image, (Tensor, np.ndarray)) or image.ndim not in (2, 3):
        shown = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
        raise ValueError(f"an image is a path, a PIL image, (H, W) or ({channels}, H, W), got {shown}")
    of_numpy = isinstance(image, np.ndarray)
    array = image if isinstance(image, np.ndarray) else _as_numpy(image)
    if array.dtype.kind not in "buif":
        raise ValueError(f"image values must be real numbers, got {array.dtype}")
    if array.ndim == 2:
        return array[..., None]
    return array if of_numpy and array.shape[0] != channels else np.moveaxis(array, 0, -1)


def _as_numpy(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor; of bfloat16, which numpy does not have, as float32."""
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()


def _as_one(image: Array | Picture, channels: int, size: tuple[int, int]) -> Tensor:
    """Return one image as `as_images` does: (1, channels, H, W)."""
    if isinstance(image, (Tensor, np.ndarray)):
        if image.ndim not in (2, 3):
            raise ValueError(f"an image in a list must be (H, W) or ({channels}, H, W), got {tuple(image.shape)}")
        return _as_batch(image[None], channels, size)
    return torch.from_numpy(CentreCrop(size, channels)(as_picture(image))).movedim(2, 0)[None].float() / 255


def as_picture(image: Array | Picture) -> Image.Image:
    """Return an image as a PIL image: itself, the picture in the file of a path, or an array as a picture of 8 bits.

    An array is (H, W) or (H, W, channels), a tensor (H, W) or (channels, H, W), of uint8 or of floats in [0, 1]. A file
    may also be its bytes, or a mapping of `bytes` or a `path`, as undecoded cells of Hugging Face's datasets are.
    """
    if isinstance(image, FILES):
        try:
            return open_picture(_file(image))
        except UnreadableImage as error:
            raise UnreadableImage(f"{_named(image)} cannot be read as a picture: {error}", error.reason) from None
    if isinstance(image, (Tensor, np.ndarray)):
        batch = _channels_first(image[None], CHANNELS) if image.ndim in (2, 3) else None
        if batch is None:
            raise ValueError(f"an image is (H, W) or (H, W, 3), got an array {tuple(image.shape)}")
        return _byte_picture((_in_range(batch) * 255).round().to(torch.uint8)[0])
    if not isinstance(image, Image.Image):
        raise ValueError(f"an image is a PIL image, a path, an array or a tensor, got {type(image).__name__}")
    return image


def layer_of(image: Array | Picture) -> Image.Image | None:
    """Return an image with its opacity, as `decode.as_layer`; None where it has none. Takes what `as_picture` takes."""
    if isinstance(image, Image.Image):
        return as_layer(image)
    try:
        return open_layer(_file(image)) if isinstance(image, FILES) else None
    except UnreadableImage as error:
        raise UnreadableImage(f"{_named(image)} cannot be read as a picture: {error}", error.reason) from None


def _file(image: Any) -> File:
    """Return the file of an image that is one of FILES."""
    return image if isinstance(image, (str, Path)) else file_of_cell(image, Path())


def _named(image: Any) -> str:
    """Return how an error names a file."""
    name = image.get("path") if isinstance(image, Mapping) else image
    return str(name) if isinstance(name, (str, Path)) else "an image"


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
