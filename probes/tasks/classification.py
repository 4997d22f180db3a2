"""Tasks on a feature set: each chooses on held-out images of train, then scores test once."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ..classifiers.attentive import AttentiveProbe
from ..classifiers.heads import HeadRecipe, Trial, sweep_heads, train_heads
from ..classifiers.knn import KNN, KS
from ..classifiers.linear import LinearProbe
from ..classifiers.scalings import SCALINGS, scaling
from ..neighbors import top_k
from ..protocol import FeatureSet, Labelled, Protocol
from ..report.record import CHOSEN, NEAREST
from ..selection import SEARCHED_KS, cross, knn_space, linear_space, refit, select
from ..splits import hold_out
from ..stats import Interval, spread
from .clustering import kmeans, well_clustered
from .fewshot import few_shot
from .retrieval import has_positive, retrieval_scores

HEADLINE_K = 20  # fixed before anything is scored
FEW_KS = (10, 5, 1)  # the headline where no class of train has HEADLINE_K images: the first that one has
RECIPES = ("mae", "dinov2", "capi")
_BLOCKS = 50  # of images that a jackknife leaves out
Space = Mapping[str, BaseEstimator]


class TaskResult(NamedTuple):
    """Result of a task.

    right: by metric, the headline first, the scores of the test images, (n,) or (runs, n). chosen, search, arrays,
    settings: as in `Record`. predicted: labels of the test images. rows: the images of test that were scored, None for
    all. numbers: metrics of all images together, which have no score per image.
    """

    right: dict[str, NDArray[Any]]
    chosen: str = ""
    search: dict[str, float] = {}  # noqa: RUF012  never modified
    predicted: NDArray[Any] | None = None
    rows: NDArray[np.intp] | None = None
    arrays: dict[str, NDArray[Any]] = {}  # noqa: RUF012
    numbers: dict[str, Interval] = {}  # noqa: RUF012
    settings: dict[str, Any] = {}  # noqa: RUF012


# probes -------------------------------------------------------------------------------------------------------------


def _knn(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score k-NN with k = 20 and the others of KS, fixed in advance by DINO's protocol, and with the k, metric, scaling
    and components that a search chooses on train.

    Every k above the size of the largest class of train is left out: some of its votes must be for other classes.
    """
    most = int(np.unique(data.train.labels, return_counts=True)[1].max())
    headline = next((k for k in (HEADLINE_K, *FEW_KS) if k <= most), 1)
    fixed_name = f"k={headline}"
    fixed = _choose(data, {fixed_name: KNN(headline, device=how.device)}, how)
    probe, spec = _fitted(data, {fixed_name: KNN(headline, device=how.device)}, fixed.name)
    ks = list(dict.fromkeys([headline, *(k for k in KS if k <= most)]))
    each = probe.predict_each(data.test.features[spec], ks)
    right = {f"k={k}": each[k] == data.test.labels for k in ks}
    if not how.search:
        return TaskResult(right, fixed.name, fixed.scores, each[headline])
    searched = knn_space([k for k in SEARCHED_KS if k <= most], pcas=how.pcas)
    best = _choose(data, searched, how)
    probe, spec = _fitted(data, searched, best.name)
    right[CHOSEN] = probe.predict(data.test.features[spec]) == data.test.labels
    return TaskResult(right, best.name, fixed.scores | best.scores, each[headline])


def _classifier(data: FeatureSet, how: Protocol, space: Space) -> TaskResult:
    """Score the estimator of `space` that is chosen on train; without a search, its first."""
    if not how.search:
        space = dict([next(iter(space.items()))])
    best = _choose(data, space, how)
    probe, spec = _fitted(data, space, best.name)
    predicted = probe.predict(data.test.features[spec])
    return TaskResult({"accuracy": predicted == data.test.labels}, best.name, best.scores, predicted)


