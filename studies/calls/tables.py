"""Tables and the plot of docs/results/calls.md, made of what the study has found.

python -m studies.calls.tables docs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from randfeat.probes import Interval, bootstrap
from randfeat.probes.report.style import COLOURS, axes, legend, png, titled

from randfeat import cli
from randfeat.utils import atomic
from studies.reading.tables import percent
from studies.tokenizers.tables import as_csv

from .__main__ import FOUND, MODELS
from .arms import all_arms

DRAWS = 2000
TITLES = {"arpg": "ARPG", "randar": "RandAR"}
LINES = ("cosine-randar", "arccos", "linear", "least loss", "halton", "raster", "locality", "surest first")
POINTS = {"exact": "*", "one token a step": "s", "one sweep": "^", "two sweeps": "v", "redrawn": "D", "causal": "x"}
SEVERAL = 1.96  # standard deviations of an interval of 95 %
Row = list[str]


@dataclass(frozen=True)
class Measured:
    """A way of sampling with its record, and the interval of each score."""

    record: dict[str, Any]
    scores: dict[str, Interval]

    @property
    def frechet(self) -> Interval:
        """Fréchet distance, with an interval of 1.96 standard deviations of its bootstrap."""
        value, std = self.record["frechet"], self.record["frechet_std"]
        return Interval(value, value - SEVERAL * std, value + SEVERAL * std, self.record["samples"])


def results(found: Path, model: str) -> dict[str, Measured]:
    """Return what was measured of a model, in the order of the arms."""
    made = {}
    for arm in all_arms():
        path = found / model / f"{arm.name}.json"
        if path.exists():
            with np.load(path.with_suffix(".npz")) as file:
                scores = {name: bootstrap(x.astype(float), draws=DRAWS) for name, x in file.items()}
            made[arm.name] = Measured(json.loads(path.read_text("utf-8")), scores)
    return made


def rows(made: dict[str, Measured]) -> Iterator[Row]:
    """Yield the rows of the table of a model, those with fewer calls first."""
    yield ["", "calls", "Fréchet distance", "recognised, %", "coverage, %", "nats a token"]
    for name, one in sorted(made.items(), key=lambda item: item[1].record["calls"]):
        scores = one.scores
        yield [
            name,
            f"{one.record['calls']:.1f}".removesuffix(".0"),
            shown(one.frechet, 1),
            percent(scores["agreement"]),
            percent(scores["coverage"]),
            shown(scores["loss"], 2),
        ]


def shown(one: Interval, digits: int) -> str:
    """Return an interval with so many digits."""
    return f"{one.value:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]".replace("-", "−")


def plot(made: dict[str, dict[str, Measured]]) -> Figure:
    """Return the scores over the calls, a row for each model."""
    figure = Figure(figsize=(9.6, 3.2 * len(made)), layout="constrained")
    grid = figure.subplots(len(made), 3, squeeze=False)
    for (model, arms), panels in zip(made.items(), grid, strict=True):
        draw(panels[0], f"{TITLES[model]}: Fréchet distance", [(one, one.frechet, 1) for one in arms.values()])
        for ax, name, title, scale in (
            (panels[1], "agreement", "recognised, %", 100),
            (panels[2], "loss", "nats a token", 1),
        ):
            draw(ax, f"{TITLES[model]}: {title}", [(one, one.scores[name], scale) for one in arms.values()])
    legend(grid[0, -1], len(LINES) + len(POINTS))
    return figure


def draw(panel: Any, title: str, values: Sequence[tuple[Measured, Interval, float]]) -> None:
    """Draw one score of all arms over their calls, with intervals."""
    ax = axes(panel, "both")
    for family, style in [*((name, "o-") for name in LINES), *POINTS.items()]:
        some = sorted(
            ((one.record["calls"], score, scale) for one, score, scale in values if one.record["family"] == family),
            key=lambda point: point[0],
        )
        if some:
            colour = COLOURS[LINES.index(family) % len(COLOURS)] if family in LINES else "black"
            calls = [point[0] for point in some]
            heights = [scale * score.value for _, score, scale in some]
            below = [scale * (score.value - score.low) for _, score, scale in some]
            above = [scale * (score.high - score.value) for _, score, scale in some]
            ends = [below, above]
            ax.errorbar(calls, heights, ends, fmt=style, color=colour, ms=4, lw=1, elinewidth=0.6, label=family)
    ax.set_xlabel("network calls", fontsize=8)
    titled(ax, title)


def main() -> None:
    """Write the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, metavar="DOCS", help="folder of the documentation")
    parser.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    args = parser.parse_args()
    made = {model: found for model in MODELS if (found := results(args.found, model))}
    for model, found in made.items():
        atomic.write_bytes(args.docs / "results" / f"calls_{model}.csv", as_csv(rows(found)))
    atomic.write_bytes(args.docs / "images" / "calls.png", png(plot(made)))


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.calls.tables", main, "The same command goes on where this ended."))
