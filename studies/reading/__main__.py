"""Study of feature specs: which extraction is best, and beside which baselines. All of docs/reading.md by one command:

    python -m studies.reading OUT                              # all sets, five seeds: hours on two cores
    python -m studies.reading OUT --sets letters --seeds 1 --steps 50       # a trial

The same of ImageNet, from token stores of `randfeat tokenize`, on one GPU; other seeds can run on others:

    python -m studies.reading OUT --tokens train_cache val_cache --width 768 --depth 12 --batch 256 --steps 300000 \\
        --rates 4e-4 --images 50000 --device cuda --seeds 0

The same command resumes: finished units are kept, and a training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from randfeat import cli
from randfeat.utils.parallel import run_all

from . import attended, material, moved, tuning, units, warped
from .material import STORED
from .models import BATCH, DEPTH, MODELS, RATES, WIDTH, ModelSize, reads_pixels
from .units import Job

STEPS = {"cluttered": 1200, "letters": 1600, "digits": 1200, "photographs": 800}
BASELINES = "classical"


def main() -> None:
    """Run the study."""
    args = (known := parser()).parse_args()
    if args.tokens is not None and args.steps is None:
        known.error("--tokens needs --steps: how long RandAR is trained on them")
    workers = None if args.device == "cpu" else 1
    out, sets, models = args.out / f"data{args.data_seed}-split{args.split_seed}", args.sets, args.models
    split = args.split_seed, args.images
    if args.tokens is not None:
        sets, tuned_on = [STORED], STORED
        models = models or [name for name in PLAIN if name == BASELINES or not reads_pixels(MODELS[name])]
        made = run_all({STORED: partial(material.of_stores, out / STORED, *args.tokens, *split)})
    else:
        sets, tuned_on, models = sets or [*STEPS], tuning.SET, models or PLAIN
        built = dict.fromkeys([*sets, tuned_on])
        made = run_all({name: partial(material.make, name, out / name, args.data_seed, *split) for name in built})
    trained = [name for name in models if name != BASELINES]
    size = ModelSize(args.width, args.depth, args.batch)

    def job(name: str, model: str, part: str = "", seed: int = 0, rate: float = 0.0) -> Job:
        folder, steps = out / name / model / part, args.steps or STEPS[name]
        return Job(name, model, seed, made[name], folder, steps, rate, size, args.device)

    rates = tuning.rates([job(tuned_on, name) for name in trained], args.rates, workers)
    # a token store has no pictures to move
    parts = (attended,) if args.tokens is not None else (warped, moved, attended)
    todo, after = {}, {}
    for name in sets if BASELINES in models else ():
        one = job(name, BASELINES)
        todo[one.name] = partial(units.run_classical, one)
        for part in parts if args.tokens is None else ():
            after[f"{one.name} {part.__name__}"] = partial(part.run_classical, one)
    for seed in args.seeds:  # one seed of everything before the next, so that first results come early
        for name in sets:
            for model in trained:
                one = job(name, model, str(seed), seed, rates.get(model, 0.0))
                todo[one.name] = partial(units.run, one)
                for part in () if MODELS[model].labels else parts:
                    after[f"{one.name} {part.__name__}"] = partial(part.run, one)
    run_all(todo, workers)
    run_all(after, workers)


PLAIN = [BASELINES, *(name for name, one in MODELS.items() if one.plain is None)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path, metavar="OUT", help="folder of all results")
    data = made.add_mutually_exclusive_group()
    data.add_argument("--sets", nargs="+", choices=[*STEPS], metavar="SET", help=", ".join(STEPS))
    data.add_argument("--tokens", nargs=2, type=Path, metavar=("TRAIN", "TEST"), help="two token stores with labels")
    names = [BASELINES, *MODELS]
    made.add_argument("--models", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="SEED", help="of pretraining")
    made.add_argument("--data-seed", type=int, default=1, help="of places, sizes and angles in the data sets")
    made.add_argument("--split-seed", type=int, default=1, help="of the split into train and test")
    made.add_argument("--images", type=int, default=material.IMAGES, help="most training images that probes see")
    made.add_argument("--steps", type=int, help="of RandAR's training; the others get as many as cost the same")
    made.add_argument("--width", type=int, default=WIDTH, help=f"of RandAR ({WIDTH})")
    made.add_argument("--depth", type=int, default=DEPTH, help=f"blocks of RandAR ({DEPTH})")
    made.add_argument("--batch", type=int, default=BATCH, help=f"images of a step ({BATCH})")
    made.add_argument("--rates", nargs="+", type=float, default=RATES, help="learning rates tried for each model")
    made.add_argument("--device", default="cpu", help="cuda trains one network after the other (cpu: side by side)")
    return made


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.reading", main, "The same command goes on where this ended."))
