"""Page of an evaluation of tokenizers: numbers, the worst and typical reconstructions, histograms, use of the codes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from ...data.images import preview
from ...probes.report.style import COLOURS, SOFT, axes, ink, legend, lines, svg
from ...utils import atomic
from ...utils.drawing import png
from ..training.channels import about_channels
from .evaluation import COMPARED, FORMS, Evaluation
from .reconstruction import shown

PAGE = "report.html"
WORST, TYPICAL = 8, 8  # images that are shown
BINS = 40
SHADES = ("#3b82cc", COLOURS[1], "#2f9e5b", "#c2553b", "#8b6fd4")  # that can be told from white and from black


@dataclass(frozen=True)
class Shown:
    """A picture of the page. source: a data URI. caption: its errors."""

    title: str
    source: str
    caption: str


def write_page(found: Evaluation, directory: Path) -> Path:
    """Write OUT/report.html, a page that needs no other file, and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    worst, typical = chosen(found.outcome.qualities[0].errors.mse)
    sheets = {
        "Worst reconstructions": (f"The largest squared errors of {found.tokenizers[0].name}.", worst),
        "Typical reconstructions": (f"Those about the median error of {found.tokenizers[0].name}.", typical),
    }
    with ink():
        charts = {
            "Errors of images": (Markup(svg(histogram(found))), errors_caption(found)),  # nosec B704 # drawn here
            "Use of the codes": (
                Markup(svg(frequencies(found))),  # nosec B704 # drawn here
                "Share of the tokens of each code, the most frequent first. Dashed: all equally frequent.",
            ),
        }
    record = found.record()
    page = environment.get_template("evaluation.html.j2").render(
        name=found.tokenizers[0].name,
        names=[one.name for one in found.tokenizers],
        rows=found.rows(),
        compared=found.compared(),
        compared_names=COMPARED,
        notes=found.notes(),
        sheets={title: (caption, cards(found, rows)) for title, (caption, rows) in sheets.items() if rows},
        about_pictures=about_pictures(found.tokenizers[0].tokenizer.channels),
        charts=charts,
        settings=json.dumps({name: record[name] for name in ("data", "settings", "made_with")}, indent=2),
    )
    atomic.write_bytes(directory / PAGE, page.encode("utf-8", "backslashreplace"))  # paths may not be valid text
    return directory / PAGE


def chosen(errors: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the places of the largest errors, the largest first, and of those about the median of the others."""
    order = np.argsort(-errors, kind="stable")
    worst, rest = order[: min(WORST, -(-len(order) // 2))], order[min(WORST, -(-len(order) // 2)) :]
    first = max(0, (len(rest) - TYPICAL) // 2)
    return worst.tolist(), rest[first : first + TYPICAL].tolist()


def cards(found: Evaluation, places: list[int]) -> list[dict[str, Any]]:
    """Return the pictures of images: each original, and its reconstructions with their errors."""
    rows = [found.outcome.rows[place] for place in places]
    originals, made = shown(found.tokenizers, found.images, rows)
    sheet = []
    for i, place in enumerate(places):
        pictures = [Shown("original", uri(originals[i]), "")]
        for quality, images in zip(found.outcome.qualities, made, strict=True):
            errors = quality.errors
            caption = f"{FORMS['psnr'](errors.psnr[place])} dB, SSIM {errors.ssim[place]:.3f}"
            pictures.append(Shown(quality.name, uri(images[i]), caption))
        sheet.append({"path": found.images.source.paths[rows[i]], "pictures": pictures})
    return sheet


def uri(image: np.ndarray) -> str:
    """Return an image (channels, H, W) in [0, 1] as a data URI of a picture, see `preview`."""
    content = png(preview(torch.from_numpy(np.ascontiguousarray(image))))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def about_pictures(channels: int) -> str:
    """Return what pictures of so many channels show."""
    return f"{about} Errors are over all." if (about := about_channels(channels)) else ""


def histogram(found: Evaluation) -> Figure:
    """Draw histograms of the squared errors of images, with a line at each mean."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    errors = {quality.name: quality.errors.mse for quality in found.outcome.qualities}
    there = np.concatenate([one[one > 0] for one in errors.values()])
    if len(there):
        low, high = np.log10(there.min()) - 0.05, np.log10(there.max()) + 0.05
        bins = np.logspace(low, high, BINS).tolist()
        for (name, one), colour in zip(errors.items(), SHADES, strict=False):
            ax.hist(one[one > 0], bins, histtype="stepfilled", color=colour, alpha=0.3)
            ax.hist(one[one > 0], bins, histtype="step", color=colour, lw=1.4, label=lines(name, 36))
            ax.axvline(one.mean(), color=colour, lw=1, ls="--")
        ax.set_xscale("log")
        legend(ax, len(errors))
    ax.set(xlabel="mean squared error of an image", ylabel="images")
    return figure


def errors_caption(found: Evaluation) -> str:
    """Return the caption of the histogram."""
    exact = {quality.name: int((quality.errors.mse == 0).sum()) for quality in found.outcome.qualities}
    left_out = ", ".join(f"{count:,} of {name}" for name, count in exact.items() if count)
    return "Dashed: means." + (f" Not shown, since they came back exactly: {left_out}." if left_out else "")


def frequencies(found: Evaluation) -> Figure:
    """Draw the share of tokens of each code by its rank, for each tokenizer."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    ax = axes(figure.subplots(), grid="y")
    for quality, colour in zip(found.outcome.qualities, SHADES, strict=False):
        shares = 100 * np.sort(quality.counts)[::-1] / quality.counts.sum()
        used = shares[shares > 0]
        label = f"{lines(quality.name, 36)}, {len(used):,} of {len(shares):,}"
        ax.plot(np.arange(1, len(used) + 1), used, color=colour, lw=1.5, label=label)
    for size in {len(quality.counts) for quality in found.outcome.qualities}:
        ax.plot([1, size], [100 / size] * 2, color=SOFT, lw=1, ls="--")
    ax.set_yscale("log")
    ax.set(xlabel="rank of the code", ylabel="share of tokens, %")
    legend(ax, len(found.outcome.qualities))
    return figure
