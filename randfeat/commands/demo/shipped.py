"""Stages of the demo that shows the models of the package: what they measure and draw, and an index of the images."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from randfeat import Index, load
from randfeat.features.opening import open_encoder
from randfeat.index.reader import record_of
from randfeat.probes import bootstrap, paired
from randfeat.utils import atomic

from ...utils.parallel import run_all, use_threads
from . import generation, results, shipped_jobs
from .features import Score
from .shipped_jobs import FREE, LABELLED, SPACES, Effort, Painted, Part, Read

FOUND = 8  # images found for each query
EXAMPLES = 8  # images whose likeliest classes the page lists
SOURCES = {
    "best": "label-free features: the better of these two",
    "arpg": "ARPG, label-free",
    "randar": "RandAR, label-free",
    "hog": "HOG",
    "pixels": "pixels",
    "pca": "PCA of pixels",
    "random_weights": "ARPG with random weights",
    "raster_control": "raster-order control, label-free",  # not in the package
}
BEATEN = ("hog", "pixels", "random_weights")  # with which the label-free features are compared in pairs


@dataclass(frozen=True)
class Guess:
    """Likeliest classes of a test image. top: names with their probabilities, the best first."""

    image: np.ndarray
    truth: str
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class Search:
    """Query, its class, the train images that were found, the nearest first, and their classes."""

    query: np.ndarray
    truth: str
    found: np.ndarray
    classes: list[str]


@dataclass
class Results(results.Results):
    """Results of the demo that shows the models of the package. full: what was measured on all of Fashion-MNIST."""

    stages = 3
    classes: tuple[str, ...] = ()
    guesses: list[Guess] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    full: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def run(effort: Effort, out: Path) -> Results:
    """Run all stages. The images are left in out/fashion, the index in out/index."""
    use_threads(1)  # the jobs keep all cores busy
    made = Results(full=measured_on_all())
    with made.stage(1, "opening four models and 5,000 images"):
        part, parameters = shipped_jobs.load_part(effort), {}
        for name in (*FREE.values(), *LABELLED.values()):
            parameters[name] = sum(weight.numel() for weight in load(name).generator.parameters())
        made.classes = part.classes
    with made.stage(2, "reading, probing, classifying, sampling and painting"):
        timings = run_all(jobs(effort, out))
        done = {name: result for name, (result, _) in timings.items()}
    read = {name: done[f"read {name}"] for name in FREE}
    compare_sources(made, read, done["read random_weights"], done["baselines"], part.task.test_y)
    compare_likelihood(made, {name: done[f"likelihood {name}"] for name in LABELLED}, part, effort)
    compare_samples(made, done["paint"])
    made.guesses = guesses(done["likelihood arpg"], part)
    with made.stage(3, "indexing the training images and searching with test images"):
        best = better(read, "knn")
        search_index(made, out, FREE[best], read[best], part)
    made.settings = settings(effort, parameters) | {"seconds_of_jobs": {name: s for name, (_, s) in timings.items()}}
    return made


def jobs(effort: Effort, out: Path) -> dict[str, Any]:
    """Return the jobs by name, the longest first but for the images, which every other command can read then."""
    work: dict[str, Any] = {
        "images": partial(shipped_jobs.write_images, out / "fashion"),
        "read arpg": partial(shipped_jobs.read_and_probe, FREE["arpg"], effort),
        "read randar": partial(shipped_jobs.read_and_probe, FREE["randar"], effort),
        "read random_weights": partial(shipped_jobs.read_and_probe, shipped_jobs.RANDOM, effort),
        **{f"likelihood {name}": partial(shipped_jobs.score_classes, LABELLED[name], effort) for name in LABELLED},
        "paint": partial(shipped_jobs.paint, effort),
        "baselines": partial(shipped_jobs.probe_baselines, effort),
    }
    return {name: partial(shipped_jobs.timed, job) for name, job in work.items()}


def measured_on_all() -> dict[str, Any]:
    """Return what was measured on all 10,000 test images, as the package holds it; empty where it does not."""
    kept = resources.files("randfeat.weights") / "zoo" / "fashion.json"
    return json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}


# what is measured ---------------------------------------------------------------------------------------------------


def compare_sources(
    made: Results,
    read: Mapping[str, Read],
    random_weights: Read,
    baselines: Mapping[str, Mapping[str, Score]],
    truth: np.ndarray,
) -> None:
    """Record the probes of all sources, and by how much the better generator differs from HOG and from pixels."""
    for measure in SPACES:
        best = better(read, measure)
        scores = {name: one.scores[measure] for name, one in read.items()}
        rows = {"best": scores[best], **scores, "random_weights": random_weights.scores[measure]}
        rows |= {name: probed[measure] for name, probed in baselines.items()}
        made.numbers[measure] = {name: row(one) | {"chosen": one.chosen} for name, one in rows.items()}
        made.numbers[measure]["best"]["model"] = FREE[best]
        made.numbers[measure]["best_minus"] = {
            other: paired(rows["best"].correct, rows[other].correct) for other in BEATEN
        }


def better(read: Mapping[str, Read], measure: str) -> str:
    """Return the generator whose choice is better on held-out train images."""
    return max(read, key=lambda name: read[name].scores[measure].held_out)


def row(score: Score) -> dict[str, Any]:
    return {"top1": bootstrap(score.correct), "held_out": score.held_out}


def compare_likelihood(made: Results, scores: Mapping[str, np.ndarray], part: Part, effort: Effort) -> None:
    """Record the accuracy of the likeliest class by number of orders."""
    numbers: dict[str, Any] = {}
    for name, each in scores.items():
        right = generation.right_by_count(each, part.task.test_y[: len(each)], effort.counts)
        numbers[name] = {f"k{k}": {"top1": bootstrap(one)} for k, one in right.items()}
    made.numbers["likelihood"] = numbers


def compare_samples(made: Results, painted: Painted) -> None:
    """Record the scores of samples, those of the ARPG also without its name, and keep the pictures."""
    numbers: dict[str, Any] = {
        name: {
            "agreement": bootstrap(scores.agreement),
            "recall": bootstrap(scores.recall),
            "nearest_train_ratio": bootstrap(scores.nearest_train_ratio),
        }
        for name, scores in painted.samples.items()
    }
    numbers |= numbers["arpg"] | {"recall_of_as_many_train_images": bootstrap(painted.coverage_of_train)}
    made.numbers["samples"] = numbers
    made.numbers["judge"] = row(painted.judge) | {"chosen": painted.judge.chosen}
    made.pictures |= painted.pictures


def guesses(scores: np.ndarray, part: Part) -> list[Guess]:
    """Return the three likeliest classes of the first test images. scores: (n, C, K)."""
    made = []
    for image, label, each in zip(part.test, part.task.test_y, scores[:EXAMPLES].mean(-1), strict=False):
        shares = np.exp(each - each.max()) / np.exp(each - each.max()).sum()
        top = [(part.classes[c], float(shares[c])) for c in shares.argsort()[::-1][:3]]
        made.append(Guess(image, part.classes[label], top))
    return made


def search_index(made: Results, out: Path, model: str, read: Read, part: Part) -> None:
    """Index the train images by the spec that was chosen for k-NN, and search with a test image of each class."""
    spec = shipped_jobs.source_of(read.scores["knn"])
    rows = part.one_of_each_class()
    names = [str((out / "fashion" / "images" / f"{row:04}.png").resolve()) for row in range(part.task.split)]
    with atomic.replace_directory(out / "index", is_index) as place:
        Index.build(
            place,
            read.chosen[: part.task.split],
            names,
            class_names(part, part.task.train_y),
            index_type="flat",
            encoder_record=record_of(open_encoder(model, [spec])),
        )
    number = {name: row for row, name in enumerate(names)}
    found = Index.open(out / "index").search(read.chosen[part.task.split :][rows], FOUND)
    for row_, matches in zip(rows, found, strict=True):
        images = part.train[[number[match.path] for match in matches]]
        truth = part.classes[part.task.test_y[row_]]
        made.searches.append(Search(part.test[row_], truth, images, [match.label or "" for match in matches]))


def is_index(directory: Path) -> bool:
    try:
        Index.open(directory)
    except (OSError, ValueError):
        return False
    return True


def class_names(part: Part, labels: np.ndarray) -> Sequence[str]:
    return [part.classes[label] for label in labels]


def settings(effort: Effort, parameters: Mapping[str, int]) -> dict[str, Any]:
    """Return what is needed to repeat the run: versions, counts, models, specs."""
    packages = ("randfeat", "torch", "numpy", "scikit-learn", "faiss-cpu")
    return {
        "preset": "shipped",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "processor": platform.processor() or platform.machine(),
        "images": {"train": effort.train, "test": effort.test, "classified by likelihood": effort.likelihood},
        "samples of a class": effort.samples_each,
        "parameters": dict(parameters),
        "specs": list(effort.specs),
    }
