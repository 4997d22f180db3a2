"""Page of a run: its curves, its samples and its recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from randfeat.pretrain import PretrainConfig

from ..training import page
from ..training.monitor import TRAIN, VALIDATION
from . import start
from .decoded import SHEET, TITLE, Decoded

PLACES, SAMPLES = "by_place.csv", "samples"


def write_page(directory: Path, recipe: PretrainConfig, state: str) -> Path:
    """Write RUN/report.html from the files of a run, and return its path. state: how far the run is."""
    train, validation, places = (page.read(directory / name) for name in (TRAIN, VALIDATION, PLACES))
    figures: page.Figures = {}
    if train:
        figures |= page.losses(train, validation, "nats a token") | page.steps(train, _speed(train))
    modes = [name for name in validation if name not in ("step", "loss", "knn_accuracy")]
    if len(modes) > 1:
        by_mode = {mode: (validation["step"], validation[mode]) for mode in modes}
        figures["Held-out loss by order"] = page.lines(by_mode, "nats a token"), "The same images in other orders."
    if "knn_accuracy" in validation:
        knn = {"k-NN": (validation["step"], 100 * validation["knn_accuracy"])}
        caption = "k = 20 on features of the default spec, on images of DATA."
        figures["k-NN"] = page.lines(knn, "accuracy, %"), caption
    if places:
        last = np.array([places[name][-1] for name in places if name != "step"])
        by_place = {"last validation": (np.arange(len(last)), last)}
        figure = page.lines(by_place, "nats", "position")
        figures["Loss by position in the order"] = figure, "Known tokens help with later ones."
    best = f"; best held-out loss {validation['loss'].min():.4f} nats a token" if validation else ""
    decoded, sheet = Decoded.read(directory), directory / SHEET
    first = None if decoded is None else (TITLE, sheet if sheet.exists() else None, decoded.about)
    return page.write(
        directory, f"{recipe.model}, {state}{best}.{start.told(directory)}", figures, SAMPLES, recipe, first=first
    )


def _speed(train: page.Columns) -> str:
    """Return the caption of the speed figure."""
    middle = {
        name: float(np.median(train[name])) for name in ("images_per_second", "tokens_per_second", "share_of_peak")
    }
    return (
        f"Median {middle['images_per_second']:.1f} images and {middle['tokens_per_second']:,.0f} tokens a second, "
        f"{100 * middle['share_of_peak']:.0f} % of what a large matrix product reaches here; at most "
        f"{train['memory_gib'].max():.2f} GiB."
    )
