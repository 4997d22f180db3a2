"""Records of models and baselines in all tasks, and the table and the page made of them."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from randfeat.data.sources import Source, TokenSource
from randfeat.features.store import FeatureStore
from randfeat.probes import (
    Chart,
    FeatureSet,
    Protocol,
    Record,
    compare,
    evaluate,
    has_positive,
    markdown,
    noise,
    svm_space,
    write_report,
)
from randfeat.probes.report.sheets import Pictures
from randfeat.utils import atomic, distributed, progress

from ..options import list_skipped
from .baselines import PIXELS, attentive_baselines, random_weights, vector_baselines
from .inputs import (
    TEST_SHARE,
    Part,
    ProbedModel,
    display_names,
    feature_set,
    given_names,
    open_all,
    open_data,
    open_stored,
    part_of,
    skipped_of,
    train_and_test,
)
from .options import protocol
from .pictures import feature_charts, pictures_of

TABLE = "table.md"
UNFITTED = ("retrieval", "cluster")  # tasks that need no train


def measure(
    given: Sequence[str],
    data: str | None,
    tasks: Sequence[str],
    args: argparse.Namespace,
    records: Sequence[Record] = (),
    skipped: Sequence[tuple[str, str]] = (),
) -> int:
    """Measure every model and store in every task, and write records, table and page into `args.out`.

    given: models and stores as text. data: the images that models read. records: further ones for the same table.
    skipped: path and reason of images of the last split that could not be read for these. Returns the exit code: images
    that cannot be read are skipped, counted and listed.
    """
    _check(given, data, tasks, args)
    how = protocol(args, "measuring")
    with distributed.ended_by_sigterm(), distributed.group():
        sources = [] if data is None else open_data(data, args.split, args.labels, args.label_column)
        specs, dense = args.spec, "attentive" in tasks
        stored = [open_stored(text, specs, dense) for text in given]
        if sources and not any(stored):
            split(sources, data, tasks, args)  # raises what is wrong before images are read
        models = open_all(given, sources, args, dense)
        fresh = random_weights(models, sources, specs, args, dense) if args.baselines else []
        if distributed.rank() > 0:  # only extraction is shared among processes
            return 0
    train, test = split_of_models(models, data, tasks, args)
    everyone = [*models, *fresh]
    names = display_names(everyone)
    sets = [feature_set(model, train, test, name, model in fresh) for model, name in zip(everyone, names, strict=True)]
    if args.baselines:
        sets += (attentive_baselines if "attentive" in tasks else vector_baselines)(sources, train, test, models)
    sets.append(noise(sets[0], args.seed))
    found = list(records)
    jobs = [(task, one) for task in feasible(tasks, train, test, how) for one in sets]
    with progress.bar(len(jobs), "measuring", "probe") as bar:
        for task, one in jobs:
            for record in records_of(task, one, how):
                record.save(args.out)
                found.append(record)
            bar.update()
    pictures, note = pictures_of(sources, [store for model in models for store in model.stores])
    charts = feature_charts(models, names[: len(models)], test, pictures)
    write(found, args.out, data_name(data, models), pictures, charts, note)
    return list_skipped(skipped_of(models, skipped), args.out)


def _check(given: Sequence[str], data: str | None, tasks: Sequence[str], args: argparse.Namespace) -> None:
    if twice := next((text for text in given if given.count(text) > 1), None):
        raise ValueError(f"{twice} is given twice: once is enough")
    given_names(given, args)
    if data is None and (args.split or args.labels or args.label_column):
        raise ValueError("--split, --labels and --label-column are for DATA, and a store has its own: leave them out")
    if args.recipe and "linear" not in tasks:
        raise ValueError("--recipe is for linear probes: leave it out")


# train and test -----------------------------------------------------------------------------------------------------


def split_of_models(
    models: Sequence[ProbedModel], data: str | None, tasks: Sequence[str], args: argparse.Namespace
) -> tuple[Part, Part]:
    """Return the images of train and of test that models and stores have features of."""
    most = max(models, key=lambda model: len(model.stores))  # a store may hold train and test in one
    return split(most.stores, data, tasks, args)


def split(
    rows: Sequence[FeatureStore | Source | TokenSource],
    data: str | None,
    tasks: Sequence[str],
    args: argparse.Namespace,
    without: Collection[str] = (),
) -> tuple[Part, Part]:
    """Return train and test of one store or source, or of two.

    without: paths of images of the last of them to leave out; another split may have images of the same names.
    """
    fitted = [task for task in tasks if task not in UNFITTED]
    share = args.test_share
    if share is not None and len(rows) == 2:
        raise ValueError("train and test are given already: leave --test-share out")
    if share == 0 and fitted:
        raise ValueError(f"--test-share 0 leaves no train images, which {fitted[0]} needs: give more than 0, or none")
    if share is None:
        share = TEST_SHARE if fitted else 0
    parts = [part_of(one, args.group, data) for one in rows]
    return train_and_test([*parts[:-1], parts[-1].without(without)], share, args.seed)


# records ------------------------------------------------------------------------------------------------------------


def records_of(task: str, one: FeatureSet, how: Protocol) -> list[Record]:
    """Return the record of one task; in "linear", also that of an RBF-SVM on pixels, the strongest on these."""
    records = [evaluate(one, task, how)]
    if task == "linear" and one.baseline and one.name == PIXELS:
        records.append(evaluate(replace(one, name=f"RBF-SVM on {PIXELS}"), task, how, svm_space(("none", "standard"))))
    return records


def feasible(tasks: Sequence[str], train: Part, test: Part, how: Protocol) -> list[str]:
    """Return the tasks that these images allow; of several, the others are left out with a warning."""
    reasons = {}
    if len(train):
        classes, counts = np.unique(train.labels, return_counts=True)
        if counts.min() < how.shots:
            reasons["fewshot"] = f"class {classes[counts.argmin()]} has {counts.min()} images for {how.shots} shots"
        elif len(unknown := np.setdiff1d(test.labels, classes)):
            reasons["fewshot"] = f"test has the class {unknown[0]}, which train lacks"
    if not has_positive(test.labels).any():
        reasons["retrieval"] = "no class has two test images"
    if len(tasks) == 1:
        return list(tasks)  # the probe itself raises what is wrong
    for task in tasks:
        if task in reasons:
            warnings.warn(f"{task} is left out: {reasons[task]}.", stacklevel=2)
    return [task for task in tasks if task not in reasons]


# table and page -----------------------------------------------------------------------------------------------------


def data_name(data: str | None, models: Sequence[ProbedModel]) -> str:
    """Return the data as the user gave it, or as the stores name it."""
    return data or str(models[0].stores[0].meta["source"]["name"])


def write(
    records: Sequence[Record],
    out: Path,
    data: str,
    pictures: Pictures | None = None,
    charts: Sequence[Chart] = (),
    note: str = "",
) -> None:
    """Write table.md, which is printed as well, and the page. data: title of the page. note: a sentence for it."""
    comparisons = compare(records)
    text = markdown(records, comparisons)
    atomic.write_bytes(out / TABLE, text.encode())
    print(text)
    page = write_report(records, out, pictures, charts, comparisons, data, note)
    print(f"records, {TABLE} and {page.name} -> {out}")
