"""Plots and sheets of images of the report, as PNG in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from randfeat.data.images import to_pil

ZOOM = 5  # screen pixels per image pixel
GAP = 1  # image pixels between two images
PAPER = 1.0


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
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    ax = figure.subplots()
    for i, (name, (train, held_out)) in enumerate(curves.items()):
        steps, losses = np.array(train).T
        window = min(50, len(losses))
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        ax.plot(steps[window - 1 :], smooth, color=f"C{i}", lw=1, label=f"{name}, train")
        if held_out:
            ax.plot(*np.array(held_out).T, "o-", color=f"C{i}", ms=3, lw=1, label=f"{name}, held-out writers")
    ax.set(xlabel="step", ylabel="nats per token")
    ax.legend(fontsize=7, ncols=2)
    ax.grid(alpha=0.3)
    return plot(figure)


def accuracy_over_orders(
    curves: Mapping[str, Mapping[int, tuple[float, float, float]]], baselines: Mapping[str, float]
) -> bytes:
    """Draw (value, low, high) by number of orders K, for each model; baselines are horizontal lines."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
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
    ax.legend(fontsize=7)
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
