"""Page of a run: its curves, its samples and its recipe."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure

from randfeat.pretrain import PretrainConfig
from randfeat.probes import png
from randfeat.probes.report.style import COLOURS, axes, legend
from randfeat.utils import atomic

from .monitor import PLACES, SAMPLES, TRAIN, VALIDATION

PAGE = "report.html"
Columns = dict[str, np.ndarray]


def write_page(directory: Path, recipe: PretrainConfig) -> Path:
    """Write RUN/report.html from the files of a run, and return its path."""
    train, validation, places = (_read(directory / name) for name in (TRAIN, VALIDATION, PLACES))
    figures = {}
    if train:
        curves = {"train": (train["step"], train["loss"])}
        if validation:
            curves["held out"] = validation["step"], validation["loss"]
        figures["Loss"] = _lines(curves, "nats a token"), "Mean over the steps between two lines of train.csv."
        speed = {"images a second": (train["step"], train["images_per_second"])}
        figures["Speed"] = _lines(speed, "images a second"), _speed(train)
        rate = {"learning rate": (train["step"], train["learning_rate"])}
        figures["Learning rate"] = _lines(rate, "learning rate"), "As the recipe says."
        norm = {"gradient norm": (train["step"], train["gradient_norm"])}
        figures["Gradient norm"] = _lines(norm, "norm", log=True), "Of the last step of each line, before clipping."
    modes = [name for name in validation if name not in ("step", "loss", "knn_accuracy")]
    if len(modes) > 1:
        by_mode = {mode: (validation["step"], validation[mode]) for mode in modes}
        figures["Held-out loss by order"] = _lines(by_mode, "nats a token"), "The same images in other orders."
    if "knn_accuracy" in validation:
        knn = {"k-NN": (validation["step"], 100 * validation["knn_accuracy"])}
        figures["k-NN"] = _lines(knn, "accuracy, %"), "k = 20 on features of the default spec, on images of DATA."
    if places:
        last = np.array([places[name][-1] for name in places if name != "step"])
        by_place = {"last validation": (np.arange(len(last)), last)}
        figures["Loss by position in the order"] = (
            _lines(by_place, "nats", "position"),
            "Known tokens help with later ones.",
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    samples = sorted((directory / SAMPLES).glob("step-*.png"))
    page = environment.get_template("page.html.j2").render(
        name=directory.name,
        model=recipe.model,
        steps=int(train["step"][-1]) if train else 0,
        best=f"{validation['loss'].min():.4f}" if validation else "",
        figures={title: (_uri(png(figure)), caption) for title, (figure, caption) in figures.items()},
        samples={int(path.stem[5:]): _uri(path.read_bytes()) for path in _few(samples)},
        recipe=json.dumps(dataclasses.asdict(recipe), indent=2),
    )
    atomic.write_bytes(directory / PAGE, page.encode())
    return directory / PAGE


def _read(path: Path) -> Columns:
    """Return the columns of a CSV file by name; none where it has no row."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def _lines(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], label: str, along: str = "step", log: bool = False
) -> Figure:
    """Draw curves: name -> (x, y)."""
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    for (name, (x, y)), colour in zip(curves.items(), COLOURS, strict=False):
        ax.plot(x, y, "-" if len(x) > 40 else "o-", ms=3, lw=1.4, color=colour, label=name)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel=along, ylabel=label)
    if len(curves) > 1:
        legend(ax, len(curves))
    return figure


def _speed(train: Columns) -> str:
    """Return the caption of the speed figure."""
    middle = {
        name: float(np.median(train[name])) for name in ("images_per_second", "tokens_per_second", "share_of_peak")
    }
    return (
        f"Median {middle['images_per_second']:.1f} images and {middle['tokens_per_second']:,.0f} tokens a second, "
        f"{100 * middle['share_of_peak']:.0f} % of what a large matrix product reaches here; at most "
        f"{train['memory_gib'].max():.2f} GiB."
    )


def _few(paths: list[Path], count: int = 6) -> list[Path]:
    """Return `count` of them at most, evenly spread, with the last one."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))] if paths else []


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
