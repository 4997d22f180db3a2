"""TIFF files as arrays (H, W, C): pages, planes or samples are channels."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import UnreadableImage

if TYPE_CHECKING:
    import tifffile

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
NARROW = 16  # pixels; where images are narrower than this, high and many, channels may be last by mistake
ORIENTATION = 274  # tag

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it raises it logs too, on standard error


def read(content: bytes, frames: Callable[[bytes], list[np.ndarray]], limit: float) -> tuple[np.ndarray, int]:
    """Return the values of a TIFF, (H, W, C), not turned yet, and its orientation, 1 to 8.

    frames: function that returns the pages of a file by another library, used for palettes and for compressions that
    tifffile leaves to imagecodecs, where it keeps the type; these pages are turned already. limit: of pixels.
    Raises an UnreadableImage for a file that is not one image, or not whole.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        _check_chain(file, content)
        found = [one for one in file.series if not one.keyframe.is_reduced]  # without thumbnails and overviews
        if len(found) != 1:
            raise UnreadableImage(f"a TIFF of {len(found)} images of different sizes or types, expected one image")
        (series,) = found
        _check_axes(series.axes, series.shape)
        page = series.keyframe
        if page.imagelength * page.imagewidth > limit:
            raise UnreadableImage(f"more than {limit:,} pixels")
        pages = [one for one in series.pages if one is not None]
        ends = [at + size for one in pages for at, size in zip(one.dataoffsets, one.databytecounts, strict=True)]
        if max(ends, default=0) > len(content) or len(pages) < len(series.pages):
            raise UnreadableImage("truncated")
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return np.concatenate(frames(content), axis=2), 1
        try:
            values = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _by_frames(content, frames, len(pages), page), 1
        if series.axes == "YX":
            values = values[..., None]
        elif series.axes != "YXS":
            values = np.moveaxis(values, 0, -1)
        tag = page.tags.get(ORIENTATION)
        return values, tag.value if tag is not None else 1


def encode(values: np.ndarray) -> bytes:
    """Return an image (H, W, C) as a TIFF whose pages are its channels, as `read` and other programs take them."""
    import tifffile

    pages = np.moveaxis(values, -1, 0)
    buffer = io.BytesIO()
    axes = {"axes": "CYX"} if len(pages) > 1 else None  # says that pages are channels
    tifffile.imwrite(buffer, pages if axes else pages[0], photometric="minisblack", metadata=axes)
    return buffer.getvalue()


def _check_axes(axes: str, shape: tuple[int, ...]) -> None:
    """Raise an UnreadableImage for axes that are not those of one image, or may be meant in another order."""
    if not {"Y", "X"} <= set(axes) or len(axes) > 3:
        raise UnreadableImage(
            f"a TIFF of axes {axes} and shape {shape}, expected one image: pages or samples as channels, not both"
        )
    if len(axes) == 3 and not {"S", "C"} & set(axes) and shape[2] < min(NARROW, *shape[:2]):
        raise UnreadableImage(
            f"a TIFF of {shape[0]} pages of {shape[1]} x {shape[2]} pixels, which looks like an image of {shape[2]} "
            "channels written as pages by mistake: write these with planarconfig='contig', or (C, H, W)"
        )


def _check_chain(file: tifffile.TiffFile, content: bytes) -> None:
    """Raise an UnreadableImage where the last directory of the file is missing: tifffile would leave its pages out."""
    form = file.tiff
    (at,) = struct.unpack_from(form.offsetformat, content, form.offsetsize)  # after 4 bytes, or 8 of BigTIFF
    seen: set[int] = set()
    while at:
        if at in seen:
            raise UnreadableImage("damaged (its pages run in a circle)")
        seen.add(at)
        try:
            (count,) = struct.unpack_from(form.tagnoformat, content, at)
            (at,) = struct.unpack_from(form.offsetformat, content, at + form.tagnosize + count * form.tagsize)
        except struct.error:
            raise UnreadableImage("truncated") from None


def _by_frames(
    content: bytes, frames: Callable[[bytes], list[np.ndarray]], count: int, page: tifffile.TiffPage
) -> np.ndarray:
    """Return the values of a file that tifffile cannot decompress, if `frames` keeps their type."""
    found = frames(content)
    if len(found) != count or any(one.dtype != page.dtype for one in found):
        how = getattr(page.compression, "name", page.compression)
        raise UnreadableImage(f"a TIFF of {page.dtype} compressed by {how}: `pip install imagecodecs` to read it")
    return np.concatenate(found, axis=2)
