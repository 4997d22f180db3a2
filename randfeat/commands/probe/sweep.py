"""Sweep over the feature specs of one model: extracted together, ranked on train, the best scored on test once."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from sklearn.base import BaseEstimator

from randfeat.features.encoder import OPEN_CLIP, TIMM, Encoder
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
    rank_features,
)
from randfeat.probes import png as figure_png
from randfeat.probes.report.names import task_name
from randfeat.utils import atomic, distributed, progress

from ..options import dtype_of, list_skipped, pick_device
from .baselines import vector_baselines
from .inputs import (
    RANDOM,
    Part,
    ProbedModel,
    Sources,
    extract_probed,
    family,
    feature_set,
    features_of,
    given_names,
    is_dense,
    open_data,
    open_model,
    open_probed,
    random_name,
    skipped_of,
)
from .options import AXES, protocol
from .pictures import pictures_of
from .tables import data_name, records_of, split, split_of_models, write

TABLE = "specs.csv"
TIMM_AXES = {"layers": AXES["layers"][0], "pools": ("mean", "cls", "grid2"), "shifts": AXES["shifts"][0]}
RESAMPLES = 400  # of the intervals of feature specs, of which there are many
PRINTED = 5
LINES = 4  # kinds of pass in one chart


@dataclass(frozen=True, eq=False)
class RankedModel:
    """Feature specs of one model, ranked in one task on train."""

    model: ProbedModel
    task: str
    ranking: Ranking
    intervals: dict[str, Interval]


def run(args: argparse.Namespace) -> int:
    """Rank all feature specs on train, score the best on test, and write records and tables into `args.out`.

    Returns the exit code: images that cannot be read are skipped, counted and listed.
    """
    if len(args.what) > 2:
        raise ValueError("a sweep is over the feature specs of one model: give one MODEL and DATA, or one STORE")
    if args.online or args.recipe:
        raise ValueError("a sweep ranks by logistic regression and k-NN: leave --recipe and --online out")
    text, data = args.what[0], args.what[1] if len(args.what) == 2 else None
    if data is None and args.baselines:
        raise ValueError("--baselines read pictures: give MODEL and DATA")
    (name,), how = given_names([text], args), protocol(args)
    with distributed.ended_by_sigterm(), distributed.group():
        sources = [] if data is None else open_data(data, args.split, args.labels, args.label_column)
        if sources:
            split(sources, data, args.tasks, args)  # raises what is wrong before images are read
        texts = dict.fromkeys((text, random_name(text)) if args.baselines else (text,))
        models = [_open(one, sources, args) for one in texts]
        if name:
            models = [replace(one, name=own) for one, own in zip(models, (name, RANDOM + name), strict=False)]
        if distributed.rank() > 0:  # only extraction is shared among processes
            return 0
    train, test = split_of_models(models, data, args.tasks, args)
    ranked = _rank(models, train, args, how)
    _report(ranked, args)
    records = [record for one in ranked for record in _scored(one, train, test, how, one.model != models[0])]
    plain = replace(models[0], specs=models[0].specs[:1])
    sets = [noise(feature_set(plain, train, test, plain.short_name), how.seed)]
    if args.baselines:
        sets += vector_baselines(sources, train, test, models[:1])
    records += [record for task in args.tasks for one in sets for record in records_of(task, one, how)]
    for record in records:
        record.save(args.out)
    charts = [chart for one in ranked for chart in _charts(one)]
    pictures, note = pictures_of(sources, models[0].stores)
    write(records, args.out, data_name(data, models), pictures, charts, note)
    return list_skipped(skipped_of(models), args.out)


def _open(text: str, sources: Sources, args: argparse.Namespace) -> ProbedModel:
    """Return a model with all feature specs of the grid, or a store with all vectors that it holds."""
    if not sources:
        stored = open_probed(text, (), (), args)
        vectors = tuple(spec for spec in stored.specs if stored.stores[0].as_numpy(spec).ndim == 2)
        return replace(stored, specs=vectors)
    encoder = open_model(text, (), pick_device(args), dtype_of(args), args.seed)
    specs = grid_specs(encoder, args)
    if distributed.rank() == 0:
        print(f"{len(specs):,} feature specs of {sum(map(len, sources)):,} images by {text}", file=sys.stderr)
    return extract_probed(text, encoder.with_specs(specs), sources, args)


def grid_specs(encoder: Encoder, args: argparse.Namespace) -> list[str]:
    """Return the feature specs of the grid that this model supports, each once.

    Raises a ValueError for a value of an axis that it supports in no combination.
    """
    if family(encoder.name) == OPEN_CLIP:
        if given := next((axis for axis in AXES if getattr(args, axis)), None):
            raise ValueError(f"models of open_clip have one feature spec: leave --{given} out")
        return [*encoder.specs]
    of_timm = family(encoder.name) == TIMM
    defaults = TIMM_AXES if of_timm else {axis: default for axis, (default, _) in AXES.items()}
    if strange := [axis for axis in AXES if axis not in defaults and getattr(args, axis)]:
        raise ValueError(f"specs of timm's models have layers, pools and shifts: leave --{strange[0]} out")
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
    if dense := next((spec for spec in found if is_dense(spec)), None):
        raise ValueError(f"{dense} is a dense map: choose pools that give vectors")
    return list(found)


def _rank(models: Sequence[ProbedModel], train: Part, args: argparse.Namespace, how: Protocol) -> list[RankedModel]:
    jobs = [(model, task) for model in models for task in args.tasks]
    found = []
    with progress.bar(sum(len(model.specs) for model, _ in jobs), "ranking", "spec", told="") as bar:
        for model, task in jobs:
            store = model.stores[0]
            each = ((spec, features_of(store, (spec,), train)[spec]) for spec in model.specs)
            probes = _probes(task, how)
            ranking = rank_features(each, train.labels, probes, train.groups, args.folds, how.seed, bar.update)
            intervals = ranking.intervals(train.groups, RESAMPLES, how.seed)
            found.append(RankedModel(model, task, ranking, intervals))
    return found


def _probes(task: str, how: Protocol) -> list[BaseEstimator]:
    """Return the probes that rank: k = 20 as in the headline, or three strengths of one penalty."""
    space = knn_space((20,), ("cosine",), ("none",)) if task == "knn" else linear_space(("standard",), (0.01, 0.1, 1))
    return list(space.values())


def _scored(one: RankedModel, train: Part, test: Part, how: Protocol, baseline: bool) -> list[Record]:
    """Return the test records of the best feature spec and, to compare, of the default if it is in the sweep."""
    best, default = one.ranking.best, None if baseline else _default(one.model)
    records = []
    for spec in dict.fromkeys((best, default if default in one.model.specs else best)):
        model = replace(one.model, specs=(spec,))
        record = evaluate(feature_set(model, train, test, f"{model.short_name} {spec}", baseline), one.task, how)
        search = one.ranking.scores | record.search if spec == best else record.search
        about = {"readings": len(one.model.specs), "best on train": spec == best}
        records.append(replace(record, search=search, settings=record.settings | about))
    return records


def _default(model: ProbedModel) -> str | None:
    """Return the default feature spec of the model, None of a store."""
    if model.encoder is None:
        return None
    return model.encoder.with_specs(()).specs[0]


def _charts(one: RankedModel) -> list[Chart]:
    """Return heat maps of all feature specs, and curves over the layers for the best pool of each kind of pass."""
    maps: dict[str, dict[str, dict[str, float]]] = {}
    lines: dict[str, dict[str, dict[str, Interval]]] = {}
    for spec, score in one.intervals.items():
        passes, row, layers = cell_of(spec)
        maps.setdefault(passes, {}).setdefault(row, {})[layers] = score.value
        lines.setdefault(f"{passes} {row.partition(' ')[0]}", {}).setdefault(row, {})[layers] = score
    best = {kind: max(rows.values(), key=_highest) for kind, rows in lines.items()}
    ranked = sorted(best, key=lambda kind: -_highest(best[kind]))[:LINES]
    task = task_name(one.task)
    section = f"Feature specs of {one.model.short_name}: {task}"
    words = f"{task} on train, each image held out once. The frame marks the highest score, which is the choice."
    return [
        Chart("Feature specs", words, figure_png(heat_maps(maps)), section),
        Chart(
            "Layers",
            "The best pooling of each kind of pass; bands are 95 % intervals of each feature spec by itself.",
            figure_png(curves({kind: best[kind] for kind in ranked})),
            section,
        ),
    ]


def _highest(line: Mapping[str, Interval]) -> float:
    return max(score.value for score in line.values())


def cell_of(spec: str) -> tuple[str, str, str]:
    """Return the place of a feature spec in the heat maps.

    The map is of orders, context and shifts, the row of stream, pool and merge, the column of layers.
    """
    parts = spec.split("/")
    shifts = [parts.pop()] if parts[-1].startswith("shifts") else []
    if len(parts) < 6:  # of timm: layers/pool[/merge], or `pooled`
        return " ".join(shifts), " ".join(parts[1:]), parts[0]
    return " ".join((*parts[:2], *shifts)), " ".join((parts[2], *parts[4:])), parts[3]


def _report(found: Sequence[RankedModel], args: argparse.Namespace) -> None:
    """Write specs.csv, and print the best feature specs."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["task", "model", "spec", "dimension", "value", "low", "high", "n", "best"])
    for one in found:
        ranked = sorted(one.intervals.items(), key=lambda item: -item[1].value)
        for spec, score in one.intervals.items():
            width = one.model.stores[0].as_numpy(spec).shape[1]
            numbers = [f"{x:.5f}" for x in (score.value, score.low, score.high)]
            rows.writerow([one.task, one.model.short_name, spec, width, *numbers, score.n, spec == one.ranking.best])
        print(f"{task_name(one.task)} of {one.model.short_name}, the best of {len(ranked)} feature specs on train:")
        for spec, score in ranked[:PRINTED]:
            print(f"  {100 * score.value:5.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]  {spec}")
    args.out.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(args.out / TABLE, text.getvalue().encode())
