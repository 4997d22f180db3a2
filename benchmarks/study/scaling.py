"""How features change with the length of pretraining and the size of the network: three of each.

    python -m benchmarks.study.scaling OUT                      # trains, reads and scores; resumed unit by unit
    python -m benchmarks.study.scaling OUT --draw docs          # and draws docs/reading_scaling.png

OUT is the folder of the study, whose sets and learning rates are taken from there, or made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from randfeat.probes import Interval, bootstrap
from randfeat.probes.drawing import axes, colours, legend, png, titled

from randfeat.commands.demo.workers import run_all

from . import material, tuning, units
from .contenders import DEPTH, Size
from .scoring import MEASURES
from .tables import percent
from .units import Job

WIDTHS, STEPS = (32, 64, 96), (300, 600, 1200)  # of RandAR, whose cost the contender is given
DRAWS = 4000
Curves = dict[str, dict[int, dict[int, Interval]]]  # by measure, width and steps


def jobs(out: Path, args: argparse.Namespace) -> dict[tuple[int, int, int], Job]:
    """By width, steps and seed."""
    made = {name: material.make(name, out / name, args.data_seed, args.split_seed) for name in {args.set, tuning.SET}}
    rate = tuning.rates(made[tuning.SET], max(STEPS), [args.contender])[args.contender]
    return {
        (width, steps, seed): Job(
            args.set,
            args.contender,
            seed,
            made[args.set],
            out / args.set / "scaling" / args.contender / f"width{width}-steps{steps}" / str(seed),
            steps,
            rate,
            Size(width, DEPTH),
        )
        for seed in args.seeds
        for width in WIDTHS
        for steps in STEPS
    }


def curves(made: Mapping[tuple[int, int, int], Job], seeds: Iterable[int]) -> Curves:
    """What the finished jobs found, over seeds, groups and images."""
    one = next(iter(made.values()))
    held = material.read(one.set, one.material)
    groups = held.groups[held.tested]
    found: Curves = {}
    for measure in MEASURES:
        for width in WIDTHS:
            for steps in STEPS:
                files = [made[width, steps, seed].folder / "scores.npz" for seed in seeds]
                right = np.stack([np.load(path)[f"{measure}|any"].astype(np.float64) for path in files])
                found.setdefault(measure, {}).setdefault(width, {})[steps] = bootstrap(right, groups, DRAWS)
    return found


def draw(found: Curves, title: str) -> Figure:
    """A panel for each measure, a line for each width."""
    figure = Figure(figsize=(3.1 * len(found), 2.9), layout="constrained")
    for (measure, lines), panel in zip(found.items(), np.atleast_1d(figure.subplots(1, len(found))), strict=True):
        ax = axes(panel, "both")
        for (width, line), colour in zip(lines.items(), colours(len(lines)), strict=True):
            x, low, high = [*line], *([100 * getattr(one, side) for one in line.values()] for side in ("low", "high"))
            ax.plot(x, [100 * one.value for one in line.values()], "o-", color=colour, ms=4, label=f"width {width}")
            ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        ax.set_xscale("log")
        ax.set_xticks([*STEPS], [str(steps) for steps in STEPS])
        ax.minorticks_off()
        ax.set_xlabel("cost, in steps of RandAR", fontsize=8)
        ax.set_ylabel("%", fontsize=8)
        titled(ax, f"{title}: {measure}")
    legend(ax, len(lines))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the study")
    parser.add_argument("--set", default="cluttered", choices=[*material.SETTINGS], help="(cluttered)")
    parser.add_argument("--contender", default="arpg", help="(arpg)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="of pretraining (0)")
    parser.add_argument("--data-seed", type=int, default=1)
    parser.add_argument("--split-seed", type=int, default=1)
    parser.add_argument("--draw", type=Path, metavar="DIR", help="where the picture goes")
    args = parser.parse_args()
    made = jobs(args.out / f"data{args.data_seed}-split{args.split_seed}", args)
    run_all({"-".join(map(str, which)): partial(units.run, job) for which, job in made.items()})
    found = curves(made, args.seeds)
    print(f"| {args.contender}, {args.set} | {' | '.join(MEASURES)} | training, TFLOP |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for width in WIDTHS:
        for steps in STEPS:
            record = json.loads((made[width, steps, args.seeds[0]].folder / "record.json").read_text("utf-8"))
            cells = [percent(found[measure][width][steps]) for measure in MEASURES]
            print(f"| width {width}, {steps} steps | {' | '.join(cells)} | {record['flops'] / 1e12:.1f} |")
    if args.draw is not None:
        (args.draw / "reading_scaling.png").write_bytes(png(draw(found, args.contender)))


if __name__ == "__main__":
    main()
