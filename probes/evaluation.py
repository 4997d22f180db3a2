"""One feature, one probe: choose on held-out images of train, score test once, and keep a `Record` of it."""

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from .arrays import check_finite, two_or_more_classes
from .cluster import kmeans, well_clustered
from .correspondence import PCK
from .fewshot import few_shot
from .knn import KNN, KS
from .linear import LinearProbe
from .neighbors import top_k
from .record import CHOSEN, Record, made_with
from .retrieval import has_positive, retrieval_scores
from .scalings import SCALINGS, scaling
from .selection import cross, knn_space, linear_space, refit, select
from .splits import copies, hold_out
from .stats import Interval, bootstrap, spread

HEADLINE_K = 20  # fixed before anything is scored
_BLOCKS = 50
NEAREST = 10  # of each query, kept for pictures
RECIPES = ("mae", "dinov2", "capi")
Space = Mapping[str, BaseEstimator]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of one part of the data.

    features: one reading or several by name, each (n, d), or (n, D, h, w) for the attentive probe. labels: (n,) of
    whatever names the classes have. paths: (n,), the unique name of each image. groups: (n,) or None.
    """

    features: Mapping[str, NDArray[np.floating]]
    labels: NDArray[Any]
    paths: NDArray[np.str_]
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features under one name, of train and of test. fingerprints: of features and data, where they are known."""

    name: str
    train: Labelled
    test: Labelled
    baseline: bool = False
    fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How everything of one table is measured.

    seed: of splits, draws and starts. draws: of the bootstrap. held_out: share of train to choose on. search: whether
    scalings, components, C and k are searched; else the first of each. pcas: of that search, None keeps all.
    shots, shot_draws: images for each class, and how often they are drawn. runs: of k-means. recipe: "mae", "dinov2" or
    "capi" trains linear probes as published, see `Recipe`, instead of logistic regression.
    device: of what goes through torch.
    """

    seed: int = 0
    draws: int = 2000
    held_out: float = 0.2
    search: bool = True
    pcas: tuple[int | None, ...] = (None, 64)
    shots: int = 5
    shot_draws: int = 20
    runs: int = 5
    recipe: str | None = None
    device: str = "cpu"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"pcas": list(self.pcas)}


class Measured(NamedTuple):
    """What a probe found: for each metric the scores of the test images, (n,) or (runs, n), the headline first.

    rows: the images of test that these are, where it is not all of them. numbers: metrics that no image has of its own.
    """

    right: dict[str, NDArray[Any]]
    chosen: str = ""
    search: dict[str, float] = {}  # noqa: RUF012  never changed
    predicted: NDArray[Any] | None = None
    rows: NDArray[np.intp] | None = None
    arrays: dict[str, NDArray[Any]] = {}  # noqa: RUF012
    numbers: dict[str, Interval] = {}  # noqa: RUF012
    settings: dict[str, Any] = {}  # noqa: RUF012


def evaluate(data: FeatureSet, task: str, how: Protocol = Protocol(), space: Space | None = None) -> Record:
    """The record of one task: "knn", "linear", "attentive", "fewshot", "retrieval" or "cluster".

    space: estimators to choose from, instead of the task's own, for "linear" and "attentive".

    Warns of classes that only test has (their images count as wrong), of groups in both parts and of images that are in
    both. Raises a ValueError of one sentence for features that are not finite, which names images, and for labels of
    one class.
    """
    start = time.perf_counter()
    if task not in MEASURES:
        raise ValueError(f"task {task!r} is unknown, expected one of {', '.join(MEASURES)}.")
    notes = _checked(data, task)
    found = MEASURES[task](data, how, space)
    test = data.test if found.rows is None else _rows(data.test, found.rows)
    return _record(data, task, how, found, test, notes, time.perf_counter() - start)


def evaluate_online(
    data: FeatureSet,
    images: tuple[Sequence[Any], Sequence[Any]],
    encode: Callable[[Any], Any],
    how: Protocol,
    size: int = 224,
    workers: int = 0,
    images_at_once: int = 64,
) -> Record:
    """The record of "linear" by `how.recipe`, with features computed anew from random crops in every epoch, as the
    published numbers were; test is seen in centre crops.

    data: without features. images: of train and of test, pictures or paths. encode, size, workers, images_at_once: of
    `train_online`. With `how.search` heads are trained twice, to choose and then on all of train; else the recipe's
    first head is trained once.
    """
    from .heads import Recipe
    from .online import score_online, sweep_online, train_online

    start = time.perf_counter()
    notes = _checked(data, "linear")
    recipe: Recipe = getattr(Recipe, _known_recipe(how))()
    reading = workers, images_at_once
    train, test, scores = data.train, data.test, {}
    held = _held_out(data, how) if how.search else None
    if held is None:
        recipe = recipe.only(*recipe.pairs[0])
    else:
        found = sweep_online(images[0], train.labels, held, encode, recipe, size, how.seed, how.device, *reading)
        scores = {_spelled(trial): score for trial, score in found.scores.items()}
        recipe, wanted = recipe.only(*found.best[1:]), found.best.features
        encode = _only(encode, wanted)
    heads = train_online(images[0], train.labels, encode, recipe, size, how.seed, how.device, *reading)
    right = score_online(heads, images[1], test.labels, encode, size, *reading)[0]
    own = Measured({"accuracy": right}, _spelled(heads.trials[0]), scores, settings={"online": True})
    return _record(data, "linear", how, own, test, notes, time.perf_counter() - start)


def evaluate_pairs(
    name: str,
    found: PCK,
    paths: Sequence[str],
    seconds: float,
    how: Protocol = Protocol(),
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    chosen: str = "",
    search: Mapping[str, float] | None = None,
) -> Record:
    """The record of "correspondence". Every pair counts alike, however many points it has; so does every category in
    `per_class`. paths: a name for each pair, of which those without a point are left out. chosen, search: as in
    `Record`, on other pairs."""
    kept, scores = found.points > 0, found.scores()
    names = [f"pck@{alpha:g}" for alpha in found.alphas]
    right = dict(zip(names, scores.T, strict=True))
    categories = found.categories[kept]
    arrays: dict[str, NDArray[Any]] = {"paths": np.array(paths)[kept], "truth": categories}
    arrays |= {"right" if metric == names[0] else f"right {metric}": values for metric, values in right.items()}
    per_point = {f"{metric} per point": float(v) for metric, v in zip(names, found.per_point(), strict=True)}
    own = {"averaging": "per image pair", "pairs": int(kept.sum()), "lost points": int(found.lost.sum()), **per_point}
    return Record(
        name,
        "correspondence",
        {metric: bootstrap(values, None, how.draws, how.seed) for metric, values in right.items()},
        chosen,
        dict(search or {}),
        per_class=_per_class(right[names[0]], categories),
        settings={**how.as_dict(), **own, **(settings or {})},
        fingerprints=dict(fingerprints or {}),
        made_with=made_with(),
        seconds=seconds,
        arrays=arrays,
    )


# probes -------------------------------------------------------------------------------------------------------------


def _knn(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """k = 20 and the others of KS by DINO's protocol, fixed in advance; and what a search over k, metric, scaling and
    components chose on train."""
    fixed_name = f"k={HEADLINE_K}"
    fixed = _choose(data, {fixed_name: KNN(HEADLINE_K, device=how.device)}, how)
    probe, reading = _fitted(data, {fixed_name: KNN(HEADLINE_K, device=how.device)}, fixed.name)
    each = probe.predict_each(data.test.features[reading], KS)
    order = (HEADLINE_K, *(k for k in KS if k != HEADLINE_K))
    right = {f"k={k}": each[k] == data.test.labels for k in order}
    if not how.search:
        return Measured(right, fixed.name, fixed.scores, each[HEADLINE_K])
    searched = knn_space(pcas=how.pcas)
    best = _choose(data, searched, how)
    probe, reading = _fitted(data, searched, best.name)
    right[CHOSEN] = probe.predict(data.test.features[reading]) == data.test.labels
    return Measured(right, best.name, fixed.scores | best.scores, each[HEADLINE_K])


def _classifier(data: FeatureSet, how: Protocol, space: Space) -> Measured:
    if not how.search:
        space = dict([next(iter(space.items()))])
    best = _choose(data, space, how)
    probe, reading = _fitted(data, space, best.name)
    predicted = probe.predict(data.test.features[reading])
    return Measured({"accuracy": predicted == data.test.labels}, best.name, best.scores, predicted)


def _linear(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """Logistic regression, with scaling, components and C chosen on train; or heads trained by a recipe."""
    if space is None and how.recipe is not None:
        return _by_recipe(data, how)
    if space is None:
        space = linear_space(pcas=how.pcas) if how.search else linear_space(("standard",), (1.0,))
    return _classifier(data, how, space)


def _by_recipe(data: FeatureSet, how: Protocol) -> Measured:
    """Heads trained in batches as published, learning rate, decay and reading chosen on train."""
    from .heads import Recipe
    from .sweep import Trial, sweep_heads, train_heads

    recipe: Recipe = getattr(Recipe, _known_recipe(how))()
    train, held, scores = data.train, _held_out(data, how), {}
    best = Trial(next(iter(train.features)), *recipe.pairs[0])
    if held is not None:
        found = sweep_heads(train.features, train.labels, held, recipe, how.seed, how.device)
        best, scores = found.best, {_spelled(trial): score for trial, score in found.scores.items()}
    one = recipe.only(best.learning_rate, best.weight_decay)
    own = {best.features: train.features[best.features]}
    head = train_heads(own, train.labels, one, seed=how.seed, device=how.device).head(best)
    predicted = head.predict(data.test.features[best.features])
    return Measured({"accuracy": predicted == data.test.labels}, _spelled(best), scores, predicted)


def _known_recipe(how: Protocol) -> str:
    if how.recipe not in RECIPES:
        raise ValueError(f"recipe {how.recipe!r} is unknown, expected one of {', '.join(RECIPES)}.")
    return how.recipe


def _only(encode: Callable[[Any], Any], reading: str) -> Callable[[Any], Any]:
    """The same encoder for one of its features."""
    return lambda pixels: {reading: encode(pixels)[reading]}


def _spelled(trial: Any) -> str:
    return f"{trial.features}/lr={trial.learning_rate:g} wd={trial.weight_decay:g}"


def _attentive(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """AIM's head, with learning rate and decay chosen on train."""
    from .attentive import AttentiveProbe

    widths = {x.shape[1] for x in data.train.features.values()}
    heads = max(count for count in range(1, 13) if all(width % count == 0 for width in widths))
    rates, decays = ((3e-4, 1e-3, 3e-3), (0.01, 0.1)) if how.search else ((1e-3,), (0.1,))
    batch = max(16, min(256, len(data.train) // 16))  # some steps an epoch, however few the images
    own = {
        f"attentive lr={rate:g} wd={decay:g}": AttentiveProbe(
            heads, rate, decay, batch=batch, seed=how.seed, device=how.device
        )
        for rate in rates
        for decay in decays
    }
    return _classifier(data, how, own if space is None else space)


def _fewshot(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """Logistic regression on few images for each class, many times; scaling and C chosen on train."""
    scalings, Cs = (("l2", "none", "standard"), (1.0, 0.1, 10.0)) if how.search else (("l2",), (1.0,))
    own = {f"linear {name} C={C:g}": LinearProbe(C, name) for name in scalings for C in Cs}
    train, test, held = data.train, data.test, _held_out(data, how)

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
    reading, _, probe = name.rpartition("/")
    features = train.features[reading], train.labels, test.features[reading], test.labels
    right = few_shot(*features, how.shots, how.shot_draws, how.seed, own[probe]).T
    return Measured({f"{how.shots} shots": right}, name, scores, settings={"over draws": _spread(right)})


def _retrieval(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """Each test image among all others of test, by cosine; the reading and its scaling chosen by MAP@R on train."""
    test = data.test
    scalings = tuple(SCALINGS) if how.search else ("none",)
    names = [f"{reading}/{name}" for reading in test.features for name in scalings if name != "l2"]  # cosine does so
    scores = {}
    if len(names) > 1 and has_positive(data.train.labels).any():
        scores = {name: float(_ranked(data, name, data.train)["map_at_r"].mean()) for name in names}
    name = max(scores, key=lambda name: scores[name]) if scores else names[0]
    right = _ranked(data, name, test)
    rows = np.flatnonzero(has_positive(test.labels))
    first = "map_at_r", "precision_at_1"
    right = {metric: right[metric] for metric in (*first, *(m for m in right if m not in first))}
    _, near = top_k(None, _scaled(data, name, test), min(NEAREST, len(test) - 1))
    return Measured(right, name, scores, rows=rows, arrays={"nearest": near[rows], "gallery": test.paths})


def _cluster(data: FeatureSet, how: Protocol, space: Space | None) -> Measured:
    """Spherical k-means of test into as many clusters as it has classes, from several starts; the reading and its
    scaling chosen on train."""
    test = data.test
    names = [f"{reading}/{name}" for reading in test.features for name in (SCALINGS if how.search else ("none",))]
    names = [name for name in names if not name.endswith("/l2")]  # spherical k-means does so
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
    return Measured({"accuracy": right}, name, scores, numbers=numbers, settings=own)


MEASURES: dict[str, Callable[[FeatureSet, Protocol, Space | None], Measured]] = {
    "knn": _knn,
    "linear": _linear,
    "attentive": _attentive,
    "fewshot": _fewshot,
    "retrieval": _retrieval,
    "cluster": _cluster,
}
FITTING = ("knn", "linear", "attentive", "fewshot")  # these need train


def noise(data: FeatureSet, seed: int = 0) -> FeatureSet:
    """Chance, as a baseline: features that are noise, dense ones where those of `data` are."""
    rng = np.random.default_rng(seed)

    def part(own: Labelled) -> Labelled:
        dense = any(np.ndim(x) == 4 for x in own.features.values())
        shape = (len(own), 16, 2, 2) if dense else (len(own), 16)
        return Labelled({"noise": rng.standard_normal(shape, dtype=np.float32)}, own.labels, own.paths, own.groups)

    return FeatureSet("chance (noise)", part(data.train), part(data.test), baseline=True)


# choosing -----------------------------------------------------------------------------------------------------------


class _Choice(NamedTuple):
    name: str
    scores: dict[str, float]


def _choose(data: FeatureSet, space: Space, how: Protocol) -> _Choice:
    """The best of readings x space on held-out images of train; the first where nothing can be held out. Without
    `how.search` a single candidate is not scored there: on large data that takes as long as test."""
    alone = len(space) == len(data.train.features) == 1 and not how.search
    held = None if alone else _held_out(data, how)
    if held is None:
        return _Choice(_first(data, space), {})
    found = select(cross(data.train.features, space), data.train.labels, held)
    return _Choice(found.name, found.scores)


def _fitted(data: FeatureSet, space: Space, name: str) -> tuple[Any, str]:
    """The candidate of a name fitted on all of train, and the reading that it reads."""
    probe = refit(cross(data.train.features, space), name, data.train.labels)
    return (probe, name[: -len(_estimator_of(name, space)) - 1])


def _estimator_of(name: str, space: Space) -> str:
    return next(one for one in space if name.endswith(f"/{one}"))


def _first(data: FeatureSet, space: Space) -> str:
    return next(iter(cross(data.train.features, space)))


def _held_out(data: FeatureSet, how: Protocol) -> NDArray[np.bool_] | None:
    """The images of train to choose on; None, with a warning, where there are too few to choose at all."""
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
    """The reading and scaling of a candidate, the scaling fitted on train, without labels."""
    reading, _, how = name.rpartition("/")
    if how == "none":
        return np.asarray(part.features[reading])
    return clone(scaling(how)).fit(data.train.features[reading]).transform(part.features[reading])


def _ranked(data: FeatureSet, name: str, part: Labelled) -> dict[str, NDArray[np.float64]]:
    return retrieval_scores(_scaled(data, name, part), part.labels, ks=(5, 10))  # Recall@1 is P@1


def _clusters(data: FeatureSet, name: str, part: Labelled, seed: int) -> NDArray[np.int64]:
    count = len(np.unique(part.labels))
    return kmeans(_scaled(data, name, part), count, spherical=True, redos=3, seed=seed)


def _agreement(
    score: Callable[[NDArray, NDArray], float], part: Labelled, clusters: NDArray[np.int64], how: Protocol
) -> Interval:
    """An agreement of labels and clusters, which no image has of its own, with the interval of a jackknife.

    Groups are left out one at a time, or `_BLOCKS` random blocks of images. A bootstrap would draw images twice, and
    two equal images always agree.
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
    reach = 1.96 * float(np.sqrt((count - 1) / count * np.square(left - left.mean()).sum()))
    return Interval(value, value - reach, value + reach, len(part))


# records ------------------------------------------------------------------------------------------------------------


def _checked(data: FeatureSet, task: str) -> dict[str, Any]:
    """What is odd about the data, for the record, with warnings; a ValueError for what cannot be measured."""
    for part, name in ((data.train, "train"), (data.test, "test")):
        for reading, x in part.features.items():
            if len(x) != len(part):
                raise ValueError(f"{data.name} has {len(x)} rows of {reading} for {len(part)} labels of {name}.")
            if np.ndim(x) != (4 if task == "attentive" else 2):
                wanted = "dense maps, pool `none`" if task == "attentive" else "vectors, any pool but `none`"
                raise ValueError(f"{data.name} ({reading}) has shape {np.shape(x)}; {task} reads {wanted}.")
            _check_finite(x, part.paths, f"{data.name} ({reading}, {name})")
    train, test = data.train, data.test
    two_or_more_classes((train if task in FITTING else test).labels)
    notes: dict[str, Any] = {"train images": len(train), "test images": len(test)}
    notes["classes"] = len(np.unique(np.concatenate([train.labels, test.labels])))
    if task not in FITTING or not len(train):
        return notes
    if len(unseen := np.setdiff1d(test.labels, train.labels)):
        count = int(np.isin(test.labels, unseen).sum())
        warnings.warn(
            f"{count} test images are of classes that train lacks (first: {unseen[0]}) and count as wrong.",
            stacklevel=3,
        )
        notes["test images of unseen classes"] = count
    if train.groups is not None and test.groups is not None:
        notes["groups"] = {"train": len(np.unique(train.groups)), "test": len(np.unique(test.groups))}
        if len(shared := np.intersect1d(train.groups, test.groups)):
            warnings.warn(f"{len(shared)} groups are in train and in test (first: {shared[0]}).", stacklevel=3)
            notes["groups in both"] = len(shared)
    first = next(iter(train.features), None)
    if first is not None and not data.baseline:  # which often map two images to one feature
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it speaks of images
            equal = int(copies(train.features[first], test.features[first]).sum())
        if equal:
            warnings.warn(
                f"{equal} of {len(test)} test images have exactly the {data.name} features of a train image: they are "
                "copies of it, or cannot be told from it.",
                stacklevel=3,
            )
        notes["copies of train"] = equal
    return notes


def _check_finite(x: NDArray[np.floating], paths: NDArray[np.str_], name: str) -> None:
    try:
        check_finite(x, name)
    except ValueError as error:
        bad = [path for path, row in zip(paths, x, strict=True) if not np.isfinite(row).all()]
        raise ValueError(f"{error} These are {', '.join(bad[:5])}{', ...' if len(bad) > 5 else '.'}") from None


def _record(
    data: FeatureSet,
    task: str,
    how: Protocol,
    found: Measured,
    test: Labelled,
    notes: Mapping[str, Any],
    seconds: float,
) -> Record:
    groups = test.groups
    if groups is not None and len(np.unique(groups)) < 2:
        warnings.warn(f"test has one group ({groups[0]}): intervals are over images alone.", stacklevel=3)
        groups = None
    headline = next(iter(found.right))
    arrays: dict[str, NDArray[Any]] = {"paths": test.paths.astype(str), "truth": _plain(test.labels), **found.arrays}
    if groups is not None:
        arrays["groups"] = _plain(groups)
    if found.predicted is not None:
        arrays["predicted"] = _plain(found.predicted)
    scores = {}
    for metric, right in found.right.items():
        own = "" if metric == headline else f" {metric}"
        runs = np.asarray(right, dtype=np.float64)
        arrays[f"right{own}"] = runs if runs.ndim == 1 else runs.mean(axis=0)
        if runs.ndim == 2:
            arrays[f"runs{own}"] = runs
        scores[metric] = bootstrap(runs, groups, how.draws, how.seed)
    return Record(
        data.name,
        task,
        scores | found.numbers,
        found.chosen,
        found.search,
        _per_class(arrays["right"], test.labels),
        {"baseline": data.baseline, **how.as_dict(), **notes, **found.settings},
        {**data.fingerprints, "labels": labels_fingerprint(data)},
        made_with(),
        seconds,
        arrays,
    )


def labels_fingerprint(data: FeatureSet) -> str:
    """SHA-256 in hex over paths, labels and groups of train and of test."""
    digest = hashlib.sha256()
    for part in (data.train, data.test):
        groups = [""] * len(part) if part.groups is None else part.groups.tolist()
        for row in zip(part.paths.tolist(), part.labels.tolist(), groups, strict=True):
            digest.update(repr(row).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _rows(part: Labelled, rows: NDArray[np.intp]) -> Labelled:
    groups = None if part.groups is None else part.groups[rows]
    return Labelled({}, part.labels[rows], part.paths[rows], groups)


def _per_class(right: NDArray[np.floating], labels: NDArray[Any]) -> dict[str, float]:
    return {str(one): float(right[labels == one].mean()) for one in np.unique(labels)}


def _spread(right: NDArray[Any]) -> dict[str, Any]:
    return asdict(spread(np.asarray(right, dtype=np.float64).mean(axis=1)))


def _smallest_class(labels: NDArray[Any]) -> int:
    return int(np.unique(labels, return_counts=True)[1].min())


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """An array that np.load opens without pickle."""
    return values.astype(str) if values.dtype.kind == "O" else values
