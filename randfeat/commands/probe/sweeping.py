"""The readings of a sweep: read together, ranked on train, and the best of them scored on test, once."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from sklearn.base import BaseEstimator

from randfeat.features.encoder import TIMM, Encoder
from randfeat.probes import (
    Chart,
    Interval,
    Protocol,
    Ranking,
    Record,
    curves,
    evaluate,
    heat_maps,
    knn_space,
    linear_space,
    noise,
    rank_readings,
)
from randfeat.probes import png as figure_png
from randfeat.utils import atomic, devices, distributed, progress

from .inputs import (
    RANDOM,
    Contender,
    Part,
    Sources,
    feature_set,
    features_of,
    fresh_of,
    open_contender,
    open_data,
    open_model,
    read_contender,
)
from .options import protocol
from .references import references
from .showing import pictures_of
from .sweep import AXES
from .tables import cut, divide, measured, named, write

TABLE = "readings.csv"
TIMM_AXES = {"layers": AXES["layers"][0], "pools": ("mean", "cls", "grid2"), "shifts": AXES["shifts"][0]}
DRAWS = 400  # of the intervals of readings, of which there are many
SHOWN = 5
LINES = 4  # kinds of pass in one chart


@dataclass(frozen=True, eq=False)
class Ranked:
    """The readings of one contender in one task, on train."""

    contender: Contender
    task: str
    ranking: Ranking
    intervals: dict[str, Interval]


def measure(text: str, data: str | None, args: argparse.Namespace) -> None:
    """Every reading on train, the best on test; what is written lies in `args.out`."""
    how = protocol(args)
    if data is None and args.baselines:
        raise ValueError("--baselines read pictures: give MODEL and DATA")
    with distributed.ended_by_sigterm(), distributed.group():
        sources = [] if data is None else open_data(data, args.split, args.labels, args.label_column)
        if sources:  # what is wrong is said before anything is read
            divide(sources, data, args.tasks, args)
        texts = dict.fromkeys((text, fresh_of(text)) if args.baselines else (text,))
        contenders = [_open(one, sources, args) for one in texts]
        if distributed.rank() > 0:  # it has read its share
            return
    train, test = cut(contenders, data, args.tasks, args)
    found = _rank(contenders, train, args, how)
    _report(found, args)
    records = [record for one in found for record in _scored(one, train, test, how, one.contender != contenders[0])]
    plain = replace(contenders[0], specs=contenders[0].specs[:1])
    sets = [noise(feature_set(plain, train, test, plain.short), how.seed)]
    if args.baselines:
        sets += references(sources, train, test, contenders[:1])
    records += [record for task in args.tasks for one in sets for record in measured(task, one, how)]
    for record in records:
        record.save(args.out)
    charts = [chart for one in found for chart in _charts(one)]
    write(records, args.out, named(data, contenders), pictures_of(sources), charts)


def _open(text: str, sources: Sources, args: argparse.Namespace) -> Contender:
    """Return a model with all readings of the grid, or a store with all vectors that it holds."""
    if not sources:
        whole = open_contender(text, (), (), args)
        vectors = tuple(spec for spec in whole.specs if whole.stores[0].as_numpy(spec).ndim == 2)
        return replace(whole, specs=vectors)
    encoder = open_model(text, (), devices.pick(args.device), getattr(torch, args.dtype), args.seed)
    return read_contender(text, encoder.with_specs(readings(encoder, args)), sources, args)


def readings(encoder: Encoder, args: argparse.Namespace) -> list[str]:
    """Return the readings of the grid that this model can do, each once. A ValueError for a value that no reading
    has."""
    of_timm = encoder.name.removeprefix(RANDOM).startswith(TIMM)
    defaults = TIMM_AXES if of_timm else {axis: default for axis, (default, _) in AXES.items()}
    if strange := [axis for axis in AXES if axis not in defaults and getattr(args, axis)]:
        raise ValueError(f"a model of timm is read by layers, pools and shifts: leave --{strange[0]} out")
    values = [getattr(args, axis) or default for axis, default in defaults.items()]
    found: dict[str, None] = {}
    refused: dict[tuple[str, ...], str] = {}
    for cell in product(*values):
        try:
            found |= dict.fromkeys(encoder.with_specs(["/".join(cell[:-1]) + f"/shifts{cell[-1]}"]).specs)
        except ValueError as error:
            refused[cell] = str(error)
    for place, axis in enumerate(defaults):
        for value in getattr(args, axis) or ():
            why = [refused.get(cell) for cell in product(*values) if cell[place] == value]
            if all(why):
                raise ValueError(f"--{axis} {value}: {why[0]}")
    if dense := next((spec for spec in found if "none" in spec.split("/")), None):
        raise ValueError(f"{dense} is a dense map: sweep over pools that make vectors")
    return list(found)


def _rank(contenders: Sequence[Contender], train: Part, args: argparse.Namespace, how: Protocol) -> list[Ranked]:
    jobs = [(contender, task) for contender in contenders for task in args.tasks]
    found = []
    with progress.bar(sum(len(contender.specs) for contender, _ in jobs), "ranking", "reading") as bar:
        for contender, task in jobs:
            store = contender.stores[0]
            each = ((spec, features_of(store, (spec,), train)[spec]) for spec in contender.specs)
            probes = _probes(task, how)
            ranking = rank_readings(each, train.labels, probes, train.groups, args.folds, how.seed, bar.update)
            intervals = ranking.intervals(train.groups, DRAWS, how.seed)
            found.append(Ranked(contender, task, ranking, intervals))
    return found


def _probes(task: str, how: Protocol) -> list[BaseEstimator]:
    """What ranks: one k as fixed for the headline, or three strengths of one penalty."""
    space = knn_space((20,), ("cosine",), ("none",)) if task == "knn" else linear_space(("standard",), (0.01, 0.1, 1))
    return list(space.values())


def _scored(one: Ranked, train: Part, test: Part, how: Protocol, baseline: bool) -> list[Record]:
    """On test the best reading, and, to compare with, the default one if it is in the sweep."""
    best, usual = one.ranking.best, None if baseline else _usual(one.contender)
    records = []
    for spec in dict.fromkeys((best, usual if usual in one.contender.specs else best)):
        contender = replace(one.contender, specs=(spec,))
        record = evaluate(feature_set(contender, train, test, f"{contender.short} {spec}", baseline), one.task, how)
        search = one.ranking.scores | record.search if spec == best else record.search
        about = {"readings": len(one.contender.specs), "best on train": spec == best}
        records.append(replace(record, search=search, settings=record.settings | about))
    return records


def _usual(contender: Contender) -> str | None:
    """Return the default reading of the contender."""
    if contender.encoder is None:
        return None
    return contender.encoder.with_specs(()).specs[0]


def _charts(one: Ranked) -> list[Chart]:
    """Maps of all readings, and how each kind of pass goes over the layers with its best pool."""
    maps: dict[str, dict[str, dict[str, float]]] = {}
    lines: dict[str, dict[str, dict[str, Interval]]] = {}
    for spec, score in one.intervals.items():
        passes, row, layers = cell_of(spec)
        maps.setdefault(passes, {}).setdefault(row, {})[layers] = score.value
        lines.setdefault(f"{passes} {row.partition(' ')[0]}", {}).setdefault(row, {})[layers] = score
    best = {kind: max(rows.values(), key=_highest) for kind, rows in lines.items()}
    ranked = sorted(best, key=lambda kind: -_highest(best[kind]))[:LINES]
    section = f"Readings of {one.contender.short}: {one.task}"
    words = f"{one.task} on train, each image held out once. The frame marks the highest score, which is the choice."
    return [
        Chart("Readings", words, figure_png(heat_maps(maps)), section),
        Chart(
            "Layers",
            "The best pooling of each kind of pass; bands are 95 % intervals of each reading alone.",
            figure_png(curves({kind: best[kind] for kind in ranked})),
            section,
        ),
    ]


def _highest(line: Mapping[str, Interval]) -> float:
    return max(score.value for score in line.values())


def cell_of(spec: str) -> tuple[str, str, str]:
    """Where a reading stands: the map (orders, context and shifts), the row (stream, pool, merge) and the column
    (layers)."""
    parts = spec.split("/")
    shifts = [parts.pop()] if parts[-1].startswith("shifts") else []
    if len(parts) < 6:  # of timm: layers/pool[/merge], or `pooled`
        return " ".join(shifts), " ".join(parts[1:]), parts[0]
    return " ".join((*parts[:2], *shifts)), " ".join((parts[2], *parts[4:])), parts[3]


def _report(found: Sequence[Ranked], args: argparse.Namespace) -> None:
    """readings.csv, and the best readings on the terminal."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["task", "model", "spec", "dimension", "value", "low", "high", "n", "best"])
    for one in found:
        ranked = sorted(one.intervals.items(), key=lambda item: -item[1].value)
        for spec, score in one.intervals.items():
            width = one.contender.stores[0].as_numpy(spec).shape[1]
            numbers = [f"{x:.5f}" for x in (score.value, score.low, score.high)]
            rows.writerow([one.task, one.contender.short, spec, width, *numbers, score.n, spec == one.ranking.best])
        print(f"{one.task} of {one.contender.short}, the best of {len(ranked)} readings on train:")
        for spec, score in ranked[:SHOWN]:
            print(f"  {100 * score.value:5.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]  {spec}")
    args.out.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(args.out / TABLE, text.getvalue().encode())
