"""Models and images that the package holds, made of finished runs and of Zalando's files:

    python -m studies.fashion.zoo models RUNS    # RUNS/fashion_arpg_free/model and so on, into randfeat/weights/zoo
    python -m studies.fashion.zoo images         # the first images, into randfeat/data/builtin/fashion_part

A run of another recipe than the one in `configs/` is refused. Weights are written in half precision, with a card that
takes its numbers from docs/results/fashion.json. A tokenizer that several have is written once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randfeat.pretrain import read_recipe
from randfeat.pretrain.config import ModelConfig, PretrainConfig, TrainingConfig

import randfeat
from randfeat import Pipeline, Sampling, cli, weights
from randfeat.data.builtin import fashion, load_fashion_part, make_fashion
from randfeat.data.builtin.base import BuiltinDataset
from randfeat.data.sources import idx
from randfeat.utils import atomic
from randfeat.weights import model_card, zoo
from randfeat.weights.model_card import About, Measured

from . import samples
from .results import FOUND

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "fashion.json"
LIMIT = 8_000_000  # bytes of models and images together
TRAIN, TEST = 3000, 2000  # images in the package
CHECKED = 200  # images on which a model is compared with its run
IGNORED = ("running", "control")  # parts of a recipe that do not change these weights

DATA = (
    "Training images of Fashion-MNIST (28 x 28 pixels, grey, ten classes of clothing; Zalando Research, arXiv "
    "1708.07747), {labels}: {rows}. The tokenizer is k-means over patches of training images."
)
LAST = "the first 55,000, while the last 5,000 said which step to keep"
SHARE = "of the 60,000 a share of {share:.1%}, drawn at random, said which step to keep, and the others were learnt"
MEASURED_BY = (
    "On test images of Fashion-MNIST, scored once, by `python -m studies.fashion WORK`; baselines, controls and "
    "settings are in docs/results/fashion.md. These are numbers of the weights before they were rounded to half "
    "precision, which moves log p by {drift:.1e} nats a token."
)
LICENCE = (
    "MIT, as randfeat. The training images are under MIT licence, too: copyright (c) 2017 Zalando SE, "
    "https://github.com/zalandoresearch/fashion-mnist."
)
LIMITS = (
    "It knows small grey pictures of clothing, centred on black: photographs, other objects and other sizes are "
    "outside of what it learnt.",
    "It is small, made to show the library and to compare methods, not to sort garments in earnest.",
)
FREE_LIMIT = "It was trained without labels: it samples and completes images, but of no class that one names."
READ = (  # title, path in the results, whether it is a share
    ("linear probe, top-1", "linear.{family}.top1", True),
    ("k-NN, top-1", "knn.{family}.top1", True),
    ("5 images a class, top-1", "fewshot5.{family}.top1", True),
    ("attentive probe, top-1", "attentive.{family}.top1", True),
    ("retrieval, MAP@R", "retrieval.{family}.map_at_r", True),
    ("class recognised with the lower half painted", "inpainting.{family}_free.inpainted", True),
)
MADE = (
    ("class by likelihood, 1 order, top-1", "likelihood.{family}.k1.top1", True),
    ("class by likelihood, 4 orders, top-1", "likelihood.{family}.k4.top1", True),
    ("class by likelihood, 16 orders, top-1", "likelihood.{family}.k16.top1", True),
    ("the same over shifted and mirrored copies", "likelihood.{family}.k16_copies.top1", True),
    ("samples that a CNN recognises", "samples.{family}.agreement", True),
    ("test images near some sample (recall)", "samples.{family}.recall", True),
    ("distance to the nearest training image, samples / test images", "samples.{family}.nearest_train_ratio", False),
    ("class recognised with the lower half painted", "inpainting.{family}.inpainted", True),
)


def main() -> None:
    """Fill the package's folder of models or of images."""
    args = parser().parse_args()
    if args.part == "images":
        write_images(make_fashion(args.images_from), fashion.PART)
        print(f"{fashion.PART}: {size_of(fashion.PART):,} bytes")
        return
    for name in args.names or zoo.NAMES:
        print(ship(name, args.runs, args.out), flush=True)
    if RESULTS.exists() and json.loads(RESULTS.read_text("utf-8")).keys() - {"seconds"}:  # the demo shows them
        atomic.write_bytes(args.out / RESULTS.name, RESULTS.read_bytes())
    check_size(args.out)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = made.add_subparsers(dest="part", required=True)
    models = parts.add_parser("models", help="models of finished runs")
    models.add_argument("runs", type=Path, metavar="RUNS", help="folder of the runs, each named as its recipe")
    models.add_argument("--names", nargs="+", choices=zoo.NAMES, metavar="NAME", help=f"all of {', '.join(zoo.NAMES)}")
    models.add_argument("--out", type=Path, default=Path(zoo.__file__).parent, metavar="DIR", help="folder of the zoo")
    images = parts.add_parser("images", help="the first images of Fashion-MNIST")
    images.add_argument("--from", dest="images_from", metavar="DIR", help="folder of Zalando's four files")
    return made


