"""Sheets of pictures: retrieved images, mistakes, matched points, and dense features as colours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from randfeat.utils.drawing import shortened, wrapped

from .style import BAD, GOOD, INK, SOFT

Pictures = Callable[[str], Image.Image]

SIDE = 84  # pixels of the square that a picture is fitted into
_GAP, _FRAME, _LINE = 6, 3, 13  # _LINE: of a caption
_CAPTION_LINES, _NAME_LINES = 2, 5
_PAPER, _BLANK = "white", "#f1f3f6"
_LABELS = 150  # pixels for the names of rows


@dataclass(frozen=True)
class Cell:
    """Picture of a sheet, its caption, and the colour of its frame, "" for none."""

    picture: Image.Image
    caption: str = ""
    frame: str = ""


@dataclass(frozen=True, eq=False)
class CorrespondenceResult:
    """Matched points of two pictures, to draw.

    points: (p, 2) in pixels of the source. found, wanted: (p, 2) in pixels of the target, the matched and the true
    positions. right: (p,), whether a match counts as right.
    """

    source: Image.Image
    target: Image.Image
    points: NDArray[np.float64]
    found: NDArray[np.float64]
    wanted: NDArray[np.float64]
    right: NDArray[np.bool_]
    caption: str = ""


# sheets -------------------------------------------------------------------------------------------------------------


def retrieval_sheet(arrays: Mapping[str, NDArray], rows: Iterable[int], pictures: Pictures) -> Image.Image:
    """Draw queries, each followed after a gap by its nearest images, the best first; images that share its label are
    framed green, others red.

    arrays: of a record of retrieval, see `Record`. rows: of the queries. pictures: maps a path to its picture.
    """
    label_of = dict(zip(arrays["paths"].tolist(), arrays["truth"].tolist(), strict=True))
    sheet = []
    for row in rows:
        query, label = str(arrays["paths"][row]), arrays["truth"][row].item()
        cells: list[Cell | None] = [Cell(pictures(query), f"{label} · {100 * arrays['right'][row]:.0f} %", SOFT), None]
        for path in arrays["gallery"][arrays["nearest"][row]].tolist():
            # an image that is the only one of its label is no query, so it is not in `label_of`
            same = label_of.get(path) == label and path in label_of
            cells.append(Cell(pictures(path), str(label_of.get(path, "")), GOOD if same else BAD))
        sheet.append(cells)
    return rows_of(sheet)


def mistakes_sheet(
    arrays: Mapping[str, NDArray], pictures: Pictures, count: int = 24, columns: int = 12
) -> Image.Image:
    """Draw misclassified images with their true and predicted classes, the most frequent confusions first, one of each
    in turn."""
    cells = [
        Cell(pictures(str(arrays["paths"][row])), f"{arrays['truth'][row]}\n→ {arrays['predicted'][row]}")
        for row in mistakes(arrays["truth"], arrays["predicted"])[:count]
    ]
    return rows_of([cells[start : start + columns] for start in range(0, len(cells), columns)])


def map_sheet(pictures: Sequence[Image.Image], maps: Mapping[str, ArrayLike]) -> Image.Image:
    """Draw pictures in a row and, below, a row per name with dense features (n, D, h, w) as colours, see `pca_maps`.

    maps: may go on with further images, which count for the colours alone.
    """
    named: list[tuple[str, list[Image.Image]]] = [("", list(pictures))]
    for name, dense in maps.items():
        named.append((name, [Image.fromarray(colours) for colours in pca_maps(dense)[: len(pictures)]]))
    return rows_of([[Cell(picture) for picture in row] for _, row in named], [name for name, _ in named])


def correspondence_sheet(pairs: Sequence[CorrespondenceResult], columns: int = 2, side: int = 240) -> Image.Image:
    """Draw pairs side by side with matched points joined: green if right, else red, with a red ring at the true
    position."""
    drawn = [_joined(pair, side) for pair in pairs]
    width, height = drawn[0].size
    rows = -(-len(drawn) // columns)
    sheet = Image.new("RGB", (min(columns, len(drawn)) * (width + 2 * _GAP), rows * (height + _GAP)), _PAPER)
    for number, picture in enumerate(drawn):
        sheet.paste(picture, (number % columns * (width + 2 * _GAP), number // columns * (height + _GAP)))
    return sheet


def rows_of(rows: Sequence[Sequence[Cell | None]], names: Sequence[str] = ()) -> Image.Image:
    """Draw rows of cells; None leaves a gap. names: of the rows, written at their left.

    Each line of a caption takes two at most; the middle of one that is still too long is left out.
    """
    if not any(rows):
        raise ValueError("a sheet has no pictures, expected one or more.")
    font, wide = _font(), SIDE + 2 * _FRAME + _GAP
    written = {cell.caption: _lines(cell.caption, font, wide - 2) for row in rows for cell in row if cell}
    below = _LINE * max((len(lines) for caption, lines in written.items() if caption), default=0)
    tall = SIDE + 2 * _FRAME + _GAP + below
    left = _LABELS if any(names) else 0
    widths = [sum(wide if cell else wide // 3 for cell in row) for row in rows]
    sheet = Image.new("RGB", (left + max(widths) + _GAP, len(rows) * tall + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = left + _GAP, number * tall + _GAP
        if names:
            lines = wrapped(names[number], font, left - 2 * _GAP, _NAME_LINES)
            pen.multiline_text((_GAP, y + (SIDE - _LINE * len(lines)) // 2), "\n".join(lines), INK, font)
        for cell in row:
            if cell is None:
                x += wide // 3
                continue
            outer = (x, y, x + SIDE + 2 * _FRAME - 1, y + SIDE + 2 * _FRAME - 1)
            pen.rectangle(outer, fill=cell.frame or _BLANK)
            sheet.paste(fitted(cell.picture, SIDE), (x + _FRAME, y + _FRAME))
            middle, top = x + SIDE // 2 + _FRAME, y + SIDE + 2 * _FRAME + _LINE // 2
            for line, words in enumerate(written[cell.caption]):
                pen.text((middle, top + line * _LINE), words, INK, font, anchor="mm")
            x += wide
    return sheet


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """Return the whole picture in a square of `side`; much smaller pictures are magnified by nearest neighbour."""
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    filters = Image.Resampling
    shown = picture.convert("RGB").resize((width, height), filters.NEAREST if scale > 2 else filters.LANCZOS)
    square = Image.new("RGB", (side, side), _BLANK)
    square.paste(shown, ((side - width) // 2, (side - height) // 2))
    return square


# choice of rows ------------------------------------------------------------------------------------------------------


def extremes(scores: NDArray, labels: NDArray, count: int = 5) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows with the highest scores and, of the others, those with the lowest, at most `count` each; equal
    scores take turns by label."""
    scores = np.asarray(scores, dtype=np.float64)
    seen: dict[tuple[float, str], int] = {}
    turn = np.empty(len(scores), dtype=np.intp)
    for row, key in enumerate(zip(scores.tolist(), map(str, labels), strict=True)):
        turn[row] = seen[key] = seen.get(key, -1) + 1
    best = np.lexsort((turn, -scores))[:count]
    worst = np.lexsort((turn, scores))
    return best, worst[~np.isin(worst, best)][:count]


