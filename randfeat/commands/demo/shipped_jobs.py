"""Jobs of the demo that shows the models of the package, each run in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randfeat import Pipeline, load
from randfeat.data.builtin import load_fashion_part, write_folder
from randfeat.inference import likelihood
from randfeat.probes import cross, hog, hold_out, knn_space, linear_space, refit, select, svm_space
from randfeat.utils import progress, rng

from . import features, generation
from .features import FULL_SEARCH, Score, Task
from .generation import SampleScores

SIDE = 28  # pixels
FREE = {"arpg": "fashion-arpg-free", "randar": "fashion-randar-free"}
RANDOM = f"random:{FREE['arpg']}"  # the same network with random weights
LABELLED = {"arpg": "fashion-arpg", "randar": "fashion-randar"}
SPECS = tuple(f"raster/after/query/L-1/{pool}/mean" for pool in ("mean", "grid2", "grid4"))  # chosen from on train
FEW_SHOT = tuple(f"ridge {how} alpha={alpha}" for how in ("none", "l2") for alpha in ("10", "1", "0.1"))
# the search of every source of features
SPACES = {
    "linear": linear_space(("none",), (0.1, 1)) | linear_space(("standard",), (0.001, 0.01)),
    "knn": knn_space((5, 10), scalings=("none", "whitened")),
    "fewshot5": {name: FULL_SEARCH["fewshot5"][name] for name in FEW_SHOT},
}
SVMS = svm_space(("none",), (10,), (0.25, 1))
HIDDEN_BELOW = 12  # of an inpainting: the first hidden row of pixels
KEPT_COLUMNS = (8, 20)  # of an outpainting: the pixels that the model is given
SHOWN = 4  # samples of a class and model in pictures
PASTED = 8  # pixels of the side of a pasted patch
BATCH = 250  # images


@dataclass(frozen=True)
class Effort:
    """Effort of a run.

    train, test: images. likelihood: test images that are classified by likelihood. counts: numbers of its orders.
    samples_each: samples of a class. specs: feature specs to choose from.
    """

    train: int = 3000
    test: int = 2000
    likelihood: int = 40
    counts: tuple[int, ...] = (1, 4, 16)
    samples_each: int = 20
    specs: tuple[str, ...] = SPECS


@dataclass(frozen=True)
class Part:
    """Images of the demo, those of train first. images: uint8 (n, 28, 28)."""

    images: np.ndarray
    task: Task
    classes: tuple[str, ...]

    @property
    def train(self) -> np.ndarray:
        return self.images[: self.task.split]

    @property
    def test(self) -> np.ndarray:
        return self.images[self.task.split :]

    def one_of_each_class(self) -> np.ndarray:
        """Return the row in test of one image of each class, drawn by a seed: int64 (C,)."""
        drawn = rng.bits(torch.tensor(21), len(self.test)).argsort().numpy()
        return np.array([drawn[self.task.test_y[drawn] == label][0] for label in range(len(self.classes))])


@dataclass
class Read:
    """Scores of one source of features by measure, and the features of all images that were chosen for k-NN."""

    scores: dict[str, Score]
    chosen: np.ndarray


@dataclass
class Painted:
    """Results of the job that draws.

    judge: the classifier that judges samples, scored on test images. coverage_of_train: of test images by as many
    train images as there are samples. pictures: lists of uint8 (C, 28, 28), or a list of (C, 1, 28, 28) in [0, 1].
    """

    judge: Score
    samples: dict[str, SampleScores] = field(default_factory=dict)
    coverage_of_train: np.ndarray = field(default_factory=lambda: np.empty(0))
    pictures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Classifier of images by one of `DESCRIPTIONS`."""

    description: str
    estimator: Any

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the labels of pixels (n, 784) in [0, 1]."""
        return self.estimator.predict(DESCRIPTIONS[self.description](pixels.reshape(-1, SIDE, SIDE)))


def flat(images: np.ndarray) -> np.ndarray:
    """Return the pixels of images, float32 (n, 784) in [0, 1]. images: (n, 28, 28), uint8 or floats in [0, 1]."""
    values = images.reshape(len(images), -1).astype(np.float32)
    return values / 255 if images.dtype == np.uint8 else values


DESCRIPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pixels": flat, "hog": partial(hog, cell=7)}


def load_part(effort: Effort) -> Part:
    """Return as many of the package's images as the effort asks for."""
    data = load_fashion_part()
    train, test = np.flatnonzero(~data.test)[: effort.train], np.flatnonzero(data.test)[: effort.test]
    train_y = data.labels[train]
    task = Task(train_y, hold_out(train_y), data.labels[test])
    return Part(data.images[np.concatenate((train, test))], task, data.classes)