# models --------------------------------------------------------------------------------------------------------------


def ship(name: str, runs: Path, out: Path) -> str:
    """Write the model of a run into the zoo, and return a line about it.

    name: of the zoo; the run has the name of its recipe, with underscores. Raises a FileNotFoundError without a
    finished run, and a ValueError for one of another recipe.
    """
    recipe = name.replace("-", "_")
    model = randfeat.load(runs / recipe / "model")
    check_recipe(model, recipe)
    exact = {key: value.clone() for key, value in model.generator.state_dict().items()}
    model.training_record, target = kept_record(model.training_record), out / name
    set_defaults(model, name, target)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / name
        model.save_pretrained(made, torch.float16)
        shipped = randfeat.load(made)
        moved = drift(model, shipped)
        model_card.write(made, name, about(model, recipe, moved))
        share_tokenizer(made, out / weights.TOKENIZER)
        with atomic.replace_directory(target, _is_ours) as whole:
            shutil.copytree(made, whole, dirs_exist_ok=True, copy_function=shutil.copyfile)
    rounded = max(float((exact[key] - value).abs().max()) for key, value in shipped.generator.state_dict().items())
    return (
        f"{name}: {size_of(target):,} bytes, weights rounded by at most {rounded:.1e}, "
        f"log p of {CHECKED} images by {moved:.1e} nats a token on average"
    )


def set_defaults(model: Pipeline, name: str, before: Path) -> None:
    """Set how to sample and what to read where nothing is said: as the model before it in the zoo does, and samples of
    labels as the study of samples chose, on the validation part.
    """
    if (before / weights.CONFIG).exists():
        there = randfeat.load(before)
        model.sampling, model.own_spec = there.sampling, there.own_spec
    chosen = FOUND / samples.PART / f"{name.removeprefix('fashion-')}.json"
    if chosen.exists():
        model.sampling = Sampling.from_dict(json.loads(chosen.read_text("utf-8"))["sampling"])


def share_tokenizer(model: Path, shared: Path) -> None:
    """Move the tokenizer of a model directory to where the models of the zoo share it; one of other codes stays."""
    own = model / weights.TOKENIZER
    if not shared.exists():
        with atomic.replace_directory(shared, _is_ours) as whole:
            shutil.copytree(own, whole, dirs_exist_ok=True, copy_function=shutil.copyfile)
    if all((own / file).read_bytes() == (shared / file).read_bytes() for file in weights.FILES):
        shutil.rmtree(own)


def _is_ours(directory: Path) -> bool:
    return (directory / weights.CONFIG).is_file()


def check_recipe(model: Pipeline, name: str) -> None:
    """Raise a ValueError where a model was not trained by the packaged recipe of this name."""
    wanted = json.loads(json.dumps(asdict(read_recipe(name))))  # tuples as lists
    trained = model.training_record.get("recipe")
    if not isinstance(trained, Mapping):
        raise ValueError(f"the run {name} has no record of its recipe: give a run of randfeat pretrain")
    size = ModelConfig(embed_dim=0, depth=0, num_heads=0)
    before = asdict(PretrainConfig(wanted["model"], wanted["labels"], size, TrainingConfig()))  # of fields added later
    ours, theirs, default = (dict(_flat(one)) for one in (wanted, trained, json.loads(json.dumps(before))))
    differences = [
        f"{field} {theirs.get(field, default.get(field))}, not {ours.get(field, default.get(field))}"
        for field in sorted({*ours, *theirs})
        if theirs.get(field, default.get(field)) != ours.get(field, default.get(field))
    ]
    if differences:
        raise ValueError(f"the run {name} is not of the recipe configs/{name}.yaml: it has {'; '.join(differences)}")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a recipe, those of its parts as PART.NAME."""
    for name, value in values.items():
        if not before and name in IGNORED:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def kept_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a shipped model keeps of the record of its training: recipe, held-out losses and time."""
    recipe = {name: value for name, value in record["recipe"].items() if name not in IGNORED}
    history = {name: record["history"][name] for name in ("validation", "kept_step", "seconds")}
    share = record["validation"]
    rows = SHARE.format(share=share) if isinstance(share, float) else LAST
    return {"data": f"Fashion-MNIST, {rows}", "recipe": recipe, "history": history}


