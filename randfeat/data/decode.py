"""Decoding: the picture in an image file, whole, upright and of 8 bits."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

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

# first bytes of formats, to name the format of a file that Pillow cannot open
BEGINNINGS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG": "a PNG",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
}


class UnreadableImage(ValueError):
    """A file that holds no picture, or not all of one. Its text is the reason, in a few words."""


def open_picture(source: str | Path | BinaryIO) -> Image.Image:
    """Return the picture in a file, upright and of 8 bits: mode "L" or "RGB".

    It is turned by its EXIF orientation. Transparent pixels lie on white, 16 bits are scaled to 8, other numbers as in
    `_to_bytes`; of an animation it is the first frame. Colour profiles are ignored. Raises an UnreadableImage for a
    file without a picture, a truncated one, and one of more pixels than Pillow's limit, twice `Image.MAX_IMAGE_PIXELS`.
    """
    content = _content(source)
    if not content:
        raise UnreadableImage("an empty file")
    try:
        with _strictly(), Image.open(io.BytesIO(content)) as picture:
            if picture.format == "EPS":  # Pillow would have Ghostscript run it
                raise UnreadableImage("PostScript, which is a program")
            if picture.format == "PNG":  # checks the checksums, which decoding ignores
                Image.open(io.BytesIO(content)).verify()
            scan = picture.fp.tell() if picture.fp else 0  # where a JPEG's pixels begin
            if picture.format == "JPEG" and b"\xff\xd9" not in content[scan:]:
                raise UnreadableImage("truncated")  # Pillow would decode zeros for the rest
            picture.load()
            return as_seen(picture)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise exceptions of any type
        raise UnreadableImage(_reason(error, content)) from error


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


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none."""
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


def _content(source: str | Path | BinaryIO) -> bytes:
    """Return the bytes of a file."""
    if not isinstance(source, (str, Path)):
        return source.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # a limit of the machine, not a fault of the file
            raise
        raise UnreadableImage((error.strerror or str(error)).lower()) from None


def _reason(error: Exception, content: bytes) -> str:
    """Return why Pillow could not read a file, in a few words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(content)
    if content[8:12] == b"WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content):
        return "truncated"
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "truncated" if "truncated" in text.lower() else f"damaged ({text})"


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
