"""Images in: whatever a user holds becomes a picture of 8 bits, and pictures become a float tensor in [0, 1]."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from ..utils import progress
from ..utils.checks import check_whole_number

Array: TypeAlias = "Tensor | np.ndarray"
Picture: TypeAlias = "Image.Image | str | Path"
Images: TypeAlias = "Array | Picture | Iterable[Array | Picture]"
MODES = {1: "L", 3: "RGB"}
CHANNELS = (1, 3, 4)  # of an array that can be a picture; the fourth is opacity
STRIP = 8  # of a picture longer than this many targets only the middle is scaled

TURNS = {  # what undoes each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# how files begin, to say what one is that Pillow cannot open
BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG": "a PNG",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
}


class UnreadableImage(ValueError):
    """A file that is no whole picture. Its text is the reason, in a few words."""


# pictures ------------------------------------------------------------------------------------------------------------


def open_picture(source: str | Path | BinaryIO) -> Image.Image:
    """Return the picture in a file, whole, upright and of 8 bits: mode "L" or "RGB".

    It is turned as its EXIF says. Transparent pixels lie on white, 16 bits are scaled to 8, other numbers as
    `_to_bytes` says; of an animation it is the first frame. Colour profiles are left aside. Raises UnreadableImage for
    anything else, a truncated file and one of more pixels than Pillow's limit, twice `Image.MAX_IMAGE_PIXELS`, for two.
    """
    content = _content(source)
    if not content:
        raise UnreadableImage("an empty file")
    try:
        with _strictly(), Image.open(io.BytesIO(content)) as picture:
            if picture.format == "EPS":  # Pillow would have Ghostscript run it
                raise UnreadableImage("PostScript, which is a program")
            if picture.format == "PNG":  # its checksums, which decoding leaves aside
                Image.open(io.BytesIO(content)).verify()
            scan = picture.fp.tell() if picture.fp else 0  # where a JPEG's pixels begin
            if picture.format == "JPEG" and b"\xff\xd9" not in content[scan:]:
                raise UnreadableImage("truncated")  # zeros in the place of the rest would be decoded
            picture.load()
            return as_seen(picture)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        raise UnreadableImage(_reason(error, content)) from error


def as_seen(picture: Image.Image) -> Image.Image:
    """Return a picture as a viewer shows it: upright, on white, of 8 bits, in mode "L" or "RGB"."""
    turn = TURNS.get(_orientation(picture))
    if picture.mode.startswith(("I", "F")):
        seen = Image.fromarray(_to_bytes(np.asarray(picture), picture.mode))
    elif picture.has_transparency_data:
        rgba = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        seen = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif picture.mode in MODES.values():
        seen = picture
    else:
        seen = picture.convert("L" if picture.mode == "1" else "RGB")
    if turn is not None:
        seen = seen.transpose(turn)
    if seen is not picture:
        seen.info = {}  # which would turn it again
    return seen


@dataclass(frozen=True)
class CentreCrop:
    """The one rule that makes pictures of one size, ADM's: halved with a box filter while at least twice as large,
    scaled with bicubic interpolation until it covers the target, cropped at the centre.

    size: height and width. channels: 1 (grey) or 3 (RGB). Called with a picture it returns uint8 (h, w, channels).
    """

    size: tuple[int, int]
    channels: int

    def __str__(self) -> str:
        h, w = self.size
        return (
            f"{MODES[self.channels]} {h} x {w}: box-halved while at least twice as large, "
            "bicubic until it covers, centre crop"
        )

    def __call__(self, picture: Image.Image) -> np.ndarray:
        (h, w), picture = self.size, as_seen(picture).convert(MODES[self.channels])
        if 0 in picture.size:
            raise UnreadableImage("no pixels")
        # scaled as a whole, a picture one pixel wide and thousands high would fill the memory
        picture = _middle(
            picture, round(STRIP * picture.height * w / h) or 1, round(STRIP * picture.width * h / w) or 1
        )
        while picture.width >= 2 * w and picture.height >= 2 * h:
            picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
        scale = max(w / picture.width, h / picture.height)
        covering = max(w, round(picture.width * scale)), max(h, round(picture.height * scale))
        cropped = _middle(picture.resize(covering, Image.Resampling.BICUBIC), w, h)
        return np.array(cropped, dtype=np.uint8).reshape(h, w, self.channels)


def batches(images: Images | Iterable[Picture], size: int, what: str | None = None) -> Iterator[Images]:
    """Images in batches of `size`, the last one smaller. what: the title of a progress bar, which None leaves out."""
    images = _listed(images)
    check_whole_number("batch_size", size, 1)
    total = len(images) if isinstance(images, Sized) else None
    batch: Any = ()
    with progress.bar(total, what or "", "image", shown=what is not None) as bar:
        for batch in _slices(images, size):
            yield batch
            bar.update(len(batch))
    if not len(batch):
        raise ValueError("there are no images: give at least one")


def _listed(images: Images | Iterable[Picture]) -> Any:
    """Several images, as an array or as something to go through; a ValueError for what is neither."""
    if isinstance(images, (Image.Image, str, Path)):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":  # of paths, or of whatever else
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
    if isinstance(images, (Tensor, np.ndarray)):
        return (images[start : start + size] for start in range(0, len(images), size))
    iterator = iter(images)
    return iter(lambda: list(islice(iterator, size)), [])


def to_pil(image: Tensor) -> Image.Image:
    """Return a tensor (channels, H, W) in [0, 1] as a PIL image, rounded to 8 bits."""
    array = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    """At most so much of a picture, from its centre."""
    width, height = min(width, picture.width), min(height, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # an EXIF block that cannot be read turns nothing
        return 1


def _to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of more than 8 bits as uint8, rounded.

    16-bit modes reach from 0 to 65535. The modes "I" (32 bits) and "F" (floats) do not say how far they reach: it is
    0 to 255 or 0 to 65535, for floats also 0 to 1, the first that holds all values, and else from the lowest to the
    highest.
    """
    if not np.isfinite(values).all():
        raise UnreadableImage("values that are not finite")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    tops = {"I": (255, 65535), "F": (1, 255, 65535)}.get(mode, (65535,))
    fitting = [float(top) for top in tops if low >= 0 and high <= top]
    bottom, top = (0.0, fitting[0]) if fitting else (low, high)
    return ((values.astype(np.float64) - bottom) * (255 / max(top - bottom, 1e-300))).round().astype(np.uint8)