def _linear(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score logistic regression, with scaling, components and C chosen on train, or heads trained by a recipe."""
    if space is None and how.recipe is not None:
        return _by_recipe(data, how)
    if space is None:
        space = linear_space(pcas=how.pcas) if how.search else linear_space(("standard",), (1.0,))
    return _classifier(data, how, space)


def _by_recipe(data: FeatureSet, how: Protocol) -> TaskResult:
    """Score heads trained in batches as published; learning rate, decay and feature spec are chosen on train."""
    recipe = recipe_of(how)
    train, held, scores = data.train, held_out(data, how), {}
    best = Trial(next(iter(train.features)), *recipe.pairs[0])
    if held is not None:
        found = sweep_heads(train.features, train.labels, held, recipe, how.seed, how.device)
        best, scores = found.best, {spelled(trial): score for trial, score in found.scores.items()}
    one = recipe.only(best.learning_rate, best.weight_decay)
    own = {best.features: train.features[best.features]}
    head = train_heads(own, train.labels, one, seed=how.seed, device=how.device).head(best)
    predicted = head.predict(data.test.features[best.features])
    return TaskResult({"accuracy": predicted == data.test.labels}, spelled(best), scores, predicted)


def recipe_of(how: Protocol) -> HeadRecipe:
    """Return the published recipe that `how` names."""
    if how.recipe not in RECIPES:
        raise ValueError(f"recipe {how.recipe!r} is unknown, expected one of {', '.join(RECIPES)}.")
    return getattr(HeadRecipe, how.recipe)()


def spelled(trial: Trial) -> str:
    """Return the name of a trial among the candidates."""
    return f"{trial.features}/lr={trial.learning_rate:g} wd={trial.weight_decay:g}"


def _attentive(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score AIM's attentive probe, with learning rate and decay chosen on train."""
    widths = {x.shape[1] for x in data.train.features.values()}
    heads = max(count for count in range(1, 13) if all(width % count == 0 for width in widths))
    rates, decays = ((3e-4, 1e-3, 3e-3), (0.01, 0.1)) if how.search else ((1e-3,), (0.1,))
    batch = max(16, min(256, len(data.train) // 16))  # several steps per epoch even with few images
    own = {
        f"attentive lr={rate:g} wd={decay:g}": AttentiveProbe(
            heads, rate, decay, batch=batch, seed=how.seed, device=how.device
        )
        for rate in rates
        for decay in decays
    }
    return _classifier(data, how, own if space is None else space)


def _fewshot(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score logistic regression on a few images per class, in many draws; scaling and C are chosen on train."""
    scalings, Cs = (("l2", "none", "standard"), (1.0, 0.1, 10.0)) if how.search else (("l2",), (1.0,))
    own = {f"linear {name} C={C:g}": LinearProbe(C, name) for name in scalings for C in Cs}
    train, test, held = data.train, data.test, held_out(data, how)

    def promise(x: NDArray, probe: BaseEstimator, held: NDArray[np.bool_]) -> float:
        y = train.labels
        known = np.isin(y[held], y[~held])
        draws = max(1, how.shot_draws // 4)
        args = x[~held], y[~held], x[held][known], y[held][known], how.shots, draws, how.seed
        return float(few_shot(*args, estimator=probe).mean())

    scores = {}
    if held is not None and _smallest_class(train.labels[~held]) >= how.shots:
        scores = {name: promise(x, probe, held) for name, (probe, x) in cross(train.features, own).items()}
    name = max(scores, key=lambda name: scores[name]) if scores else _first(data, own)
    spec, _, probe = name.rpartition("/")
    features = train.features[spec], train.labels, test.features[spec], test.labels
    right = few_shot(*features, how.shots, how.shot_draws, how.seed, own[probe]).T
    return TaskResult({f"{how.shots} shots": right}, name, scores, settings={"over draws": _spread(right)})


def _retrieval(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score retrieval of each test image among all others of test, by cosine; feature spec and scaling are chosen by
    MAP@R on train."""
    test = data.test
    scalings = tuple(SCALINGS) if how.search else ("none",)
    names = [f"{spec}/{name}" for spec in test.features for name in scalings if name != "l2"]  # cosine normalises
    scores = {}
    if len(names) > 1 and has_positive(data.train.labels).any():
        scores = {name: float(_ranked(data, name, data.train)["map_at_r"].mean()) for name in names}
    name = max(scores, key=lambda name: scores[name]) if scores else names[0]
    right = _ranked(data, name, test)
    rows = np.flatnonzero(has_positive(test.labels))
    first = "map_at_r", "precision_at_1"
    right = {metric: right[metric] for metric in (*first, *(m for m in right if m not in first))}
    _, near = top_k(None, _scaled(data, name, test), min(NEAREST, len(test) - 1))
    return TaskResult(right, name, scores, rows=rows, arrays={"nearest": near[rows], "gallery": test.paths})


def _cluster(data: FeatureSet, how: Protocol, space: Space | None) -> TaskResult:
    """Score spherical k-means of test into as many clusters as it has classes, from several starts; feature spec and
    scaling are chosen on train."""
    test = data.test
    names = [f"{spec}/{name}" for spec in test.features for name in (SCALINGS if how.search else ("none",))]
    names = [name for name in names if not name.endswith("/l2")]  # spherical k-means normalises
    scores = {}
    if len(names) > 1 and len(np.unique(data.train.labels)) > 1:
        scores = {
            name: float(well_clustered(data.train.labels, _clusters(data, name, data.train, how.seed)).mean())
            for name in names
        }
    name = max(scores, key=lambda name: scores[name]) if scores else names[0]
    found = [_clusters(data, name, test, how.seed + run) for run in range(how.runs)]
    right = np.stack([well_clustered(test.labels, one) for one in found])
    numbers = {
        "nmi": _agreement(normalized_mutual_info_score, test, found[0], how),
        "ari": _agreement(adjusted_rand_score, test, found[0], how),
    }
    own = {"over starts": _spread(right), "nmi, ari": "of the first start"}
    return TaskResult({"accuracy": right}, name, scores, numbers=numbers, settings=own)


MEASURES: dict[str, Callable[[FeatureSet, Protocol, Space | None], TaskResult]] = {
    "knn": _knn,
    "linear": _linear,
    "attentive": _attentive,
    "fewshot": _fewshot,
    "retrieval": _retrieval,
    "cluster": _cluster,
}
FITTING = ("knn", "linear", "attentive", "fewshot")  # tasks that fit on train


# choosing -----------------------------------------------------------------------------------------------------------


class _Choice(NamedTuple):
    name: str
    scores: dict[str, float]


def _choose(data: FeatureSet, space: Space, how: Protocol) -> _Choice:
    """Return the best of feature specs x space on held-out images of train, the first if nothing can be held out.

    Without `how.search` a single candidate is not scored: on large data that would take as long as scoring test.
    """
    single = len(space) == len(data.train.features) == 1 and not how.search
    held = None if single else held_out(data, how)
    if held is None:
        return _Choice(_first(data, space), {})
    found = select(cross(data.train.features, space), data.train.labels, held)
    return _Choice(found.name, found.scores)


def _fitted(data: FeatureSet, space: Space, name: str) -> tuple[Any, str]:
    """Return the candidate `name` fitted on all of train, and its feature spec."""
    probe = refit(cross(data.train.features, space), name, data.train.labels)
    estimator = next(one for one in space if name.endswith(f"/{one}"))
    return probe, name.removesuffix(f"/{estimator}")


def _first(data: FeatureSet, space: Space) -> str:
    return next(iter(cross(data.train.features, space)))


def held_out(data: FeatureSet, how: Protocol) -> NDArray[np.bool_] | None:
    """Return the mask of images of train to choose on; None, with a warning, if there are too few to hold some out."""
    train = data.train
    try:
        mask = hold_out(train.labels, train.groups, how.held_out, how.seed)
        if len(np.unique(train.labels[~mask])) > 1:
            return mask
    except ValueError:
        if np.unique(train.labels, return_counts=True)[1].max() > 1:
            raise
    warnings.warn(
        "train has too few images of a class to hold some out: nothing is chosen, the first candidate is taken.",
        stacklevel=2,
    )
    return None


# retrieval and clusters ---------------------------------------------------------------------------------------------


def _scaled(data: FeatureSet, name: str, part: Labelled) -> NDArray[np.floating]:
    """Return the scaled features of a candidate "<spec>/<scaling>"; the scaling is fitted on train, without labels."""
    spec, _, how = name.rpartition("/")
    if how == "none":
        return np.asarray(part.features[spec])
    return clone(scaling(how)).fit(data.train.features[spec]).transform(part.features[spec])


def _ranked(data: FeatureSet, name: str, part: Labelled) -> dict[str, NDArray[np.float64]]:
    return retrieval_scores(_scaled(data, name, part), part.labels, ks=(5, 10))  # Recall@1 is P@1


def _clusters(data: FeatureSet, name: str, part: Labelled, seed: int) -> NDArray[np.int64]:
    count = len(np.unique(part.labels))
    return kmeans(_scaled(data, name, part), count, spherical=True, redos=3, seed=seed)


def _agreement(
    score: Callable[[NDArray, NDArray], float], part: Labelled, clusters: NDArray[np.int64], how: Protocol
) -> Interval:
    """Return an agreement of labels and clusters with the interval of a jackknife.

    Groups, or `_BLOCKS` random blocks of images, are left out one at a time. A bootstrap would draw images twice, and
    two copies of an image always agree.
    """
    _, labels = np.unique(part.labels, return_inverse=True)
    if part.groups is None:
        block = np.random.default_rng(how.seed).permutation(len(part)) % min(_BLOCKS, len(part))
    else:
        _, block = np.unique(part.groups, return_inverse=True)
    value, count = float(score(labels, clusters)), int(block.max()) + 1
    left = np.array(
        [score(labels[block != one], clusters[block != one]) for one in range(count)] if count > 1 else [value]
    )
    margin = 1.96 * float(np.sqrt((count - 1) / count * np.square(left - left.mean()).sum()))
    return Interval(value, value - margin, value + margin, len(part))


def _spread(right: NDArray[Any]) -> dict[str, Any]:
    return asdict(spread(np.asarray(right, dtype=np.float64).mean(axis=1)))


def _smallest_class(labels: NDArray[Any]) -> int:
    return int(np.unique(labels, return_counts=True)[1].min())
