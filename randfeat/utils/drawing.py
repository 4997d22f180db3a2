"""Drawing: sheets of pictures, GIFs, decoding orders and heat maps."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST = 96  # pixels; a picture with a shorter side is magnified by a whole factor
PAPER, INK = "white", (60, 60, 60)
LINES = 2  # of a caption, at most
HEAT, COVER = "inferno", 0.65  # matplotlib's colour map, and its opacity
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(texts: Iterable[str], points: int) -> Font:
    """Return a font that has the letters of all texts: Pillow's, which lacks ü and ж, for ASCII, else DejaVu.

    DejaVu Sans comes with matplotlib, and has Latin, Greek, Cyrillic, Arabic and Hebrew letters. points: of an em.
    """
    if all(text.isascii() for text in texts):
        return ImageFont.load_default(points)
    from matplotlib import get_data_path

    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), points)  # Pillow 10.1 takes no Path


def png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def magnified(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB, with every pixel as a square of pixels if it is small."""
    zoom = math.ceil(SMALLEST / min(picture.size))
    return picture.convert("RGB").resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def gif(frames: Sequence[Image.Image], milliseconds: int = 180, rest: int = 1500) -> bytes:
    """Return the bytes of a looping GIF. milliseconds: of each frame but the last. rest: milliseconds of the last."""
    buffer = io.BytesIO()
    times = [milliseconds] * (len(frames) - 1) + [rest]
    frames[0].save(buffer, "GIF", save_all=True, append_images=list(frames[1:]), duration=times, loop=0, disposal=1)
    return buffer.getvalue()


def order_sheet(made_at: np.ndarray, width: int = 512) -> Image.Image:
    """Return a picture of the step in which each token of a grid was decoded: dark is early, light is late.

    The step is printed where there is room. made_at: int (rows, columns), steps from 1; known tokens (0) are white,
    missing ones (-1) grey. width: pixels, about.
    """
    rows, columns = made_at.shape
    side = max(4, width // columns)
    last = max(1, int(made_at.max()))
    canvas = Image.new("RGB", (columns * side, rows * side), PAPER)
    pen = ImageDraw.Draw(canvas)
    points = side // 3
    font = ImageFont.load_default(max(points, 1))
    for (row, column), step in np.ndenumerate(made_at):
        box = (column * side, row * side, (column + 1) * side - 1, (row + 1) * side - 1)
        if step:
            late = (step - 1) / max(last - 1, 1)
            pen.rectangle(box, (170, 170, 170) if step < 0 else _shade(late))
        if step > 0 and points >= 9:
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            pen.text(middle, str(step), "white" if late < 0.6 else "black", font, anchor="mm")
    return canvas


def _shade(share: float) -> tuple[int, int, int]:
    """Return a colour from dark blue over green to light yellow, lighter for a larger share in [0, 1]."""
    stops = np.array([(40, 30, 90), (30, 120, 140), (120, 200, 100), (255, 245, 160)])
    return tuple(int(np.interp(share, np.linspace(0, 1, 4), stops[:, channel])) for channel in range(3))  # type: ignore


def columns_for(count: int) -> int:
    """Return the number of columns of a grid that is nearly square and, where possible, full."""
    square = math.ceil(math.sqrt(count))
    return next((columns for columns in range(square, 2 * square) if count % columns == 0), square)


def grid(
    pictures: Sequence[Image.Image], columns: int | None = None, captions: Sequence[str] | None = None
) -> Image.Image:
    """Return pictures of one size as rows of an RGB picture, with captions below them.

    Captions take LINES lines at most; the middle of one that is still too long is left out.
    """
    columns = min(columns or columns_for(len(pictures)), len(pictures))
    zoom = math.ceil(SMALLEST / min(pictures[0].size))
    width, height = (side * zoom for side in pictures[0].size)
    gap = max(2, width // 32)
    points = max(11, width // 16)
    font = font_for(captions or (), points)
    written = [] if captions is None else [wrapped(caption, font, width, LINES) for caption in captions]
    below = max((points * (1 + 2 * len(lines)) // 2 for lines in written), default=0)
    rows = math.ceil(len(pictures) / columns)
    size = columns * (width + gap) + gap, rows * (height + below + gap) + gap
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, picture in enumerate(pictures):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (height + below + gap)
        canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        for line, text in enumerate(written[number] if written else ()):
            pen.text((left + width / 2, top + height + points * (line + 0.75)), text, INK, font, anchor="mm")
    return canvas


def heat(picture: Image.Image, values: np.ndarray, low: float, high: float) -> Image.Image:
    """Return a picture in grey under a heat map, dark for `low` and bright for `high`, as RGB.

    values: (h, w); each colours its rectangle of the picture.
    """
    from matplotlib import colormaps

    shares = np.clip((np.asarray(values, dtype=np.float64) - low) / max(high - low, 1e-12), 0, 1)
    colours = Image.fromarray(colormaps[HEAT](shares, bytes=True)[..., :3])
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, colours.resize(picture.size, Image.Resampling.NEAREST), COVER)


def wrapped(text: str, font: Font, width: float, lines: int) -> list[str]:
    """Return a text as lines of at most `width` pixels, one at least.

    It is broken at spaces and after "/", else anywhere. Where more than `lines` would be needed, the middle of the last
    one is left out, so that the end, which often holds the answer, stays.
    """
    found: list[str] = []
    rest = text
    while len(found) < lines - 1 and font.getlength(rest) > width:
        kept = next((n for n in range(len(rest) - 1, 1, -1) if font.getlength(rest[:n].rstrip()) <= width), 1)
        ends = [n for n in range(kept, 0, -1) if rest[n - 1] in " /" or rest[n] == " "]
        kept = ends[0] if ends else kept
        found.append(rest[:kept].rstrip())
        rest = rest[kept:].lstrip()
    return [*found, shortened(rest, font, width)]


def shortened(text: str, font: Font, width: float) -> str:
    """Return a text, without its middle where it is wider than `width` pixels; "" where not even dots fit."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, -1, -1):
        end = kept // 2
        shown = f"{text[: kept - end].rstrip()}…{text[len(text) - end :].lstrip()}"
        if font.getlength(shown) <= width:
            return shown
    return ""
