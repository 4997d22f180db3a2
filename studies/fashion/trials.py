"""Trials of recipes: runs of `randfeat pretrain`, read on training images alone.

    python -m studies.fashion.trials WORK RUN [RUN ...]
    python -m studies.fashion.trials WORK RUN [RUN ...] --hog    # what the runs' tokens keep: HOG of decoded images

Probes are fitted to 15,000 training images; specs and settings are chosen on one half of the validation part, and the
other half is scored, the same images for every trial. RUN is the folder of a run; its name becomes the trial's.
Finished measures are kept. No test image is read. `python -m studies.fashion.tables docs` writes the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randfeat.probes import hog

from randfeat import Pipeline, cli, load
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic
from randfeat.utils.parallel import use_threads
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels
from studies.reading.tables import percent

from . import images, probing, readers, units
from .images import Fashion
from .results import FOUND, Results
from .results import MEASURES as TITLES
from .units import Place

PART = "trials"
MEASURES = ("linear", "knn", "fewshot5")
SPECS = (
    "raster/full/query/L-1/grid4/mean",
    "raster/after/query/L-1/mean/mean",
    "raster/after/query/L-1/grid4/mean",
    "raster/after/query/L-1/grid4/mean/shifts2",
)
RECORD = "run.json"
HOG, CELLS = "HOG", (3, 4)


def divided(data: Fashion) -> Fashion:
    """Return rows for a trial: every second validation image chooses, the others are scored in place of test images."""
    return replace(data, train=data.searched, test=data.chosen[1::2], chosen=data.chosen[::2])


def described(run: Path, model: Pipeline) -> dict[str, Any]:
    """Return the size, the recipe and the held-out loss of a run.

    Raises a FileNotFoundError where the folder is of no run.
    """
    with (run / "validation.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    recipe = json.loads((run / RECORD).read_text("utf-8"))["settings"]["recipe"]
    training = recipe["training"]
    return {
        "width": recipe["size"]["embed_dim"],
        "depth": recipe["size"]["depth"],
        "tokens": model.generator.num_tokens,
        "codes": model.tokenizer.vocab_size,
        "parameters": sum(one.numel() for one in model.generator.parameters()),
        "steps": training["steps"],
        "batch_size": training["batch_size"],
        "agreement": recipe.get("agreement", {}).get("weight", 0.0),
        "seed": training["seed"],
        "nats": min(losses),
    }


def measure(run: Path, data: Fashion, place: Place, specs: tuple[str, ...], names: list[str]) -> None:
    """Score a run's model in the measures named, by the specs given."""
    model = load(run / "model")
    own = place.found / run.name
    own.mkdir(parents=True, exist_ok=True)
    atomic.write_json(own / RECORD, described(run, model))
    reader = readers.NetworkReader.of_pipeline(model)
    reader.variants, reader.dense = specs, ()
    wanted = [one for one in probing.MEASURES if one.name in names]
    units.measure(run.name, reader, data, place, wanted)


def rows(found: Path) -> Iterator[list[str]]:
    """Yield the rows of the table of trials: sizes, training, held-out loss, accuracy in per cent.

    found: folder of the results.
    """
    titles = [TITLES[one] for one in MEASURES]
    yield ["trial", "tokens", "codes", "parameters", "images seen", "nats an image", *titles, "spec of linear"]
    for path in sorted(found.glob(f"*/{RECORD}")):
        told = json.loads(path.read_text("utf-8"))
        results = Results(found)
        made = {one: scored for one in MEASURES if (scored := results.scored(path.parent.name, one)) is not None}
        size = [f"{told[key]:,}" if key in told else "" for key in ("tokens", "codes", "parameters")]
        trained = [""] * 2
        if "nats" in told:
            trained = [f"{told['steps'] * told['batch_size']:,}", f"{told['nats'] * told['tokens']:.1f}"]
        cells = [percent(made[one].interval()) if one in made else "" for one in MEASURES]
        spec = made["linear"].record["variant"] if "linear" in made else ""
        yield [path.parent.name, *size, *trained, *cells, spec]


def measure_hog(run: Path | None, data: Fashion, place: Place, names: list[str]) -> None:
    """Score HOG of images that a run's tokenizer has encoded and decoded, of the images themselves where it is None."""
    reads: dict[str, readers.Read] = {f"cells of {cell}": partial(hog, cell=cell) for cell in CELLS}
    told, key = {}, "1"
    if run is not None:
        model = load(run / "model")
        reads = {name: lambda images, read=read: read(decoded(model.tokenizer, images)) for name, read in reads.items()}
        told = {"tokens": model.generator.num_tokens, "codes": model.tokenizer.vocab_size}
        key = fingerprint(model.tokenizer)[:12]
    reader = readers.ClassicalReader(reads)
    reader.key = key
    name = f"{HOG} of {run.name} decoded" if run is not None else HOG
    (place.found / name).mkdir(parents=True, exist_ok=True)
    atomic.write_json(place.found / name / RECORD, told)
    units.measure(name, reader, data, place, [one for one in probing.MEASURES if one.name in names])


@torch.no_grad()
def decoded(tokenizer: Tokenizer, images: np.ndarray) -> np.ndarray:
    """Return images, uint8 (n, H, W), as their tokens show them."""
    shown = tokenizer.decode(tokenizer.encode(as_pixels(images)))[:, 0]
    return (255 * shown.clamp(0, 1)).round().to(torch.uint8).numpy()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("work", type=Path, metavar="WORK", help="folder of features")
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run of randfeat pretrain")
    made.add_argument("--specs", nargs="+", default=SPECS, metavar="SPEC", help="feature specs (%(default)s)")
    made.add_argument("--measures", nargs="+", choices=probing.names(), default=MEASURES, metavar="NAME")
    made.add_argument("--hog", action="store_true", help="score HOG of decoded images, and of images, not the runs")
    made.add_argument("--found", type=Path, default=FOUND / PART, metavar="DIR", help="folder of the results")
    made.add_argument("--threads", type=int, default=1, help="of the processor")
    return made


def main() -> None:
    """Score the runs, one after another."""
    args = parser().parse_args()
    use_threads(args.threads)
    data, place, names = divided(images.read()), Place(args.work / PART, args.found), list(args.measures)
    if args.hog:
        for run in (None, *args.runs):
            measure_hog(run, data, place, names)
        return
    for run in args.runs:
        measure(run, data, place, tuple(args.specs), names)


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.fashion.trials", main, "The same command goes on where this ended."))
