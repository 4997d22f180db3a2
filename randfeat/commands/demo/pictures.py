"""Plots and sheets of images of the report, as PNG in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from randfeat.data.images import to_pil
from randfeat.probes.report.style import legend
from randfeat.utils import drawing

ZOOM = 5  # screen pixels per image pixel
GAP = 1  # image pixels between two images
PAPER = 1.0
TEXT, LINE, SPACE = (
    13,
    20,
    5,
)  # screen pixels: of letters, of a line of text, and between two images of a labelled sheet
WRONG, INK = (176, 58, 31), (28, 35, 48)


def sheet(rows: Sequence[Tensor]) -> Image.Image:
    """Return rows of images (n, 1, H, W) as one picture, with white gaps; rows may differ in length."""
    height, width = rows[0].shape[2:]
    columns = max(len(row) for row in rows)
    canvas = torch.full((1, len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP), PAPER)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = r * (height + GAP), c * (width + GAP)
            canvas[:, top : top + height, left : left + width] = image
    picture = to_pil(canvas)
    return picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Row:
    """A row of a labelled sheet. images: (n, H, W) uint8, or (n, H, W, 3). captions: below its images, with `wrong` of
    them in another colour."""

    label: str
    images: np.ndarray
    captions: Sequence[str] = ()
    wrong: Sequence[bool] = ()


def labelled_sheet(rows: Sequence[Row], heads: Sequence[str] = (), zoom: int = 3, label_width: int = 96) -> Image.Image:
    """Return rows of small images, enlarged smoothly, with a label at the left of each; heads stand over the columns.

    Rows without any image leave a gap.
    """
    side = max(row.images.shape[2] for row in rows if len(row.images)) * zoom
    columns = max(len(row.images) for row in rows)
    font = ImageFont.load_default(TEXT)
    heights = [(row.images.shape[1] * zoom if len(row.images) else 0) + (LINE if row.captions else 0) for row in rows]
    top = LINE if heads else 0
    size = label_width + columns * (side + SPACE), top + sum(heights) + SPACE * len(rows)
    canvas = Image.new("RGB", size, drawing.PAPER)
    pen = ImageDraw.Draw(canvas)
    for c, head in enumerate(heads):
        pen.text((label_width + c * (side + SPACE) + side / 2, top / 2), head, drawing.INK, font, anchor="mm")
    for row, height in zip(rows, heights, strict=True):
        tall = height - (LINE if row.captions else 0)
        pen.multiline_text((0, top + tall / 2), row.label, drawing.INK, font, anchor="lm", spacing=3)
        for c, image in enumerate(row.images):
            left = label_width + c * (side + SPACE)
            canvas.paste(enlarged(image, zoom), (left, top))
            if row.captions:
                ink = WRONG if row.wrong and row.wrong[c] else drawing.INK
                pen.text((left + side / 2, top + tall + LINE / 2), row.captions[c], ink, font, anchor="mm")
        top += height + SPACE
    return canvas


def composed(panels: Sequence[tuple[str, Image.Image]], margin: int = 18) -> Image.Image:
    """Return titled pictures, two in a row, as one picture."""
    font, title = ImageFont.load_default(TEXT + 3), TEXT + 14
    width = max(picture.width for _, picture in panels)
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    heights = [title + max(picture.height for _, picture in pair) for pair in pairs]
    canvas = Image.new("RGB", (2 * width + 3 * margin, sum(heights) + margin * (len(pairs) + 1)), drawing.PAPER)
    pen, top = ImageDraw.Draw(canvas), margin
    for pair, height in zip(pairs, heights, strict=True):
        for c, (text, picture) in enumerate(pair):
            left = margin + c * (width + margin)
            pen.text((left, top), text, INK, font)
            canvas.paste(picture, (left, top + title))
        top += height + margin
    return canvas


def enlarged(image: np.ndarray, zoom: int) -> Image.Image:
    """Return an image, uint8 (H, W) or (H, W, 3), enlarged smoothly."""
    picture = Image.fromarray(image)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.LANCZOS)


def heat_of(images: np.ndarray, maps: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return images (n, H, W) under heat maps (n, h, w) on one colour scale from low to high: uint8 (n, H, W, 3)."""
    pairs = zip(images, maps, strict=True)
    return np.stack([np.asarray(drawing.heat(Image.fromarray(image), one, low, high)) for image, one in pairs])


