"""Decoding: the picture in an image file, whole, upright and of 8 bits, or the values that the file holds."""

from __future__ import annotations

import errno
import io
import math
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageSequence, UnidentifiedImageError

from ..utils import arrays
from . import tiff
from .errors import UnreadableImage

File: TypeAlias = "str | Path | BinaryIO"
MODES = {1: "L", 3: "RGB"}  # of Pillow, by number of channels

TURNS = {  # the transposition that undoes each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

START_OF_SCAN, END_OF_JPEG = 0xDA, b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"
SIDE_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # of a PNG: texts and colour profiles, of any size
NPY = b"\x93NUMPY"
OF_PYTHON = (LookupError, TypeError, AttributeError, ArithmeticError, UnicodeError, AssertionError, struct.error)
OF_NUMBERS = ("invalid literal", "could not convert")  # Python's words for text that is no number
PICTURES = (1, 3, 4)  # channels of an array that can be a picture; the fourth is opacity
RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}

# first bytes of formats, to name the format of a file that Pillow cannot open
BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG": "a PNG",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
}


# pictures ------------------------------------------------------------------------------------------------------------


def open_picture(source: File) -> Image.Image:
    """Return the picture in a file, upright and of 8 bits: mode "L" or "RGB".

    It is turned by its EXIF orientation. Transparent pixels lie on white, 16 bits are scaled to 8, other numbers as in
    `_to_bytes`; of an animation it is the first frame. Colour profiles are ignored. An array (.npy) is a picture if it
    has 1, 3 or 4 channels of uint8 or uint16. Raises an UnreadableImage for a file without a picture, a truncated one,
    and one of more pixels than Pillow's limit, twice `Image.MAX_IMAGE_PIXELS`.
    """
    return _opened(source, lambda content: _picture(content, as_seen))


def _picture(content: bytes, seen: Callable[[Image.Image], Any]) -> Any:
    if content.startswith(NPY):
        return seen(_picture_of(_array(content)))
    with _pillow(content) as picture:
        return seen(picture)


def open_layer(source: File) -> Image.Image | None:
    """Return the picture in a file with its opacity, see `as_layer`. Raises as `open_picture`."""
    return _opened(source, lambda content: _picture(content, as_layer))


@contextmanager
def _pillow(content: bytes) -> Iterator[Image.Image]:
    """Give the image that Pillow reads in the bytes of a file, loaded, after checks that Pillow leaves out."""
    with _strictly(), _loaded(content) as picture:
        yield picture


def _loaded(content: bytes) -> Image.Image:
    """Return the image that Pillow reads in the bytes of a file; texts in it may be larger than Pillow takes."""
    try:
        return _load(content)
    except ValueError as error:
        if isinstance(error, UnreadableImage) or "text" not in str(error).lower() or not content.startswith(PNG):
            raise
    return _load(_without_side_chunks(content))


def _load(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    if picture.format == "EPS":  # Pillow would have Ghostscript run it
        raise UnreadableImage("PostScript, which is a program")
    if picture.format == "PNG":  # checks the checksums, which decoding ignores
        Image.open(io.BytesIO(content)).verify()
    if picture.format in ("JPEG", "MPO") and END_OF_JPEG not in _scans(content, picture):
        raise UnreadableImage("truncated")  # Pillow would decode zeros for the rest
    picture.load()
    return picture


def _scans(content: bytes, picture: Image.Image) -> bytes:
    """Return the bytes from the pixels of a JPEG on; of an MPO, which holds several, of the first one."""
    place, size = 2, len(content)
    if picture.format == "MPO":
        size = picture.mpinfo[0xB002][0]["Size"] or size  # type: ignore[attr-defined]
    while content[place : place + 1] == b"\xff" and content[place + 1] != START_OF_SCAN:
        marker = content[place + 1]
        place += 1 if marker == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content[place:size]


def _without_side_chunks(png: bytes) -> bytes:
    """Return a PNG without its texts and its colour profile, which its pixels do not need."""
    parts, place = [png[: len(PNG)]], len(PNG)
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] not in SIDE_CHUNKS:
            parts.append(png[place:end])
        place = end
    return b"".join(parts)