def timed(job: Callable[[int], Any], line: int) -> tuple[Any, float]:
    """Return the result of a job and the seconds that it took."""
    began = time.perf_counter()
    return job(line), round(time.perf_counter() - began, 1)


# jobs ---------------------------------------------------------------------------------------------------------------


def write_images(folder: Path, line: int) -> None:
    """Leave the images of the package as PNG files with their labels; those that lie there are kept."""
    write_folder(load_fashion_part(), folder, {"set": "fashion part", "seed": 0, "split_seed": None})


def read_and_probe(name: str, effort: Effort, line: int) -> Read:
    """Read the features of all images by a model in every spec, and probe them."""
    part, pipeline = load_part(effort), load(name)
    specs = [pipeline.resolve_spec(spec) for spec in effort.specs]
    found = []
    with progress.bar(len(part.images), f"reading {name}", "image", line) as bar:
        for images in torch.from_numpy(part.images).unsqueeze(1).split(BATCH):
            found.append(pipeline.features_of_pixels(images.float() / 255, specs))
            bar.update(len(images))
        sources = {str(spec): np.concatenate(read) for spec, read in zip(specs, zip(*found, strict=True), strict=True)}
        bar.set_postfix_str("probing")
        scores = features.probe_sources(sources, part.task, SPACES)
    return Read(scores, sources[source_of(scores["knn"])])


def source_of(score: Score) -> str:
    """Return the source of features of what was chosen, which its name holds before the classifier."""
    return score.chosen.rpartition("/")[0]


def probe_baselines(effort: Effort, line: int) -> dict[str, dict[str, Score]]:
    """Probe features that no generator made, each in some variants."""
    part = load_part(effort)
    pixels = flat(part.images)
    counts = tuple(count for count in (32, 64, 128, 256) if count <= part.task.split)
    variants = {
        "pixels": lambda: {"pixels": pixels},
        "pca": lambda: features.pca(pixels, part.task, counts),
        "hog": lambda: {f"hog of {cell} pixels": hog(part.images, cell) for cell in (4, 7)},
    }
    made = {}
    with progress.bar(len(variants) * len(SPACES), "pixels, PCA and HOG", "probe", line) as bar:
        for name, make in variants.items():
            made[name] = features.probe_sources(make(), part.task, SPACES, bar.update)
    return made


def score_classes(name: str, effort: Effort, line: int) -> np.ndarray:
    """Return log p(image | class) of the first test images in every order: float32 (n, C, K)."""
    part, pipeline = load_part(effort), load(name)
    tokens, orders = pipeline.encode(part.test[: effort.likelihood]), max(effort.counts)
    generator = pipeline.inference_generator()
    with progress.bar(len(tokens) * len(part.classes) * orders, f"likelihood {name}", "pass", line) as bar:
        return likelihood.class_log_prob(generator, tokens, None, orders, tick=bar.update).numpy()