def plot(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def heat_maps(maps: Mapping[str, Mapping[str, Mapping[int, float]]], columns: int = 3) -> bytes:
    """Draw held-out accuracy by order mode (rows) and layer (columns), one map for each title, on one colour scale."""
    values = [v for rows in maps.values() for row in rows.values() for v in row.values()]
    lowest, highest = min(values), max(values)
    longest, rows_of_maps = max(len(rows) for rows in maps.values()), -(-len(maps) // columns)
    figure = Figure(figsize=(3.4 * columns + 1.4, rows_of_maps * (0.34 * longest + 0.9)), layout="constrained")
    axes = figure.subplots(rows_of_maps, columns, squeeze=False, sharey=True)
    for ax, (title, rows) in zip(axes.flat, maps.items(), strict=False):
        grid = np.array([list(row.values()) for row in rows.values()])
        image = ax.imshow(grid, vmin=lowest, vmax=highest, cmap="viridis", aspect="auto")
        ax.set_title(title, fontsize=9)
        ax.set_xticks(range(grid.shape[1]), [f"L{layer}" for layer in next(iter(rows.values()))])
        ax.set_yticks(range(grid.shape[0]), list(rows))
        for (r, c), value in np.ndenumerate(grid):
            colour = "w" if value < (lowest + highest) / 2 else "k"
            ax.text(c, r, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8, label="held-out linear accuracy")
    return plot(figure)


def learning_curves(curves: Mapping[str, tuple[Sequence[tuple[int, float]], Sequence[tuple[int, float]]]]) -> bytes:
    """Draw (training, held-out) lists of (step, nats per token) by model; training is averaged over 50 steps."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    ax = figure.subplots()
    for i, (name, (train, held_out)) in enumerate(curves.items()):
        steps, losses = np.array(train).T
        window = min(50, len(losses))
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        ax.plot(steps[window - 1 :], smooth, color=f"C{i}", lw=1, label=f"{name}, train")
        if held_out:
            ax.plot(*np.array(held_out).T, "o-", color=f"C{i}", ms=3, lw=1, label=f"{name}, held-out writers")
    ax.set(xlabel="step", ylabel="nats per token")
    legend(ax, 2 * len(curves))
    ax.grid(alpha=0.3)
    return plot(figure)


def accuracy_over_orders(
    curves: Mapping[str, Mapping[int, tuple[float, float, float]]], baselines: Mapping[str, float]
) -> bytes:
    """Draw (value, low, high) by number of orders K, for each model; baselines are horizontal lines."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    ax = figure.subplots()
    for name, curve in curves.items():
        counts = list(curve)
        value, low, high = np.array(list(curve.values())).T
        ax.plot(counts, value, "o-", label=name)
        ax.fill_between(counts, low, high, alpha=0.15)
    for i, (name, value) in enumerate(baselines.items()):
        ax.axhline(value, color="0.4", lw=1, ls=("--", ":", "-.")[i % 3], label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(k) for k in counts])
    ax.set(xlabel="orders K", ylabel="accuracy on test writers")
    legend(ax, len(curves) + len(baselines))
    ax.grid(alpha=0.3)
    return plot(figure)


def overview(panels: Sequence[tuple[str, Image.Image]]) -> bytes:
    """Draw four titled pictures, two by two."""
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    for ax, (title, picture) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title, fontsize=10, loc="left")
        ax.axis("off")
    return plot(figure)