def _opened(source: File, read: Callable[[bytes], Any]) -> Any:
    """Return what `read` makes of the bytes of a file; an UnreadableImage for any failure."""
    content = content_of(source)
    if not content:
        raise UnreadableImage("an empty file")
    try:
        return read(content)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise exceptions of any type
        raise UnreadableImage(_reason(error, content)) from error


def _picture_of(values: np.ndarray) -> Image.Image:
    """Return an array (H, W, C) as a picture of Pillow's; an UnreadableImage where it is none without a range."""
    channels = values.shape[2]
    if channels not in PICTURES or natural_range(values.dtype) is None:
        raise UnreadableImage(
            f"an array of {channels} channels of {values.dtype}, which is no picture: it needs a model made with "
            "--range LOW HIGH"
        )
    if values.dtype == np.uint16:
        values = _to_bytes(values, "I;16")
    return Image.fromarray(values[..., 0] if channels == 1 else values)


def as_seen(picture: Image.Image) -> Image.Image:
    """Return a picture as a viewer shows it: upright, on white, of 8 bits, mode "L" or "RGB"."""
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
        seen.info = {}  # its EXIF would turn it again
    return seen


def as_layer(picture: Image.Image) -> Image.Image | None:
    """Return a picture upright with its opacity, mode "RGBA"; None for one without transparent pixels."""
    if picture.mode.startswith(("I", "F")) or not picture.has_transparency_data:
        return None
    turn = TURNS.get(_orientation(picture))
    layer = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    return layer if turn is None else layer.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation of a loaded picture, 1 to 8; 1 where there is none. Loads the picture."""
    picture.load()  # turns a TIFF and takes its orientation away, so that one not loaded yet would be turned twice
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block turns nothing
        return 1


def _to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Return grey values of more than 8 bits as uint8, rounded.

    16-bit modes range from 0 to 65535. The modes "I" (32 bits) and "F" (floats) have no fixed range: it is taken to be
    0 to 1 (floats only), 0 to 255 or 0 to 65535, the first that holds all values, and else from the lowest to the
    highest value.
    """
    if not np.isfinite(values).all():
        raise UnreadableImage("values that are not finite")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    tops = {"I": (255, 65535), "F": (1, 255, 65535)}.get(mode, (65535,))
    fitting = [float(top) for top in tops if low >= 0 and high <= top]
    bottom, top = (0.0, fitting[0]) if fitting else (low, high)
    return ((values.astype(np.float64) - bottom) * (255 / max(top - bottom, 1e-300))).round().astype(np.uint8)


# values --------------------------------------------------------------------------------------------------------------


def open_values(source: File) -> np.ndarray:
    """Return the values of an image file as they are written, (H, W, C), upright; boolean ones as uint8.

    - TIFF, by tifffile: pages and planes are channels, in their order; the samples of a page are the last axis.
    - .npy: an array (H, W, C), or (H, W) of one channel.
    - others, by Pillow: grey, RGB, and opacity as a channel behind these; palettes as their colours; 16 bits as uint16.

    Raises an UnreadableImage as `open_picture` does, and for values that are not finite and files whose axes are not
    those of one image.
    """
    values = np.asarray(_opened(source, _values))
    if not values.size:
        raise UnreadableImage("no pixels")
    if values.dtype.kind not in "buif":
        raise UnreadableImage(f"values of the type {values.dtype}, expected whole numbers or floats")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnreadableImage("values that are not finite")
    values = values.astype(np.uint8) if values.dtype == bool else values.astype(values.dtype.newbyteorder("="))
    return np.ascontiguousarray(values)


def natural_range(dtype: np.dtype | type) -> tuple[float, float] | None:
    """Return the lowest and highest value of images of a type, where all use the same: uint8 and uint16; else None."""
    return RANGES.get(np.dtype(dtype).name)