@contextmanager
def _strictly() -> Iterator[None]:
    """Inside, Pillow neither warns nor fills up truncated files, whatever somebody else asked it to do."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _content(source: str | Path | BinaryIO) -> bytes:
    if not isinstance(source, (str, Path)):
        return source.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # the machine's fault, not the file's
            raise
        raise UnreadableImage((error.strerror or str(error)).lower()) from None


def _reason(error: Exception, content: bytes) -> str:
    """Why Pillow could not read a file, for a person."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(content)
    if content[8:12] == b"WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content):
        return "truncated"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "truncated" if "truncated" in text.lower() else f"damaged ({text})"


def _what_it_is(content: bytes) -> str:
    for beginning, name in BEGINNINGS.items():
        if content.startswith(beginning):
            return f"{name} that is truncated or damaged at its beginning"
    if content[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "HEIC, which this Pillow does not read"
    if not content.strip(b"\0"):
        return "nothing but zero bytes"
    head = content[:1024].lstrip()
    if head[:1] == b"<":
        return "a web page or XML, no picture"
    if not set(head) - set(range(32, 127)) - set(b"\t\n\r\f"):
        return "text, no picture"
    return "no known image format"


# arrays --------------------------------------------------------------------------------------------------------------


def pictures(images: Images) -> list[Image.Image]:
    """Return one picture or several as `as_images` takes them, each as it is seen: of its own size, in mode "L" or
    "RGB"."""
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


def as_images(images: Images, channels: int, size: tuple[int, int]) -> Tensor:
    """Images as float32 (B, channels, H, W) in [0, 1], where `size` is (H, W).

    images: one picture or several, PIL images or paths, which `CentreCrop` brings to the size; or an array or tensor,
    (B, H, W), (B, channels, H, W) or for arrays (B, H, W, channels), or a list of such without the B. Floats lie in
    [0, 1] and have the size. uint8 of another size, or with 1, 3 or 4 channels where the model has others, are
    pictures too. Raises a ValueError for anything else, an UnreadableImage for a path of no picture.
    """
    several = _listed(images)
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


def _as_one(image: Array | Picture, channels: int, size: tuple[int, int]) -> Tensor:
    if isinstance(image, (Tensor, np.ndarray)):
        if image.ndim not in (2, 3):
            raise ValueError(f"an image in a list must be (H, W) or ({channels}, H, W), got {tuple(image.shape)}")
        return _as_batch(image[None], channels, size)
    return torch.from_numpy(CentreCrop(size, channels)(as_picture(image))).movedim(2, 0)[None].float() / 255


def as_picture(image: Array | Picture) -> Image.Image:
    """Return a PIL image as it is, the picture in the file of a path, or an array (H, W), (H, W, channels) or for
    tensors (channels, H, W) of uint8 or of floats in [0, 1] as a picture of 8 bits.
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
    """uint8 or floats in [0, 1] as floats in [0, 1]."""
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
    """(B, C, H, W) with C one of `allowed`, those first preferred; None if it is none."""
    of_numpy = isinstance(images, np.ndarray)
    # a copy of a read-only array
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
