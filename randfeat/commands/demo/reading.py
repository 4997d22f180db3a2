"""Which reading of a generator makes the best features, and how good are simple baselines?

Everything is chosen by fitting on the first seven writers and scoring on the eighth and ninth; then it is fitted anew on all
nine and scored once on the last five. Readings are first ranked with one quick estimator each; the winner, like every baseline,
then gets the whole search over scaling, C and k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

from randfeat import features
from randfeat.features import FeatureSpec
from randfeat.models import Generator
from randfeat.probes import (
    KNN,
    cross,
    few_shot,
    knn_space,
    linear_space,
    refit,
    retrieval_scores,
    scaling,
    select,
    svm_space,
)

SHOTS, DRAWS = 5, 20
MEASURES = ("linear", "knn", "fewshot5")
Features: TypeAlias = "Mapping[str, np.ndarray]"


@dataclass(frozen=True)
class Plan:
    """The readings that are tried, one factor at a time. All orders with all layers and streams, then around the best of
    these every context, pool and merge."""

    orders: tuple[str, ...]
    layers: tuple[int, ...]
    streams: tuple[str, ...] = ("token", "query")
    contexts: tuple[str, ...] = ("causal", "echo", "full", "after")
    pools: tuple[str, ...] = ("mean", "grid2", "grid4")
    merges: tuple[str, ...] = ("mean", "concat")

    def first(self) -> list[FeatureSpec]:
        return [
            FeatureSpec(order, "causal", stream, (layer,), "grid2", "mean")  # type: ignore[arg-type]
            for stream in self.streams
            for order in self.orders
            for layer in self.layers
        ]

    def around(self, centre: FeatureSpec) -> list[FeatureSpec]:
        specs = []
        for context in self.contexts:
            for pool in self.pools:
                for merge in self.merges if len(centre.passes) > 1 else self.merges[:1]:
                    if context != "after" or centre.stream == "query":
                        spec = (centre.orders, context, centre.stream, centre.layers, pool, merge)
                        specs.append(FeatureSpec(*spec))  # type: ignore[arg-type]
        return specs


@dataclass(frozen=True)
class Task:
    """Labelled images of train with the held-out part marked, and of test."""

    train_y: np.ndarray
    held_out: np.ndarray
    test_y: np.ndarray

    @property
    def split(self) -> int:
        """Rows of train in a (train, test) array."""
        return len(self.train_y)


@dataclass
class Score:
    """What was chosen on train, and for each test image how right it is, in 0..1."""

    chosen: str
    held_out: float
    right: np.ndarray


@dataclass
class Reading:
    """Everything measured about one source of features."""

    scores: dict[str, Score] = field(default_factory=dict)
    # held-out linear accuracy of each first reading, for the heat map
    tried: dict[str, float] = field(default_factory=dict)


# searches -------------------------------------------------------------------------------------------------------

def ridge(scaling_name: str, alpha: float) -> BaseEstimator:
    """Ridge regression of the classes: solved in closed form, so it can rank readings and fit fifty few-shot draws."""
    return make_pipeline(scaling(scaling_name), RidgeClassifier(alpha))


QUICK: dict[str, dict[str, BaseEstimator]] = {
    "linear": {"quick": ridge("standard", 100.0)},
    "knn": {"quick": KNN(k=5)},
    "fewshot5": {"quick": ridge("standard", 10.0)},
}
WHOLE: dict[str, dict[str, BaseEstimator]] = {
    "linear": linear_space(),
    "knn": knn_space(),
    "fewshot5": {
        f"ridge {name} alpha={alpha:g}": ridge(name, alpha)
        for name in ("none", "standard", "l2")
        for alpha in (100.0, 10.0, 1.0, 0.1)
    },
    "svm": svm_space(),
}


def search(measure: str, sources: Features, task: Task, space: Mapping[str, BaseEstimator]) -> dict[str, float]:
    """Held-out accuracy of every source with every estimator, by "source | estimator"."""
    if measure != "fewshot5":
        train = {name: x[: task.split] for name, x in sources.items()}
        return select(cross(train, space), task.train_y, task.held_out).scores
    fit, held = ~task.held_out, task.held_out
    return {
        f"{source}/{name}": float(
            few_shot(
                x[: task.split][fit], task.train_y[fit], x[: task.split][held], task.train_y[held],
                SHOTS, DRAWS // 2, estimator=estimator,
            ).mean()
        )
        for source, x in sources.items()
        for name, estimator in space.items()
    }  # fmt: skip


def score(measure: str, sources: Features, task: Task, held_out_scores: Mapping[str, float]) -> Score:
    """The best held-out choice, fitted on all of train, on each test image."""
    best = max(held_out_scores, key=lambda name: held_out_scores[name])
    source, _, estimator_name = best.rpartition("/")
    estimator, x = WHOLE[measure][estimator_name], sources[source]
    train, test = x[: task.split], x[task.split :]
    if measure == "fewshot5":
        right = few_shot(
            train, task.train_y, test, task.test_y, SHOTS, DRAWS, estimator=estimator
        ).mean(1)
    else:
        fitted = refit({best: (estimator, train)}, best, task.train_y)
        right = fitted.predict(test) == task.test_y
    return Score(best, held_out_scores[best], np.asarray(right, dtype=np.float64))


def read_baseline(sources: Features, task: Task, measures: tuple[str, ...] = MEASURES) -> Reading:
    """A baseline with several variants (numbers of PCA components, say), with the whole search."""
    reading = Reading()
    for measure in measures:
        reading.scores[measure] = score(
            measure, sources, task, search(measure, sources, task, WHOLE[measure])
        )
    return reading


def read_generator(
    model: Generator, tokens: torch.Tensor, task: Task, plan: Plan, tick: Callable[[], None] = lambda: None
) -> Reading:
    """A generator in every reading of the plan: ranked quickly, then the best with the whole search.

    tokens: (train then test, N). tick is called `ticks` times.
    """
    reading = Reading()
    read = partial(read_many, model, tokens)
    first = read(plan.first())
    for measure in MEASURES:
        ranked = search(measure, first, task, QUICK[measure])
        if measure == "linear":
            reading.tried = {name.rpartition("/")[0]: value for name, value in ranked.items()}
        tick()
        centre = FeatureSpec.parse(best_of(ranked))
        nearby = read(plan.around(centre))
        best = best_of(search(measure, nearby, task, QUICK[measure]))
        chosen = {best: nearby[best]}
        reading.scores[measure] = score(measure, chosen, task, search(measure, chosen, task, WHOLE[measure]))
        tick()
    return reading


TICKS = 2 * len(MEASURES)


def best_of(scores: Mapping[str, float]) -> str:
    """The source with the best score of those named "source/estimator"."""
    return max(scores, key=lambda name: scores[name]).rpartition("/")[0]


def read_many(model: Generator, tokens: torch.Tensor, specs: list[FeatureSpec]) -> dict[str, np.ndarray]:
    read = features.read(model, tokens, specs)
    return {str(spec): x.flatten(1).numpy() for spec, x in zip(specs, read, strict=True)}


# baselines ------------------------------------------------------------------------------------------------------


def pca(pixels: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """Principal components of pixels, fitted on train without labels."""
    fitted = PCA(48, svd_solver="full").fit(pixels[: task.split]).transform(pixels)
    return {f"pca{count}": fitted[:, :count] for count in (12, 24, 48)}


def patch_counts(tokens: torch.Tensor, vocab_size: int) -> dict[str, np.ndarray]:
    """How often each patch of the codebook occurs in an image."""
    counts = torch.zeros(len(tokens), vocab_size).scatter_add_(1, tokens, torch.ones(tokens.shape))
    return {"counts": counts.numpy(), "roots": counts.sqrt().numpy()}


def mean_average_precision(
    model: Generator, tokens: torch.Tensor, task: Task, plan: Plan
) -> tuple[FeatureSpec, np.ndarray]:
    """The reading with the best MAP@R of held-out images among the rest of train; its MAP@R of each test image in train."""
    first = read_many(model, tokens, plan.first())
    centre = FeatureSpec.parse(max(first, key=lambda name: _held_out_map(first[name], task)))
    nearby = read_many(model, tokens, plan.around(centre))
    best = max(nearby, key=lambda name: _held_out_map(nearby[name], task))
    train, test = nearby[best][: task.split], nearby[best][task.split :]
    return FeatureSpec.parse(best), retrieval_scores(test, task.test_y, train, task.train_y)["map_at_r"]


def _held_out_map(x: np.ndarray, task: Task) -> float:
    held, fit, train = task.held_out, ~task.held_out, x[: task.split]
    return float(
        retrieval_scores(train[held], task.train_y[held], train[fit], task.train_y[fit])["map_at_r"].mean()
    )
