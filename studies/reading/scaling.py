"""Scaling of features with the length of pretraining and the width of the network: three of each.

    python -m studies.reading.scaling OUT                      # trains, reads and scores; resumed unit by unit
    python -m studies.reading.scaling OUT --draw docs/images       # and draws reading_scaling_MEASURE.png

OUT is the folder of the study; sets and learning rates that it lacks are made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from randfeat.probes import Interval, bootstrap
from randfeat.probes.report.plots import curves
from randfeat.probes.report.style import png

from randfeat.utils.parallel import run_all

from . import material, tuning, units
from .models import DEPTH, ModelSize
from .results import TITLES, Results
from .scoring import MEASURES
from .tables import percent
from .units import Job

WIDTHS, STEPS = (32, 64, 96), (300, 600, 1200)  # of RandAR; the model trains as long as costs the same
DRAWS = 4000
Found = dict[str, dict[int, dict[int, Interval]]]  # by measure, width and steps


def jobs(out: Path, args: argparse.Namespace) -> dict[tuple[int, int, int], Job]:
    """Return the jobs by width, steps and seed."""
    made = {name: material.make(name, out / name, args.data_seed, args.split_seed) for name in {args.set, tuning.SET}}
    tuned = Job(tuning.SET, args.model, 0, made[tuning.SET], out / tuning.SET, max(STEPS))
    rate = tuning.rates([tuned])[args.model]
    return {
        (width, steps, seed): Job(
            args.set,
            args.model,
            seed,
            made[args.set],
            out / args.set / "scaling" / args.model / f"width{width}-steps{steps}" / str(seed),
            steps,
            rate,
            ModelSize(width, DEPTH),
        )
        for seed in args.seeds
        for width in WIDTHS
        for steps in STEPS
    }


def intervals(made: Mapping[tuple[int, int, int], Job], seeds: Iterable[int]) -> Found:
    """Return the scores of finished jobs, over seeds, groups and images."""
    groups = Results(next(iter(made.values())).material.parent).groups
    found: Found = {}
    for measure in MEASURES:
        for width in WIDTHS:
            for steps in STEPS:
                files = [made[width, steps, seed].folder / "scores.npz" for seed in seeds]
                right = np.stack([np.load(path)[f"{measure}|any"].astype(np.float64) for path in files])
                found.setdefault(measure, {}).setdefault(width, {})[steps] = bootstrap(right, groups, DRAWS)
    return found


def main() -> None:
    """Train and score all widths and lengths; print the table and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the study")
    parser.add_argument("--set", default="cluttered", choices=[*material.SETTINGS], help="(cluttered)")
    parser.add_argument("--model", default="arpg", choices=[*TITLES], help="(arpg)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="of pretraining (0)")
    parser.add_argument("--data-seed", type=int, default=1)
    parser.add_argument("--split-seed", type=int, default=1)
    parser.add_argument("--draw", type=Path, metavar="DIR", help="folder of the figures")
    args = parser.parse_args()
    made = jobs(args.out / f"data{args.data_seed}-split{args.split_seed}", args)
    run_all({"-".join(map(str, which)): partial(units.run, job) for which, job in made.items()})
    found = intervals(made, args.seeds)
    print(f"| {args.model}, {args.set} | {' | '.join(MEASURES)} | training, TFLOP |")
    print("|---" * (len(MEASURES) + 2) + "|")
    for width in WIDTHS:
        for steps in STEPS:
            record = json.loads((made[width, steps, args.seeds[0]].folder / "record.json").read_text("utf-8"))
            cells = [percent(found[measure][width][steps]) for measure in MEASURES]
            print(f"| width {width}, {steps} steps | {' | '.join(cells)} | {record['flops'] / 1e12:.1f} |")
    for measure, lines in found.items() if args.draw is not None else ():
        named = {f"width {width}": {str(steps): one for steps, one in line.items()} for width, line in lines.items()}
        figure = curves(named, "cost, in steps of RandAR", f"{args.model}, {args.set}: {measure}, %")
        (args.draw / f"reading_scaling_{measure.replace('@', '_')}.png").write_bytes(png(figure))


if __name__ == "__main__":
    main()
