"""Which way of reading is best, and against what? Everything of docs/reading.md from one command:

    python -m benchmarks.study OUT                              # all sets, five seeds: hours on two cores
    python -m benchmarks.study OUT --sets letters --seeds 1 --steps 50       # a trial

It goes on where it was stopped: a unit that is done is kept.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from randfeat.commands.demo.workers import run_all

from . import material, tuning, units, warped
from .contenders import CONTENDERS
from .units import Job

STEPS = {"cluttered": 1200, "letters": 1600, "digits": 1200, "photographs": 800}
BASELINES = "classical"


def main() -> None:
    args = parser().parse_args()
    out = args.out / f"data{args.data_seed}-split{args.split_seed}"
    steps = {name: args.steps or STEPS[name] for name in STEPS}
    sets = dict.fromkeys([*args.sets, tuning.SET])
    made = run_all(
        {name: partial(material.make, name, out / name, args.data_seed, args.split_seed, args.images) for name in sets}
    )
    trained = [name for name in args.contenders if name != BASELINES]
    rates = tuning.rates(made[tuning.SET], steps[tuning.SET], trained)
    todo, found = {}, {}
    for name in args.sets if BASELINES in args.contenders else ():
        job = Job(name, BASELINES, 0, made[name], out / name / BASELINES)
        todo[job.name] = partial(units.run_classical, job)
        found[job.name] = partial(warped.run_classical, job)
    for seed in args.seeds:  # a seed of everything before the next, so that what is there can be looked at
        for name in args.sets:
            for contender in trained:
                folder = out / name / contender / str(seed)
                job = Job(name, contender, seed, made[name], folder, steps[name], rates.get(contender, 0.0))
                todo[job.name] = partial(units.run, job)
                if not CONTENDERS[contender].labels:
                    found[job.name] = partial(warped.run, job)
    run_all(todo)
    run_all(found)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, metavar="OUT", help="the folder that everything is left in")
    made.add_argument("--sets", nargs="+", choices=[*STEPS], default=[*STEPS], metavar="SET", help=", ".join(STEPS))
    names = [BASELINES, *CONTENDERS]
    plain = [name for name in names if name == BASELINES or CONTENDERS[name].plain is None]
    made.add_argument("--contenders", nargs="+", choices=names, default=plain, metavar="NAME", help=", ".join(names))
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="SEED", help="of pretraining")
    made.add_argument("--data-seed", type=int, default=1, help="of places, sizes and angles in the sets")
    made.add_argument("--split-seed", type=int, default=1, help="of the split into train and test")
    made.add_argument("--images", type=int, default=material.IMAGES, help="of train that probes see, at most")
    made.add_argument("--steps", type=int, help="of RandAR's training; all others get what costs the same")
    return made


if __name__ == "__main__":
    main()
