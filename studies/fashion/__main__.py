"""Study of Fashion-MNIST: readers, likelihood and samples on all 10,000 test images. All of docs/results/fashion.md by

    python -m studies.fashion controls WORK --runs RUNS     # trains the two controls, hours of a core
    python -m studies.fashion WORK --runs RUNS              # measures, hours of a core
    python -m studies.fashion.tables docs                   # tables and pictures of what was found

RUNS holds the runs of `randfeat pretrain`: fashion_arpg_free, fashion_arpg_14x14_free, fashion_randar_free,
fashion_raster_free, fashion_raster_14x14_free (the recipe fashion_arpg_14x14_free with training.order=raster in both
phases), fashion_arpg and fashion_randar, each with its `model`; what is not there yet is named and left out. The same
command resumes: finished parts are kept. A reader is scored anew where its weights, its tokenizer or the settings that
are searched have changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from randfeat import Pipeline, cli, load
from randfeat.models import Generator, create
from randfeat.utils.parallel import use_threads
from randfeat.weights import fingerprint

from . import controls, images, inpainting, judge, likelihood, probing, readers, samples, tables, units
from .features import Reader
from .images import Fashion
from .results import CLASSICAL, CONTROLS, FREE, OURS, SVM
from .units import Place

REHEARSAL = "rehearsal"
RUNS = {name: f"fashion_{name}_free" for name in (*FREE, "raster", "raster_14x14")}
RUNS |= {f"{name}_labels": f"fashion_{name}" for name in OURS}
READERS = (*CLASSICAL, SVM, *FREE, *CONTROLS)
PARTS = (judge.PART, "readers", likelihood.PART, samples.PART, inpainting.PART)


def main() -> None:
    """Train the controls, or run the parts of the study."""
    args = parser().parse_args()
    use_threads(args.threads)
    data = images.read(args.rehearse)
    work = args.work / REHEARSAL if args.rehearse else args.work
    found = args.found or (work / "found" if args.rehearse else tables.FOUND)
    if args.command == "controls":
        for name in args.controls:
            tokenizer = model("arpg_14x14", args.runs).tokenizer
            print(controls.trained(name, tokenizer, data, args.work / "controls", args.steps))
        return
    place = Place(work, found)
    if "readers" in args.parts:
        for name in args.readers:
            attempt(partial(read, name, args.runs, args.work, data, place, args.measures))
    if likelihood.PART in args.parts:
        for name in OURS:
            attempt(partial(classify, name, args.runs, data, place, args.likely))
    if {judge.PART, samples.PART, inpainting.PART} & {*args.parts}:
        judged(args, data, place)


def attempt(run: Callable[[], None]) -> None:
    """Run a part, or say which model it misses; any other file that is missing ends the run."""
    try:
        run()
    except units.MissingModel as error:
        print(f"left out: {error}", flush=True)


def model(name: str, runs: Path) -> Pipeline:
    """Return a trained model. Raises a `MissingModel` where it is not there."""
    path = runs / RUNS[name] / "model"
    if not path.exists():
        raise units.MissingModel(f"there is no {path}: train {RUNS[name]} first")
    return load(path)


def reader(name: str, runs: Path, work: Path, data: Fashion) -> Reader:
    """Return a reader by its name."""
    made = readers.classical(data.images[data.fit])
    if name in made:
        return made[name]()
    if name == SVM:
        return made["pixels"]()
    if name in RUNS:
        return readers.NetworkReader.of_pipeline(model(name, runs))
    ours = model("arpg_14x14", runs)
    if name == "random_weights":
        fresh = Pipeline(ours.tokenizer, untrained(ours))
        return readers.NetworkReader.of_pipeline(fresh)
    network = controls.opened(name, ours.tokenizer, work / "controls")
    encode = controls.encoder(name, ours.tokenizer)
    key = fingerprint(network, ours.tokenizer)[:12]
    return readers.NetworkReader(network, encode, controls.stride(name, ours.tokenizer), "control", key)


def untrained(ours: Pipeline) -> Generator:
    """Return a network of the same shape with the weights that training began with, or others like them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create("arpg", **ours.generator.config).eval()


def read(name: str, runs: Path, work: Path, data: Fashion, place: Place, measures: list[str]) -> None:
    """Score a reader in the measures asked for."""
    wanted = [one for one in probing.MEASURES if one.name in measures]
    if name == SVM:
        units.measure(name, reader(name, runs, work, data), data, place, [probing.GaussianSVM()], "pixels")
    else:
        units.measure(name, reader(name, runs, work, data), data, place, wanted)


def classify(name: str, runs: Path, data: Fashion, place: Place, most: int | None) -> None:
    """Score a generator with labels by likelihood."""
    likelihood.run(name, model(f"{name}_labels", runs), data, place, most)


def judged(args: argparse.Namespace, data: Fashion, place: Place) -> None:
    """Train the judge, and let it score samples and inpaintings."""
    critic = judge.run(place, data)
    if samples.PART in args.parts:
        for name in OURS:
            attempt(lambda name=name: samples.run(name, model(f"{name}_labels", args.runs), critic, data, place))
    if inpainting.PART in args.parts:
        inpainting.run_baselines(critic, data, place)
        for name, run in (*((f"{one}_free", one) for one in OURS), *((one, f"{one}_labels") for one in OURS)):
            attempt(lambda name=name, run=run: inpainting.run(name, model(run, args.runs), critic, data, place))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", nargs="?", choices=("measure", "controls"), default="measure", help="measure")
    made.add_argument("work", type=Path, metavar="WORK", help="folder of features, controls and checkpoints")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="RUNS", help="folder of the trained models")
    made.add_argument("--found", type=Path, metavar="DIR", help="folder of the results (studies/fashion/found)")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    made.add_argument("--readers", nargs="+", choices=READERS, default=READERS, metavar="NAME", help=", ".join(READERS))
    names = probing.names()
    made.add_argument("--measures", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    made.add_argument("--likely", type=int, metavar="N", help="test images for likelihood, the first N (all)")
    made.add_argument("--controls", nargs="+", choices=[*controls.TITLES], default=[*controls.TITLES], metavar="NAME")
    made.add_argument("--steps", type=int, metavar="N", help="of ARPG in each phase, at whose cost (its recipe's)")
    made.add_argument("--threads", type=int, default=1, help="of the processor")
    made.add_argument("--rehearse", action="store_true", help="score validation images in place of test images")
    return made


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.fashion", main, "The same command goes on where this ended."))
