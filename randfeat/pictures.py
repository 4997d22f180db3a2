"""Pictures side by side in one."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 96  # pixels; a picture with a shorter side is magnified, pixel by pixel
PAPER, INK = "white", (60, 60, 60)
HEAT, COVER = "inferno", 0.65  # matplotlib's colours, and how much of a picture they cover


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def columns_for(count: int) -> int:
    """Columns of a grid that is nearly square and, where some number of columns allows it, full."""
    square = math.ceil(math.sqrt(count))
    return next((columns for columns in range(square, 2 * square) if count % columns == 0), square)


def grid(
    pictures: Sequence[Image.Image], columns: int | None = None, captions: Sequence[str] | None = None
) -> Image.Image:
    """Pictures of one size in rows, as an RGB picture; a caption stands below each and is cut where it is too long."""
    columns = min(columns or columns_for(len(pictures)), len(pictures))
    zoom = math.ceil(SMALLEST / min(pictures[0].size))
    width, height = (side * zoom for side in pictures[0].size)
    gap = max(2, width // 32)
    points = max(11, width // 16)
    font = ImageFont.load_default(points)
    below = 0 if captions is None else points * 3 // 2
    rows = math.ceil(len(pictures) / columns)
    size = columns * (width + gap) + gap, rows * (height + below + gap) + gap
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, picture in enumerate(pictures):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + below + gap)
        canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        if captions is not None:
            text = _cut(captions[number], font, width)
            pen.text((left + width / 2, top + height + below / 2), text, INK, font, anchor="mm")
    return canvas


def heat(picture: Image.Image, values: np.ndarray, low: float, high: float) -> Image.Image:
    """A picture in grey under the colours of a map of numbers, dark for `low` and bright for `high`, as RGB.

    values: (h, w); each covers the rectangle of the picture that it speaks of.
    """
    from matplotlib import colormaps

    shares = np.clip((np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-12), 0, 1)
    colours = Image.fromarray(colormaps[HEAT](shares, bytes=True)[..., :3])
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, colours.resize(picture.size, Image.Resampling.NEAREST), COVER)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or as much of its beginning as fits, with dots for the rest."""
    kept = len(text)
    while kept and font.getlength(shown := text if kept == len(text) else text[:kept].rstrip() + "…") > width:
        kept -= 1
    return shown if kept else ""
