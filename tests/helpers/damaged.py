"""Pictures of mixed quality, and files that are called pictures and are damaged in many ways."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION = 0x0112


def noise(height: int, width: int, channels: int = 3, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Noise (height, width[, channels]) over the whole range of an integer type."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def noise_picture(height: int, width: int, channels: int = 1, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, channels, seed))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _colour_key(seed: int) -> tuple[Image.Image, dict]:
    return Image.fromarray(noise(9, 11, seed=seed)).quantize(16), {"transparency": 3}


# name -> suffix and a function of a seed that gives the picture and the options with which it is saved
GOOD: dict[str, tuple[str, Callable[[int], tuple[Image.Image, dict]]]] = {
    "jpeg": (".jpg", lambda i: (Image.fromarray(noise(40, 30 + i % 7, seed=i)), {})),
    "progressive": (".JPEG", lambda i: (Image.fromarray(noise(33, 47, seed=i)), {"progressive": True, "quality": 30})),
    "grey jpeg": (".jpeg", lambda i: (Image.fromarray(noise(20, 20, 1, i)), {})),
    "cmyk": (".jpg", lambda i: (Image.fromarray(noise(16, 24, seed=i)).convert("CMYK"), {})),
    "turned": (".jpg", lambda i: (Image.fromarray(noise(24, 16, seed=i)), {"exif": _exif(1 + i % 8)})),
    "png": (".png", lambda i: (Image.fromarray(noise(8, 8, seed=i)), {})),
    "rgba": (".png", lambda i: (Image.fromarray(noise(13, 9, 4, i)), {})),
    "grey with alpha": (".png", lambda i: (Image.fromarray(noise(5, 5, 4, i)).convert("LA"), {})),
    "palette": (".png", _colour_key),
    "one bit": (".png", lambda i: (Image.fromarray(noise(12, 12, 1, i)).convert("1"), {})),
    "16 bit": (".png", lambda i: (Image.fromarray(noise(10, 14, 1, i, np.uint16)), {})),
    "float": (".tiff", lambda i: (Image.fromarray(noise(7, 9, 1, i).astype(np.float32) / 255), {})),
    "tiff": (".tif", lambda i: (Image.fromarray(noise(21, 20, seed=i)), {"compression": "tiff_lzw"})),
    "webp": (".webp", lambda i: (Image.fromarray(noise(30, 31, seed=i)), {})),
    "gif": (".gif", lambda i: (Image.fromarray(noise(15, 15, 1, i)), {})),
    "bmp": (".bmp", lambda i: (Image.fromarray(noise(6, 10, seed=i)), {})),
    "one pixel": (".png", lambda i: (Image.fromarray(noise(1, 1, seed=i)), {})),
    "strip": (".png", lambda i: (Image.fromarray(noise(300, 1, seed=i)), {})),
    "large": (".jpg", lambda i: (Image.fromarray(noise(4, 5, seed=i)).resize((900, 600)), {})),
}


def write_good(stem: Path, i: int) -> Path:
    """Writes the i-th of endless readable pictures, all kinds of GOOD in turn, and returns its path: stem + suffix."""
    suffix, make = list(GOOD.values())[i % len(GOOD)]
    picture, options = make(i)
    path = stem.with_name(stem.name + suffix)
    picture.save(path, **options)
    return path


def encoded(format: str, seed: int = 0, side: int = 40, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(side, side, seed=seed)).save(buffer, format, **options)
    return buffer.getvalue()


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(png: bytes) -> bytes:
    """One wrong bit amid the compressed pixels."""
    at = png.index(b"IDAT") + 200
    return png[:at] + bytes([png[at] ^ 4]) + png[at + 1 :]


def _bomb() -> bytes:
    """A PNG of a few bytes that says it has 3,600,000,000 pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0")))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )
    return PngImagePlugin._MAGIC + body


# name -> suffix, content, and a regular expression for the reason that is to be given
_DAMAGES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": (".jpg", lambda: b"", "empty file"),
    "half a JPEG": (".jpg", lambda: _half(encoded("JPEG")), "truncated"),
    "half a PNG": (".png", lambda: _half(encoded("PNG")), "truncated"),
    "half a WebP": (".webp", lambda: _half(encoded("WEBP")), "truncated"),
    "half a GIF": (".gif", lambda: _half(encoded("GIF")), "truncated"),
    "half a TIFF": (".tif", lambda: _half(encoded("TIFF")), "truncated"),
    "header only": (".jpg", lambda: encoded("JPEG")[:20], "a JPEG that is truncated"),
    "zeros": (".jpg", lambda: bytes(5000), "nothing but zero bytes"),
    "zeros from the middle on": (".jpg", lambda: _half(encoded("JPEG")) + bytes(2000), "truncated"),
    "text": (".jpg", lambda: b"a note that somebody renamed\n", "text, no picture"),
    "web page": (".png", lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
    "wrong bit": (".png", lambda: _flipped(encoded("PNG")), "damaged"),
    "bomb": (".png", _bomb, "more than 178,956,970 pixels"),
    "noise": (".jpg", lambda: b"\1" + noise(10, 10).tobytes(), "no known image format"),
}
REASONS: dict[str, str] = {name: reason for name, (_, _, reason) in _DAMAGES.items()}


def write_damaged(stem: Path, name: str) -> Path:
    """Writes a file that is damaged in the way `name`, one of DAMAGES, and returns its path: stem + suffix."""
    suffix, content, _ = _DAMAGES[name]
    path = stem.with_name(stem.name + suffix)
    path.write_bytes(content())
    return path


DAMAGES = tuple(_DAMAGES)
