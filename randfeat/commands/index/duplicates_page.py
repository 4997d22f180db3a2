"""Page of near-duplicates: the groups as pictures, and the scores that the threshold was found by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from ...index import Index
from ...probes.report.style import COLOURS, axes, ink, svg
from ..search import thumbnail

if TYPE_CHECKING:
    from ...index.duplicates import Group, Threshold

GROUPS, IN_GROUP = 200, 12  # that are shown, at most
BINS = 60
LEAST = 1e-7  # distance that the axis begins with


def page(index: Index, groups: Sequence[Group], threshold: float, found: Threshold | None) -> str:
    """Return the page. found: how the threshold was found, None where it was given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = [
        {
            "count": len(group.matches),
            "tiles": [
                (match, same, thumbnail(Path(match.path)))
                for match, same in zip(group.matches[:IN_GROUP], group.same, strict=False)
            ],
        }
        for group in groups[:GROUPS]
    ]
    chart = None
    if found is not None:
        with ink():
            chart = Markup(svg(histogram(found)))  # nosec B704 # drawn here, matplotlib escapes texts
    return environment.get_template("duplicates.html.j2").render(
        name=Path(index.directory or "index").name,
        images=len(index),
        metric=index.metric,
        reading=index.encoder_record,
        threshold=f"{threshold:.6g}",
        found=None if found is None else str(found),
        chart=chart,
        groups=shown,
        alike=sum(len(group.matches) for group in groups),
        more=len(groups) - len(shown),
        in_group=IN_GROUP,
    )


def histogram(found: Threshold) -> Figure:
    """Draw the distances of images to their nearest other one, on a logarithmic scale, and the threshold."""
    figure = Figure(figsize=(7, 2.6))
    ax = axes(figure.add_subplot(), "y")
    distances = np.maximum(found.distances, LEAST)
    bins = np.geomspace(LEAST, max(float(distances.max()), 10 * LEAST), BINS)
    cut = max(found.value if found.metric == "l2" else 1 - found.value, LEAST)
    ax.hist(distances[found.copies :], bins, color=COLOURS[0])  # type: ignore[arg-type]
    ax.hist(distances[: found.copies], bins, color=COLOURS[1])  # type: ignore[arg-type]
    ax.axvline(cut, color=COLOURS[1], lw=1.4, ls="--")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=10)
    ax.yaxis.set_major_formatter("{x:g}")
    what = "distance" if found.metric == "l2" else "1 − cosine"
    ax.set_xlabel(f"{what} to the nearest other image (copies at the left)", fontsize=8)
    ax.set_ylabel("images", fontsize=8)
    return figure
