"""Semantic correspondence of models on image pairs with the layout of SPair-71k, each with a record."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from randfeat.data.sources.folder import FileSource
from randfeat.probes import (
    PCK,
    Chart,
    CorrespondenceResult,
    KeypointPair,
    Protocol,
    Record,
    correspondence_sheet,
    evaluate_pairs,
    extremes,
    match_pair,
    pck,
    read_spair,
)
from randfeat.utils import distributed
from randfeat.utils.drawing import png

from .baselines import DenseFeatures, dense_baselines, dense_features, dense_noise, random_weights
from .inputs import ProbedModel, display_names, given_names, open_all
from .pictures import PictureReader, picture_lookup
from .tables import write

SHOWN = 4  # pairs on the page, of the best and of the worst


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matches of one model, by the feature spec that was chosen."""

    pck: PCK
    chosen: str
    search: dict[str, float]
    seconds: float

    def of_pairs(self, rows: np.ndarray) -> PCK:
        """Return the scores of some pairs. rows: a mask over all."""
        all_of = self.pck
        return PCK(all_of.alphas, all_of.categories[rows], all_of.points[rows], all_of.lost[rows], all_of.found[rows])


def run(args: argparse.Namespace) -> None:
    """Match the same pairs by every model, baseline and chance, and write records and table into `args.out`."""
    given_names(args.what, args)
    root = Path(args.data)
    scored = read_spair(root, args.test)
    choosing = read_spair(root, args.validation) if len(args.spec) > 1 else []
    used = {path for pair in (*scored, *choosing) for path in (pair.source, pair.target)}
    source = FileSource(args.data, root, sorted(path.relative_to(root).as_posix() for path in used))
    with distributed.ended_by_sigterm(), distributed.group():
        models = open_all(args.what, [source], args, dense=True)
        fresh = random_weights(models, [source], args.spec, args, dense=True) if args.baselines else []
        if distributed.rank() > 0:  # only extraction is shared among processes
            return
    everyone = [*models, *fresh]
    entries = [dense_features(one, name) for one, name in zip(everyone, display_names(everyone), strict=True)]
    if args.baselines:
        entries += dense_baselines([PictureReader(source, source.paths)], models)
    entries.append(dense_noise(entries[0], args.seed))
    found = [_match(entry, source, scored, choosing, args) for entry in entries]
    common = np.all([one.pck.points > 0 for one in found], axis=0)  # models may crop differently
    if not common.any():
        raise ValueError(f"no pair of {args.data} has a point that all models see: give other models")
    pairs = [pair for pair, here in zip(scored, common, strict=True) if here]
    records = _records(entries, found, common, pairs, source, everyone, len(models), args)
    charts = [_chart(records[i], entries[i], found[i].chosen, pairs, source, args) for i, _ in enumerate(models)]
    write(records, args.out, args.data, picture_lookup([source]), charts)


def _match(
    entry: DenseFeatures,
    source: FileSource,
    scored: Sequence[KeypointPair],
    choosing: Sequence[KeypointPair],
    args: argparse.Namespace,
) -> MatchResult:
    """Choose among feature specs on the pairs `choosing`, and match the scored pairs by the best."""
    start, (by_spec,) = time.perf_counter(), entry.parts

    def matched(spec: str, pairs: Sequence[KeypointPair]) -> PCK:
        return pck(pairs, _map_lookup(entry, spec, source, args), tuple(args.alphas), entry.place, args.upsample)

    search = {one: float(matched(one, choosing).per_image()[0]) for one in by_spec} if choosing else {}
    chosen = max(search, key=lambda one: search[one]) if search else next(iter(by_spec))
    return MatchResult(matched(chosen, scored), chosen, search, time.perf_counter() - start)


def _map_lookup(
    entry: DenseFeatures, spec: str, source: FileSource, args: argparse.Namespace
) -> Callable[[Path], np.ndarray]:
    """Return the function from a picture's path to its map."""
    row_of, root = {path: row for row, path in enumerate(source.paths)}, Path(args.data)
    maps = entry.parts[0][spec]
    return lambda path: maps[row_of[path.relative_to(root).as_posix()]]


def _records(
    entries: Sequence[DenseFeatures],
    found: Sequence[MatchResult],
    common: np.ndarray,
    pairs: Sequence[KeypointPair],
    source: FileSource,
    everyone: Sequence[ProbedModel],
    models: int,
    args: argparse.Namespace,
) -> list[Record]:
    """Return the saved records of all entries on their common pairs. models: how many of `everyone` are no baseline."""
    root = Path(args.data)
    paths = [f"{pair.source.relative_to(root)}:{pair.target.relative_to(root)}" for pair in pairs]
    how = Protocol(seed=args.seed, draws=args.resamples)
    settings = {"alphas": args.alphas, "upsample": args.upsample, "pairs of": args.test}
    records = []
    for number, (entry, one) in enumerate(zip(entries, found, strict=True)):
        own = settings | {"baseline": number >= models}
        prints = {"data": source.fingerprint()}
        if number < len(everyone):
            prints["features"] = everyone[number].stores[0].fingerprint(one.chosen)
        chosen = one.chosen if one.search else ""
        record = evaluate_pairs(
            entry.name, one.of_pairs(common), paths, one.seconds, how, own, prints, chosen, one.search
        )
        record.save(args.out)
        records.append(record)
    return records


def _chart(
    record: Record,
    entry: DenseFeatures,
    spec: str,
    pairs: Sequence[KeypointPair],
    source: FileSource,
    args: argparse.Namespace,
) -> Chart:
    """Return the pairs with the most and with the fewest points found."""
    map_of, root = _map_lookup(entry, spec, source, args), Path(args.data)
    best, worst = extremes(record.arrays["right"], record.arrays["truth"], SHOWN)
    row_of = {path: row for row, path in enumerate(source.paths)}
    sheet = []
    for row in (*best, *worst):
        pair = pairs[row]
        matches = match_pair(pair, map_of, entry.place, args.upsample)
        ends = [source.read(row_of[path.relative_to(root).as_posix()]) for path in (pair.source, pair.target)]
        points, wanted = pair.source_points[matches.inside], pair.target_points[matches.inside]
        caption = f"{pair.category} · {100 * record.arrays['right'][row]:.0f} %"
        sheet.append(
            CorrespondenceResult(*ends, points, matches.found, wanted, matches.error < args.alphas[0], caption)
        )
    caption = (
        f"The {len(best)} best pairs, then the worst. Lines go to where a point was found: green within "
        f"{args.alphas[0]:g} of the box, else red, with a ring where it belongs."
    )
    return Chart("Matches", caption, png(correspondence_sheet(sheet)), record.name)
