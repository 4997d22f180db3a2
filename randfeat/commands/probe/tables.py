"""Contenders and baselines through all tasks, each with a record; then the table and the page."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
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

from .baselines import attended
from .inputs import (
    RANDOM,
    SHARE,
    Contender,
    Part,
    Sources,
    divided,
    feature_set,
    fresh_of,
    names,
    open_contender,
    open_data,
    open_stored,
    part_of,
)
from .options import protocol
from .references import PIXELS, references
from .showing import feature_charts, pictures_of

TABLE = "table.md"
UNFITTED = ("retrieval", "cluster")  # tasks without a train


def measure(
    given: Sequence[str],
    data: str | None,
    tasks: Sequence[str],
    args: argparse.Namespace,
    others: Sequence[Record] = (),
) -> None:
    """Every contender in every task; what is written lies in `args.out`. others: records for the same table."""
    if twice := next((text for text in given if given.count(text) > 1), None):
        raise ValueError(f"{twice} is given twice: once is enough")
    if data is None and (args.split or args.labels or args.label_column):
        raise ValueError("--split, --labels and --label-column are for DATA, and a store is what it is: leave them out")
    if args.recipe and "linear" not in tasks:
        raise ValueError("--recipe is for linear probes: leave it out")
    how = protocol(args)
    if args.device == "auto":
        print(f"on {how.device}", file=sys.stderr)
    with distributed.ended_by_sigterm(), distributed.group():
        sources = [] if data is None else open_data(data, args.split, args.labels, args.label_column)
        specs, dense = args.spec, "attentive" in tasks
        stored = [open_stored(text, specs, dense) for text in given]  # what is wrong is said before anything is read
        if sources and not any(stored):
            divide(sources, data, tasks, args)
        contenders = [open_contender(text, sources, specs, args, dense) for text in given]
        fresh = random_weights(contenders, sources, specs, args, dense) if args.baselines else []
        if distributed.rank() > 0:  # it has read its share
            return
    train, test = cut(contenders, data, tasks, args)
    everyone = [*contenders, *fresh]
    sets = [
        feature_set(contender, train, test, name, contender in fresh)
        for contender, name in zip(everyone, names(everyone), strict=True)
    ]
    if args.baselines:
        sets += (attended if "attentive" in tasks else references)(sources, train, test, contenders)
    sets.append(noise(sets[0], args.seed))
    records = list(others)
    jobs = [(task, one) for task in possible(tasks, train, test, how) for one in sets]
    with progress.bar(len(jobs), "measuring", "probe") as bar:
        for task, one in jobs:
            for record in measured(task, one, how):
                record.save(args.out)
                records.append(record)
            bar.update()
    pictures = pictures_of(sources)
    charts = feature_charts(contenders, names(everyone)[: len(contenders)], test, pictures)
    write(records, args.out, named(data, contenders), pictures, charts)


def cut(
    contenders: Sequence[Contender], data: str | None, tasks: Sequence[str], args: argparse.Namespace
) -> tuple[Part, Part]:
    """Return the images of train and of test."""
    most = max(contenders, key=lambda contender: len(contender.stores))  # a store may hold train and test in one
    return divide(most.stores, data, tasks, args)


def divide(
    rows: Sequence[FeatureStore | Source | TokenSource],
    data: str | None,
    tasks: Sequence[str],
    args: argparse.Namespace,
) -> tuple[Part, Part]:
    """Train and test of one store or source, or of two."""
    fitted = [task for task in tasks if task not in UNFITTED]
    share = args.test_share
    if share is not None and len(rows) == 2:
        raise ValueError("train and test are given already: leave --test-share out")
    if share == 0 and fitted:
        raise ValueError(f"--test-share 0 leaves no train images, which {fitted[0]} needs: give more than 0, or none")
    if share is None:
        share = SHARE if fitted else 0
    return divided([part_of(one, args.group, data) for one in rows], share, args.seed)


def measured(task: str, one: FeatureSet, how: Protocol) -> list[Record]:
    """Return the record of one task; of linear probes on pixels also that of an RBF-SVM, the strongest classifier of
    these."""
    records = [evaluate(one, task, how)]
    if task == "linear" and one.baseline and one.name == PIXELS:
        records.append(evaluate(replace(one, name=f"RBF-SVM on {PIXELS}"), task, how, svm_space(("none", "standard"))))
    return records


def possible(tasks: Sequence[str], train: Part, test: Part, how: Protocol) -> list[str]:
    """Return the tasks that these images allow. Of several, those that they do not are left out with a note."""
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
        return list(tasks)  # the probe itself says what is wrong
    for task in tasks:
        if task in reasons:
            warnings.warn(f"{task} is left out: {reasons[task]}.", stacklevel=2)
    return [task for task in tasks if task not in reasons]


def random_weights(
    contenders: Sequence[Contender], sources: Sources, specs: Sequence[str], args: argparse.Namespace, dense: bool
) -> list[Contender]:
    """Return the network of each model with random weights, each architecture once, unless that is a contender itself.

    specs, dense: see `open_contender`.
    """
    known = {contender.text for contender in contenders}
    fresh: dict[str, Contender] = {}
    for contender in contenders:
        if contender.encoder is None or contender.text.startswith(RANDOM):
            continue
        if (text := fresh_of(contender.text)) not in known:
            made = open_contender(text, sources, specs, args, dense)
            fresh.setdefault(made.stores[0].fingerprint(made.specs[0]), made)
    return list(fresh.values())


def named(data: str | None, contenders: Sequence[Contender]) -> str:
    """Return the data as the user gave it, or as the stores remember it."""
    return data or str(contenders[0].stores[0].meta["source"]["name"])


def write(
    records: Sequence[Record],
    out: Path,
    data: str,
    pictures: Pictures | None = None,
    charts: Sequence[Chart] = (),
) -> None:
    """table.md, which is printed as well, and the page. data: what was measured on, the page's title."""
    comparisons = compare(records)
    text = markdown(records, comparisons)
    atomic.write_bytes(out / TABLE, text.encode())
    print(text)
    page = write_report(records, out, pictures, charts, comparisons, data)
    print(f"records, {TABLE} and {page.name} -> {out}")
