"""Page of a run: its curves, its pictures and its recipe."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from randfeat.probes import png
from randfeat.probes.report.style import COLOURS, axes, legend
from randfeat.utils import atomic

PAGE = "report.html"
Columns = dict[str, np.ndarray]
Figures = dict[str, tuple[Figure, str]]  # by title: the figure and its caption
SHOWN = 6  # pictures of a run, at most


def write(
    directory: Path,
    lead: str,
    figures: Figures,
    pictures: str,
    recipe: Any,
    about: str = "",
    first: tuple[str, Path | None, str] | None = None,
) -> Path:
    """Write report.html of a run and return its path.

    lead: the line below the title. pictures: folder of the run that holds one for each of some steps. about: a sentence
    about these. recipe: a dataclass. first: title of one more picture, above all others, its file, if there is one, and
    what is said about it.
    """
    title, path, said = first or ("", None, "")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html.j2").render(
        name=directory.name,
        lead=lead,
        figures={title: (_uri(png(figure)), caption) for title, (figure, caption) in figures.items()},
        first={"title": title, "source": path and _uri(path.read_bytes()), "about": said} if first else None,
        heading=pictures.capitalize(),
        about=about,
        pictures={
            int(path.stem[5:]): _uri(path.read_bytes())
            for path in _few(sorted((directory / pictures).glob("step-*.png")))
        },
        recipe=json.dumps(dataclasses.asdict(recipe), indent=2),
    )
    atomic.write_bytes(directory / PAGE, page.encode())
    return directory / PAGE


def read(path: Path) -> Columns:
    """Return the columns of a CSV file by name; none where it has no row."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def lines(
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


def losses(train: Columns, validation: Columns, label: str) -> Figures:
    """Return the figure of the loss on the images trained on and on the held-out ones."""
    curves = {"train": (train["step"], train["loss"])}
    if validation:
        curves["held out"] = validation["step"], validation["loss"]
    return {"Loss": (lines(curves, label), "Mean over the steps between two lines of train.csv.")}


def steps(train: Columns, speed: str) -> Figures:
    """Return the figures of speed, learning rate and gradient norm. speed: the caption of the first."""
    images = {"images a second": (train["step"], train["images_per_second"])}
    rate = {"learning rate": (train["step"], train["learning_rate"])}
    norm = {"gradient norm": (train["step"], train["gradient_norm"])}
    return {
        "Speed": (lines(images, "images a second"), speed),
        "Learning rate": (lines(rate, "learning rate"), "As the recipe says."),
        "Gradient norm": (lines(norm, "norm", log=True), "Of the last step of each line, before clipping."),
    }


def _few(paths: list[Path], count: int = SHOWN) -> list[Path]:
    """Return `count` of them at most, evenly spread, with the last one."""
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).round().astype(int))] if paths else []


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
