"""Figures of docs/reading.md.

python -m studies.reading.figures OUT/data1-split1 docs/images
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from randfeat.probes.report.plots import intervals
from randfeat.probes.report.style import COLOURS, axes, legend, png, titled

from randfeat import cli
from randfeat.inference.readout import FeatureSpec

from .moved import BASELINE, VIEWS
from .results import TITLES, Results, every
from .scoring import MEASURES
from .tables import OURS, moved_found

SHOWN = MEASURES[:3]
TICKS = [digit * 10**power for power in range(6) for digit in (1, 3)]  # MFLOP
STRONGEST = "strongest baseline"
FAMILY = {  # context of a feature spec, in the order in which they are drawn
    "one pass": lambda spec: spec.context == "causal" and len(spec.passes) == 1,
    "several passes": lambda spec: spec.context == "causal" and len(spec.passes) > 1,
    "echo": lambda spec: spec.context == "echo",
    "full": lambda spec: spec.context == "full",
    "after, bare": lambda spec: spec.context in ("after", "bare"),
}


def costs(results: Results) -> Figure:
    """Return the held-out accuracy on train of every feature spec over its cost, a row for each generator."""
    models = [name for name in OURS if name in results.found and results.found[name].ranked]
    figure = Figure(figsize=(9.6, 2.9 * len(models)), layout="constrained")
    grid = figure.subplots(len(models), len(SHOWN), squeeze=False)
    for model, panels in zip(models, grid, strict=True):
        found = results.found[model]
        flops = found.records[0]["reading_flops"]
        for measure, panel in zip(SHOWN, panels, strict=True):
            ax = axes(panel, "both")
            for (family, belongs), colour in zip(FAMILY.items(), COLOURS, strict=False):
                specs = [spec for spec in flops if belongs(FeatureSpec.parse(spec))]
                heights = [100 * np.mean([*found.right(f"train|{measure}|{spec}").values()]) for spec in specs]
                ax.plot([flops[spec] / 1e6 for spec in specs], heights, "o", color=colour, ms=4, label=family)
            ax.set_xscale("log")
            least, most = ax.get_xlim()
            ax.set_xticks([tick for tick in TICKS if least <= tick <= most], minor=False)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.set_xlabel("MFLOP an image", fontsize=8)
            ax.set_ylabel("held out on train, %", fontsize=8)
            titled(ax, f"{TITLES[model]}, {results.set}: {measure}")
    legend(grid[0, -1], len(FAMILY))
    return figure


def model_scores(results: Results) -> Figure:
    """Return the test scores of every model and of the strongest baseline of each measure, with intervals."""
    panels = {}
    for measure in SHOWN:
        strongest, right = results.strongest(measure)
        found = {title: results.found[name] for name, title in TITLES.items() if name in results.found}
        scores = {title: one.right(f"{measure}|any") for title, one in found.items()} | {STRONGEST: right}
        panels[f"{measure} (baseline: {strongest})"] = {name: results.interval(one) for name, one in scores.items()}
    return intervals(panels, (STRONGEST,))


def moved(results: Results) -> Figure:
    """Return the test scores of every model and of HOG, in each view of the images."""
    panels = {
        measure: {
            f"{name}, {view}": results.interval(found.right(f"moved|{measure}|{view}"))
            for name, found in moved_found(results).items()
            for view in VIEWS
        }
        for measure in SHOWN
    }
    return intervals(panels, [f"{BASELINE}, {view}" for view in VIEWS])


def main() -> None:
    """Draw the figures of every set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT/dataD-splitS", help="results of the study")
    parser.add_argument("out", type=Path, help="folder of the figures")
    args = parser.parse_args()
    for results in every(args.folder):
        if any(name in results.found for name in OURS):
            (args.out / f"reading_{results.set}.png").write_bytes(png(model_scores(results)))
            if any(results.found[name].ranked for name in OURS if name in results.found):
                (args.out / f"reading_costs_{results.set}.png").write_bytes(png(costs(results)))
            if len(moved_found(results)) > 1:
                (args.out / f"reading_moved_{results.set}.png").write_bytes(png(moved(results)))


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.reading.figures", main, "Nothing was lost."))
