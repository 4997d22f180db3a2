"""Records of a feature set: each task chooses on held-out images of train and scores test once."""

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import check_finite, two_or_more_classes
from ..protocol import FeatureSet, Labelled, Protocol
from ..report.record import Record, class_means, made_with
from ..splits import copies
from ..stats import bootstrap
from .classification import FITTING, MEASURES, Space, TaskResult, held_out, recipe_of, spelled

_USUAL = Protocol()


def evaluate(data: FeatureSet, task: str, how: Protocol = _USUAL, space: Space | None = None) -> Record:
    """Return the record of one task: "knn", "linear", "attentive", "fewshot", "retrieval" or "cluster".

    space: estimators to choose from, instead of the task's own, for "linear" and "attentive".

    Warns of classes that only test has (their images count as wrong), of groups that are in both splits and of images
    that are in both. Raises a ValueError for features that are not finite, naming images, and for labels of one class.
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
    """Return the record of "linear" by `how.recipe`, with features of new random crops in every epoch.

    Published linear probes were trained so. Test is scored on centre crops.

    data: without features. images: of train and of test, pictures or paths. encode, size, workers, images_at_once: of
    `train_online`. With `how.search` heads are trained twice, to choose and then on all of train; else the recipe's
    first head is trained once.
    """
    from ..classifiers.online import score_online, sweep_online, train_online  # torchvision takes a second to import

    start = time.perf_counter()
    notes = _checked(data, "linear")
    recipe = recipe_of(how)
    loading = workers, images_at_once
    train, test, scores = data.train, data.test, {}
    held = held_out(data, how) if how.search else None
    if held is None:
        recipe = recipe.only(*recipe.pairs[0])
    else:
        found = sweep_online(images[0], train.labels, held, encode, recipe, size, how.seed, how.device, *loading)
        scores = {spelled(trial): score for trial, score in found.scores.items()}
        recipe, wanted = recipe.only(*found.best[1:]), found.best.features
        encode = _only(encode, wanted)
    heads = train_online(images[0], train.labels, encode, recipe, size, how.seed, how.device, *loading)
    right = score_online(heads, images[1], test.labels, encode, size, *loading)[0]
    own = TaskResult({"accuracy": right}, spelled(heads.trials[0]), scores, settings={"online": True})
    return _record(data, "linear", how, own, test, notes, time.perf_counter() - start)


def evaluate_likelihood(
    data: FeatureSet,
    predicted: Mapping[int, NDArray[Any]],
    how: Protocol = _USUAL,
    settings: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
) -> Record:
    """Return the record of "likelihood", classification without training; the headline has the most orders.

    data: without features. predicted: by number of orders, the labels of the test images as text, (n,), or (runs, n)
    from several sets of orders. settings: as in `Record`. seconds: time that prediction took.
    """
    truth = data.test.labels.astype(str)
    right = {f"K={count}": predicted[count] == truth for count in sorted(predicted, reverse=True)}
    labels = np.atleast_2d(predicted[max(predicted)])[0]
    found = TaskResult(right, predicted=labels, settings=dict(settings or {}))
    return _record(data, "likelihood", how, found, data.test, {"test images": len(data.test)}, seconds)


# records ------------------------------------------------------------------------------------------------------------


def _checked(data: FeatureSet, task: str) -> dict[str, Any]:
    """Return notes on the data for the record, with warnings; a ValueError for data that cannot be measured."""
    for part, name in ((data.train, "train"), (data.test, "test")):
        for spec, x in part.features.items():
            if len(x) != len(part):
                raise ValueError(f"{data.name} has {len(x)} rows of {spec} for {len(part)} labels of {name}.")
            if np.ndim(x) != (4 if task == "attentive" else 2):
                wanted = "dense maps, pool `none`" if task == "attentive" else "vectors, any pool but `none`"
                raise ValueError(f"{data.name} ({spec}) has shape {np.shape(x)}; {task} reads {wanted}.")
            _check_finite(x, part.paths, f"{data.name} ({spec}, {name})")
    train, test = data.train, data.test
    for part, name in ((train, "train"), (test, "test")):
        if not len(part) and (name == "test" or task in FITTING):
            raise ValueError(f"{data.name} has no images of {name}; {task} needs some.")
    two_or_more_classes((train if task in FITTING else test).labels)
    notes: dict[str, Any] = {"train images": len(train), "test images": len(test)}
    notes["classes"] = len(np.unique(np.concatenate([train.labels, test.labels])))
    if task not in FITTING or not len(train):
        return notes
    if len(unseen := np.setdiff1d(test.labels, train.labels)):
        count = int(np.isin(test.labels, unseen).sum())
        said = f"{count} test images are of classes that train lacks (first: {unseen[0]}) and count as wrong."
        if test.groups is not None:
            said += " A class with one group is in train or in test alone: split without groups, or by smaller ones."
        warnings.warn(said, stacklevel=3)
        notes["test images of unseen classes"] = count
    if train.groups is not None and test.groups is not None:
        notes["groups"] = {"train": len(np.unique(train.groups)), "test": len(np.unique(test.groups))}
        if len(shared := np.intersect1d(train.groups, test.groups)):
            warnings.warn(f"{len(shared)} groups are in train and in test (first: {shared[0]}).", stacklevel=3)
            notes["groups in both"] = len(shared)
    first = next(iter(train.features), None)
    if first is not None and not data.baseline:  # baselines often map two images to one feature
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `copies` warns of images, the warning below of features
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
    found: TaskResult,
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
        class_means(arrays["right"], test.labels),
        {"baseline": data.baseline, **how.as_dict(), **notes, **found.settings},
        {**data.fingerprints, "labels": labels_fingerprint(data)},
        made_with(),
        seconds,
        arrays,
    )


def labels_fingerprint(data: FeatureSet) -> str:
    """Return the SHA-256 in hex of paths, labels and groups of train and of test."""
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


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return `values`, objects as text, so that np.load opens them without pickle."""
    return values.astype(str) if values.dtype.kind == "O" else values


def _only(encode: Callable[[Any], Any], spec: str) -> Callable[[Any], Any]:
    """Return an encoder of one feature of `encode`."""
    return lambda pixels: {spec: encode(pixels)[spec]}