def picture_values(picture: Image.Image) -> np.ndarray:
    """Return the values of a Pillow image, (H, W, C), as `open_values` returns those of a file of it."""
    orientation, mode = _orientation(picture), picture.mode
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    elif mode in ("La", "RGBa"):  # multiplied by their opacity
        picture = picture.convert(mode.upper())
    values = np.asarray(picture)
    return _turned(values.reshape(*values.shape[:2], -1), orientation)


def _values(content: bytes) -> np.ndarray:
    if content.startswith(NPY):
        return _array(content)
    if content.startswith(tiff.MAGIC):
        values, orientation = tiff.read(content, _frames, _limit())
        return _turned(values, orientation)
    with _pillow(content) as picture:
        if picture.format == "PNG" and content[24] == 16:  # of colours Pillow would keep 8 bits
            return _turned(_deep_png(content), _orientation(picture))
        return picture_values(picture)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return an array (H, W, C) upright, by the EXIF orientation of its file."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if down else 1, :: -1 if across else 1]


def _deep_png(content: bytes) -> np.ndarray:
    """Return a PNG of 16 bits as uint16 (H, W, C)."""
    import torch
    from torchvision.io import decode_png

    pixels = bytearray(_without_side_chunks(content))  # of large texts libpng would print that there is no room
    return decode_png(torch.frombuffer(pixels, dtype=torch.uint8)).movedim(0, -1).numpy()


def _array(content: bytes) -> np.ndarray:
    """Return the array in a .npy file, (H, W, C)."""
    try:
        shape, _ = arrays.header_of(content)
    except ValueError as error:
        raise UnreadableImage(str(error)) from error
    if len(shape) not in (2, 3):
        raise UnreadableImage(f"an array of shape {shape}, expected (H, W, C) or (H, W)")
    if shape[0] * shape[1] > _limit():
        raise UnreadableImage(f"more than {_limit():,} pixels")
    values = np.load(io.BytesIO(content), allow_pickle=False)
    return values.reshape(*shape[:2], -1)


def is_image_array(file: BinaryIO) -> bool | None:
    """Return whether a .npy file holds an image rather than tokens; None for a file without a header.

    Integers (N,), (crops, N) and (1, crops, N) are tokens, other arrays of 2 and 3 axes are images.
    """
    try:
        shape, _, dtype = arrays.read_header(file)
    except (ValueError, EOFError):
        return None
    if dtype.kind in "iu":
        return len(shape) == 3 and shape[0] > 1
    return len(shape) in (2, 3)


def _frames(content: bytes) -> list[np.ndarray]:
    """Return the values of each page or frame that Pillow reads in the bytes of a file."""
    with _pillow(content) as picture:
        return [picture_values(page) for page in ImageSequence.Iterator(picture)]


def file_of_cell(cell: Any, folder: Any) -> File:
    """Return the file in a cell: encoded bytes, or a mapping of `bytes` or else a `path`, relative to `folder`."""
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if content is not None:
        return io.BytesIO(content)
    if not isinstance(cell, Mapping) or not cell.get("path"):
        raise UnreadableImage("an empty cell")
    return folder / cell["path"]


@contextmanager
def _strictly() -> Iterator[None]:
    """Keep Pillow from warnings and from filling up truncated files in this block, whatever its global settings."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def content_of(source: File) -> bytes:
    """Return the bytes of a file; an UnreadableImage where it cannot be read."""
    if not isinstance(source, (str, Path)):
        return source.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # a limit of the machine, not a fault of the file
            raise
        raise UnreadableImage((error.strerror or str(error)).lower()) from None


def _limit() -> float:
    """Return the largest number of pixels of an image that is read: from here on Pillow raises an error."""
    return math.inf if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _reason(error: Exception, content: bytes) -> str:
    """Return why Pillow could not read a file, in a few words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {_limit():,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(content)
    if content[8:12] == b"WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content):
        return "truncated"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OF_PYTHON) or any(words in text for words in OF_NUMBERS):  # says nothing of the file
        return "damaged"
    cut = ("truncated", "failed to read", "not enough")
    return "truncated" if any(words in text.lower() for words in cut) else f"damaged ({text})"


def _what_it_is(content: bytes) -> str:
    """Return what a file of no known format seems to be, by its content."""
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
