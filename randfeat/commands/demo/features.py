"""Probes of the demo: the feature spec of a generator that makes the best features, and simple baselines.

Everything is chosen by fitting on the first seven writers and scoring on the eighth and ninth; then it is fitted again
on all nine and scored once on the last five. Feature specs are first ranked with one quick estimator each; the best
one, like every baseline, then gets the full search over scaling, C and k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

from randfeat.data.builtin.digits import with_shifts
from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec
from randfeat.models import Generator
from randfeat.models.base import ASKED_BEHIND
from randfeat.probes import KNN, cross, few_shot, knn_space, linear_space, retrieval_scores, scaling, select, svm_space

SHOTS, DRAWS = 5, 20
MEASURES = ("linear", "knn", "fewshot5", "retrieval")  # three accuracies, and MAP@R of test images among those of train
Features: TypeAlias = "Mapping[str, np.ndarray]"


@dataclass(frozen=True)
class Plan:
    """Feature specs to try, one factor at a time.

    First all orders with all layers and streams, with the last of the pools; then, around the best of these, every
    context, pool and merge.
    """

    orders: tuple[str, ...]
    layers: tuple[int, ...]
    streams: tuple[str, ...] = ("token", "query")
    contexts: tuple[str, ...] = ("causal", "echo", "full", "after")
    pools: tuple[str, ...] = ("mean", "grid2", "grid4")
    merges: tuple[str, ...] = ("mean", "concat")

    def first(self) -> list[FeatureSpec]:
        """Return the specs of all orders, layers and streams."""
        return [
            FeatureSpec(order, "causal", stream, (layer,), self.pools[-1], "mean")  # type: ignore[arg-type]
            for stream in self.streams
            for order in self.orders
            for layer in self.layers
        ]

    def around(self, centre: FeatureSpec) -> list[FeatureSpec]:
        """Return the specs that differ from `centre` in context, pool and merge only."""
        specs = []
        for context in self.contexts:
            for pool in self.pools:
                for merge in self.merges if len(centre.passes) > 1 else self.merges[:1]:
                    if context not in ASKED_BEHIND or centre.stream == "query":
                        spec = (centre.orders, context, centre.stream, centre.layers, pool, merge)
                        specs.append(FeatureSpec(*spec))  # type: ignore[arg-type]
        return specs


@dataclass(frozen=True)
class Task:
    """Labels of train, with the held-out images marked (bool), and of test."""

    train_y: np.ndarray
    held_out: np.ndarray
    test_y: np.ndarray

    @property
    def split(self) -> int:
        """Rows of train in a (train, test) array."""
        return len(self.train_y)


@dataclass
class Score:
    """Score of the choice made on train. correct: of each test image, in 0..1, float64 (n,), or by draw (draws, n)."""

    chosen: str
    held_out: float
    correct: np.ndarray


@dataclass
class SourceScores:
    """Scores of one source of features, by measure. tried: held-out linear accuracy by first spec, for the heat map."""

    scores: dict[str, Score] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)


# searches -------------------------------------------------------------------------------------------------------


def ridge(scaling_name: str, alpha: float) -> BaseEstimator:
    """Return ridge regression of the classes: its closed form is quick enough for many specs and few-shot draws."""
    return make_pipeline(scaling(scaling_name), RidgeClassifier(alpha))


# Retrieval fits nothing: cosine stands for its estimator
FULL_SEARCH: dict[str, dict[str, BaseEstimator]] = {
    "linear": linear_space(("none",), (0.01, 0.1, 1, 10, 100)) | linear_space(("standard",), (0.001, 0.01, 0.1, 1)),
    "knn": knn_space(scalings=("none", "standard")),
    "fewshot5": {
        f"ridge {name} alpha={alpha:g}": ridge(name, alpha)
        for name in ("none", "standard", "l2")
        for alpha in (100.0, 10.0, 1.0, 0.1)
    },
    "retrieval": {"cosine": None},
    "svm": svm_space(("none", "standard")),
}


class WithShifts(ClassifierMixin, BaseEstimator):
    """Classifier of 8 x 8 pixels that is also fitted on training digits shifted by one pixel in four directions."""

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def fit(self, x: np.ndarray, y: np.ndarray) -> WithShifts:
        images = with_shifts(torch.from_numpy(x).unflatten(1, (1, 8, 8)))
        self.fitted_ = clone(self.estimator).fit(images.flatten(0, 1).flatten(1).numpy(), np.repeat(y, images.shape[1]))
        self.classes_ = self.fitted_.classes_
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.fitted_.predict(x)


# the generators are trained on shifted digits, so classifiers of pixels may choose them, too
CLASSIFIERS: dict[str, dict[str, BaseEstimator]] = {
    measure: FULL_SEARCH[measure]
    | {f"{name} with shifts": WithShifts(estimator) for name, estimator in shifted.items()}
    for measure, shifted in {
        "linear": linear_space(("none",), (0.1, 1, 10)),
        "knn": FULL_SEARCH["knn"],
        "svm": svm_space(("none",), (1, 10), (1, 4)),
    }.items()
}


def search(measure: str, sources: Features, task: Task, space: Mapping[str, BaseEstimator]) -> dict[str, float]:
    """Return the held-out score of every source with every estimator, by "source/estimator"."""
    train = {name: x[: task.split] for name, x in sources.items()}
    if measure in ("fewshot5", "retrieval"):
        fit, held = ~task.held_out, task.held_out
        y, held_y = task.train_y[fit], task.train_y[held]
        return {
            f"{source}/{name}": float(correctness(measure, x[fit], y, x[held], held_y, estimator, DRAWS // 2).mean())
            for source, x in train.items()
            for name, estimator in space.items()
        }
    return select(cross(train, space), task.train_y, task.held_out).scores


def score(measure: str, sources: Features, task: Task, space: Mapping[str, BaseEstimator]) -> Score:
    """Return the score on test of the source and the estimator that are best on held-out images, fitted on train."""
    held_out_scores = search(measure, sources, task, space)
    best = max(held_out_scores, key=lambda name: held_out_scores[name])
    source, _, name = best.rpartition("/")
    train, test = sources[source][: task.split], sources[source][task.split :]
    made = correctness(measure, train, task.train_y, test, task.test_y, space[name], DRAWS)
    return Score(best, held_out_scores[best], made)


def correctness(
    measure: str,
    train: np.ndarray,
    train_y: np.ndarray,
    test: np.ndarray,
    test_y: np.ndarray,
    estimator: BaseEstimator,
    draws: int,
) -> np.ndarray:
    """Return the score of each test image, in 0..1: float64 (n,), of few-shot by each draw (draws, n)."""
    if measure == "fewshot5":
        each = few_shot(train, train_y, test, test_y, SHOTS, draws, estimator=estimator).T
    elif measure == "retrieval":
        each = retrieval_scores(test, test_y, train, train_y)["map_at_r"]
    else:
        each = clone(estimator).fit(train, train_y).predict(test) == test_y
    return np.asarray(each, dtype=np.float64)


def probe_sources(
    sources: Features,
    task: Task,
    spaces: Mapping[str, Mapping[str, BaseEstimator]],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Score]:
    """Return by measure the score of the source that ranks first on held-out images, with the search of its space.

    tick is called after each measure.
    """
    made = {}
    for measure, space in spaces.items():
        best = best_of(measure, sources, task)
        made[measure] = score(measure, {best: sources[best]}, task, space)
        tick()
    return made


def probe_baseline(sources: Features, task: Task) -> SourceScores:
    """Return the scores of a baseline in several variants (numbers of PCA components, say), with the full search."""
    return SourceScores({measure: score(measure, sources, task, FULL_SEARCH[measure]) for measure in MEASURES})


def classify_pixels(pixels: np.ndarray, task: Task) -> SourceScores:
    """Return the scores of classifiers of pixels, with shifted training digits where held-out accuracy is better so."""
    return SourceScores(
        {measure: score(measure, {"pixels": pixels}, task, space) for measure, space in CLASSIFIERS.items()}
    )


def probe_generator(
    model: Generator, tokens: torch.Tensor, task: Task, plan: Plan, tick: Callable[[], None] = lambda: None
) -> SourceScores:
    """Return the scores of a generator: the specs of the plan ranked quickly, then the best with the full search.

    tokens: (train then test, N). tick is called TICKS times.
    """
    result, read = SourceScores(), {}

    def features_of(specs: list[FeatureSpec]) -> dict[str, np.ndarray]:
        new = [spec for spec in specs if str(spec) not in read]
        made = readout.read(model, tokens, new)
        read.update({str(spec): x.flatten(1).numpy() for spec, x in zip(new, made, strict=True)})
        return {str(spec): read[str(spec)] for spec in specs}

    first = features_of(plan.first())
    result.tried = quick_accuracy(first, task)
    tick()
    for measure in MEASURES:
        centre = FeatureSpec.parse(best_of(measure, first, task))
        best = best_of(measure, features_of(plan.around(centre)), task)
        result.scores[measure] = score(measure, {best: read[best]}, task, FULL_SEARCH[measure])
        tick()
    return result


TICKS = 1 + len(MEASURES)


def best_of(measure: str, sources: Features, task: Task) -> str:
    """Return the source that ranks first on held-out images, each with one quick estimator."""
    if len(sources) == 1:
        return next(iter(sources))
    return max(sources, key=lambda name: quick_score(measure, sources[name][: task.split], task))


def quick_score(measure: str, x: np.ndarray, task: Task) -> float:
    """Return how well held-out images of train are told apart, by a measure that is finer than accuracy.

    With 242 held-out images accuracy is too coarse to rank a hundred specs: linear is ranked by the squared error of
    ridge regression, k-NN by the share of votes for the right class, the others by themselves.
    """
    fit, y = x[~task.held_out], task.train_y[~task.held_out]
    held, truth = x[task.held_out], task.train_y[task.held_out]
    if measure == "linear":
        fitted = QUICK.fit(fit, y)
        wanted = np.where(truth[:, None] == fitted.classes_, 1.0, -1.0)
        return -float(np.square(fitted.decision_function(held) - wanted).mean())
    if measure == "knn":
        voted = KNN(k=10).fit(fit, y)
        shares = voted.predict_proba(held)
        return float(shares[np.arange(len(truth)), np.searchsorted(voted.classes_, truth)].mean())
    return float(correctness(measure, fit, y, held, truth, QUICK_FEW, DRAWS // 2).mean())


QUICK, QUICK_FEW = ridge("standard", 100.0), ridge("standard", 10.0)


def quick_accuracy(sources: Features, task: Task) -> dict[str, float]:
    """Return the held-out accuracy of one quick linear probe on each source."""
    train = {name: x[: task.split] for name, x in sources.items()}
    scores = select(cross(train, {"quick": QUICK}), task.train_y, task.held_out).scores
    return {name.rpartition("/")[0]: value for name, value in scores.items()}


# baselines ------------------------------------------------------------------------------------------------------


def pca(pixels: np.ndarray, task: Task, counts: tuple[int, ...] = (12, 24, 48)) -> dict[str, np.ndarray]:
    """Return principal components of pixels, some `counts` of them, fitted on train without labels."""
    fitted = PCA(max(counts), svd_solver="full").fit(pixels[: task.split]).transform(pixels)
    return {f"pca{count}": fitted[:, :count] for count in counts}


def patch_counts(tokens: torch.Tensor, vocab_size: int) -> dict[str, np.ndarray]:
    """Return the count of each patch of the codebook in an image, and its square root."""
    counts = torch.zeros(len(tokens), vocab_size).scatter_add_(1, tokens, torch.ones(tokens.shape))
    return {"counts": counts.numpy(), "roots": counts.sqrt().numpy()}