def mistakes(truth: NDArray, predicted: NDArray) -> NDArray[np.intp]:
    """Return the rows that were predicted wrong: one of each confusion, the most frequent first, then again."""
    wrong = np.flatnonzero(truth != predicted)
    by_kind: dict[tuple[str, str], list[int]] = {}
    for row in wrong.tolist():
        by_kind.setdefault((str(truth[row]), str(predicted[row])), []).append(row)
    kinds = sorted(by_kind.values(), key=len, reverse=True)
    turns = max(map(len, kinds), default=0)
    return np.array([kind[turn] for turn in range(turns) for kind in kinds if turn < len(kind)], dtype=np.intp)


def pca_maps(dense: ArrayLike, of_positions: ArrayLike | None = None) -> NDArray[np.uint8]:
    """Return dense features (n, D, h, w) as uint8 colours (n, h, w, 3): red, green and blue are their first three
    principal components over all maps together, without what the features say of the position alone.

    Features depend on their position as well as on the image, often more, and components of both together show the
    position. So the mean of each position is taken away first: `of_positions` (D, h, w), by default the mean over the
    maps, of which there should be many. One map without it is shown as it is, position included.

    Each colour runs from 0 to 255 between the 1st and the 99th percentile of its component. The largest weight of a
    component is positive, so the same maps always get the same colours.
    """
    maps = np.asarray(dense, dtype=np.float64)
    if maps.ndim != 4 or not maps.size or not np.isfinite(maps).all():
        raise ValueError(
            f"dense features have shape {maps.shape}, expected finite numbers (n, D, h, w); read with none."
        )
    n, width, *grid = maps.shape
    if of_positions is not None or n > 1:
        maps = maps - (maps.mean(axis=0) if of_positions is None else np.asarray(of_positions, dtype=np.float64))
    cells = maps.transpose(0, 2, 3, 1).reshape(-1, width)
    cells = cells - cells.mean(axis=0)
    _, axes = np.linalg.eigh(cells.T @ cells)  # the largest come last
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    parts = np.zeros((len(cells), 3))
    parts[:, : axes.shape[1]] = cells @ axes
    low, high = np.percentile(parts, (1, 99), axis=0)
    flat = high - low <= 1e-9 * max(1e-30, float((high - low).max()))  # constant but for rounding
    shares = np.where(flat, 0.5, (parts - low) / np.where(flat, 1, high - low))
    return (255 * np.clip(shares, 0, 1)).round().astype(np.uint8).reshape(n, *grid, 3)


# drawing ------------------------------------------------------------------------------------------------------------


def _joined(pair: CorrespondenceResult, side: int) -> Image.Image:
    """Draw one pair with its points joined."""
    sheet = Image.new("RGB", (2 * side + _GAP, side + _LINE), _PAPER)
    places = []
    for picture, left in ((pair.source, 0), (pair.target, side + _GAP)):
        sheet.paste(fitted(picture, side), (left, 0))
        scale = side / max(picture.size)
        margin = [(side - round(length * scale)) // 2 for length in picture.size]
        places.append((scale, np.array([left + margin[0], margin[1]])))
    (scale, corner), (scale_2, corner_2) = places
    pen = ImageDraw.Draw(sheet)
    ends = zip(
        (pair.points + 0.5) * scale + corner,
        (pair.found + 0.5) * scale_2 + corner_2,
        (pair.wanted + 0.5) * scale_2 + corner_2,
        pair.right,
        strict=True,
    )
    for start, end, wanted, right in ends:
        colour = GOOD if right else BAD
        pen.line([*start, *end], fill=colour, width=2)
        for x, y in (start, end):
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline=_PAPER)
        if not right:
            x, y = wanted
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=BAD, width=2)
    font = _font()
    middle = side + _GAP // 2, side + _LINE // 2
    pen.text(middle, shortened(pair.caption, font, 2 * side), INK, font, anchor="mm")
    return sheet


def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which charts use too and which covers most alphabets."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 10)


def _lines(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Return the lines of a caption, each wrapped into two at most."""
    return [line for part in caption.split("\n") for line in wrapped(part, font, width, _CAPTION_LINES)]
