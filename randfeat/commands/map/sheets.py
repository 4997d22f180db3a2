"""Small pictures of many images, in sheets for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from randfeat.data.errors import UnreadableImage
from randfeat.utils import drawing, progress

from .rows import Picture

COLUMNS = 16  # small pictures in a row of a sheet, and rows of it
SIDES = ((600, 160), (2500, 96))  # images, and pixels of the longer side of up to so many
LEAST = 64  # pixels of the longer side of those of more images
PIXELS = 48  # longer side up to which pictures are kept exactly
QUALITY = 82  # of JPEGs


@dataclass(frozen=True, eq=False)
class Sheets:
    """Small pictures in sheets of 16 x 16 cells, one after the other, each at the left and top of its cell.

    sources: data URIs. side: of a cell, in pixels. sizes: (width, height) of each picture, (0, 0) of one that is gone.
    """

    sources: list[str]
    side: int
    sizes: list[tuple[int, int]]

    @property
    def gone(self) -> int:
        """Number of images without a picture."""
        return self.sizes.count((0, 0))


def side_for(count: int) -> int:
    """Return the pixels of a cell, so that a page of any number of images can be sent."""
    return next((side for most, side in SIDES if count <= most), LEAST)


def make(pictures: Sequence[Picture], shown: bool = True) -> Sheets:
    """Return sheets of pictures; one that cannot be read leaves its cell empty. shown: with a progress bar."""
    most = side_for(len(pictures))

    def small(picture: Picture) -> Image.Image | None:
        try:
            one = picture()
        except (UnreadableImage, OSError):
            return None
        one.thumbnail((most, most), Image.Resampling.LANCZOS)
        return one.convert("RGB")

    found = progress.mapped(small, pictures, "pictures", "image", shown)
    sizes = [(0, 0) if one is None else one.size for one in found]
    side = int(np.max(sizes, initial=1))
    cells = COLUMNS * COLUMNS
    return Sheets([_sheet(found[at : at + cells], side) for at in range(0, len(found), cells)], side, sizes)


def _sheet(pictures: Sequence[Image.Image | None], side: int) -> str:
    """Return one sheet as a data URI: a PNG of pictures of few pixels, else a JPEG."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * side, rows * side), "#808080")
    for number, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (number % COLUMNS * side, number // COLUMNS * side))
    if side <= PIXELS:
        return f"data:image/png;base64,{base64.b64encode(drawing.png(sheet)).decode()}"
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