def paint(effort: Effort, line: int) -> Painted:
    """Draw samples and judge them; watch a decode; complete hidden halves and crops; find pasted patches."""
    part = load_part(effort)
    with progress.bar(4, "samples, completions, surprise", "step", line) as bar:
        judge, made = fit_judge(part)
        bar.update()
        pipelines = {name: load(model) for name, model in LABELLED.items()}
        train, test = flat(part.train), flat(part.test)
        for name, pipeline in pipelines.items():
            samples, labels = generation.draw_by_class(pipeline, effort.samples_each, pipeline.sampling, seed=0)
            made.samples[name] = generation.score_samples(samples, labels, judge, train, test)
            made.pictures[f"samples_{name}"] = [as_bytes(samples[i :: effort.samples_each]) for i in range(SHOWN)]
        made.coverage_of_train = generation.coverage(test, balanced(train, part.task.train_y, effort.samples_each))
        bar.update()
        watched = pipelines["randar"]
        made.pictures["watch"] = generation.watch(watched, [*range(10)], watched.sampling, seed=3)
        complete(part, pipelines, made.pictures)
        bar.update()
        find_patches(part, load(FREE["arpg"]), made.pictures)
        bar.update()
    return made


# parts of the last job ----------------------------------------------------------------------------------------------


def fit_judge(part: Part) -> tuple[Judge, Painted]:
    """Return the support vector machine that is best on held-out train images, and its score on test."""
    task = part.task
    candidates = cross({name: describe(part.train) for name, describe in DESCRIPTIONS.items()}, SVMS)
    found = select(candidates, task.train_y, task.held_out)
    judge = Judge(found.name.rpartition("/")[0], refit(candidates, found.name, task.train_y))
    right = judge.predict(flat(part.test)) == task.test_y
    return judge, Painted(Score(found.name, found.score, right.astype(np.float64)))


def balanced(values: np.ndarray, labels: np.ndarray, each: int) -> np.ndarray:
    """Return the first `each` rows of every class."""
    return np.concatenate([values[labels == label][:each] for label in np.unique(labels)])


def complete(part: Part, pipelines: dict[str, Pipeline], pictures: dict[str, Any]) -> None:
    """Paint the hidden lower part of test images, and what lies left and right of their middle."""
    shown = part.test[part.one_of_each_class()]
    left, right = KEPT_COLUMNS
    halves, middles = shown.copy(), np.full_like(shown, 128)
    halves[:, HIDDEN_BELOW:] = 128
    middles[:, :, left:right] = shown[:, :, left:right]
    pictures["inpainting"], pictures["outpainting"] = [shown, halves], [shown, middles]
    for pipeline in pipelines.values():
        how = {"guess": 4, "seed": 7, "sampling": pipeline.sampling}
        inpainted = pipeline.inpaint(shown, (0, HIDDEN_BELOW, SIDE, SIDE), **how)  # type: ignore[arg-type]
        outpainted = pipeline.outpaint(shown[:, :, left:right], (SIDE, SIDE), **how)  # type: ignore[arg-type]
        pictures["inpainting"].append(np.stack([np.asarray(one) for one in inpainted]))
        pictures["outpainting"].append(np.stack([np.asarray(one) for one in outpainted]))


def find_patches(part: Part, pipeline: Pipeline, pictures: dict[str, Any]) -> None:
    """Map the surprisal of test images, as they are and with a patch of another class in their middle."""
    shown = part.test[part.one_of_each_class()]
    pasted, middle = shown.copy(), slice((SIDE - PASTED) // 2 + 2, (SIDE + PASTED) // 2 + 2)
    pasted[:, middle, middle] = np.roll(shown, 5, axis=0)[:, middle, middle]
    pictures["patches"] = [shown, pasted]
    pictures["surprisal"] = [pipeline.surprisal(images).numpy() for images in (shown, pasted)]


def as_bytes(images: Tensor) -> np.ndarray:
    """Return images (n, 1, 28, 28) in [0, 1] as uint8 (n, 28, 28)."""
    return (images[:, 0] * 255).round().to(torch.uint8).numpy()