def drift(model: Pipeline, shipped: Pipeline) -> float:
    """Return the mean difference between two models' log p of images, in nats a token; their tokens are the same."""
    part = load_fashion_part()
    images = torch.from_numpy(part.images[:CHECKED]).unsqueeze(1) / 255
    tokens = model.encode(images)
    if not torch.equal(tokens, shipped.encode(images)):
        raise ValueError("the shipped tokenizer chooses other tokens than the one of the run: its codes were changed")
    first, second = (one.log_prob(images, orders=1).mean for one in (model, shipped))
    return float((first - second).abs().mean()) / tokens[0].numel()


def about(model: Pipeline, recipe: str, moved: float) -> About:
    """Return what the card says beyond the model directory. moved: see `drift`."""
    free = not model.generator.num_classes
    found = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    labels = "without their labels" if free else "with their labels"
    return About(
        data=DATA.format(labels=labels, rows=model.training_record["data"].removeprefix("Fashion-MNIST, ")),
        datasets=[fashion.HUB_NAME],
        training=[("recipe", f"`configs/{recipe}.yaml`"), *hardware(recipe)],
        measured=list(measured(found, recipe, free)),
        measured_by=MEASURED_BY.format(drift=moved),
        licence="mit",
        licence_text=LICENCE,
        limits=[*LIMITS, FREE_LIMIT] if free else LIMITS,
    )


def hardware(recipe: str) -> list[tuple[str, str]]:
    """Return the line about hardware of a recipe's header, if there is one."""
    lines = (ROOT / "configs" / f"{recipe}.yaml").read_text("utf-8").splitlines()
    begin = "# Hardware:"
    return [("hardware", line.removeprefix(begin).strip()) for line in lines if line.startswith(begin)]


def measured(found: Mapping[str, Any], recipe: str, free: bool) -> Iterator[Measured]:
    """Yield the numbers of a model that the results hold."""
    family = recipe.split("_")[1]
    for title, path, share in READ if free else MADE:
        at: Any = found
        for key in path.format(family=family).split("."):
            at = at.get(key) if isinstance(at, Mapping) else None
        if isinstance(at, Mapping) and {"value", "low", "high", "n"} <= at.keys():
            value, low, high = (100 * at[key] if share else at[key] for key in ("value", "low", "high"))
            unit, digits = ("%", 1) if share else ("", 2)
            yield Measured(title, f"{value:.{digits}f}{unit}", f"{low:.{digits}f} to {high:.{digits}f}", at["n"])


# images --------------------------------------------------------------------------------------------------------------


def write_images(made: BuiltinDataset, folder: Path) -> None:
    """Write the first images of each split as IDX files, with the names of the classes and the licence.

    xz is the smallest lossless form of those that need no further library: 1.87 MB, where PNG (one sheet, optimised)
    takes 1.97, WebP 1.93, bzip2 2.00, gzip 2.18 and JPEG 2000 2.54.
    """
    counts: Sequence[tuple[str, int]] = (("train", TRAIN), ("test", TEST))
    with atomic.replace_directory(folder, lambda there: (there / idx.CLASSES).is_file()) as whole:
        for split, count in counts:
            rows = np.flatnonzero(made.test == (split == "test"))[:count]
            begin = fashion.FILES[split]
            idx.write_idx(whole / f"{begin}-images-idx3-ubyte.xz", made.images[rows])
            idx.write_idx(whole / f"{begin}-labels-idx1-ubyte.xz", made.labels[rows].astype(np.uint8))
        (whole / idx.CLASSES).write_text("\n".join(made.classes) + "\n", encoding="utf-8")
        files = f"The four IDX files hold the first {TRAIN:,} and {TEST:,} of them, xz-compressed."
        (whole / "README.md").write_text(fashion.ABOUT.format(files=files), encoding="utf-8")


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_size(models: Path) -> None:
    """Print the size of models, results and images together; raise a ValueError where it is beyond LIMIT."""
    results = models / RESULTS.name
    total = sum(size_of(models / name) for name in (*zoo.NAMES, weights.TOKENIZER)) + size_of(fashion.PART)
    total += results.stat().st_size if results.exists() else 0
    if total > LIMIT:
        raise ValueError(f"models and images take {total:,} bytes, expected at most {LIMIT:,}: make the models smaller")
    print(f"models and images: {total:,} bytes")


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.fashion.zoo", main, "The same command writes each model anew."))
