"""Models through pairs of pictures with the same points, each with a record."""

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
    Matched,
    Pair,
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

from .baselines import Dense, dense_noise, dense_of, dense_references
from .inputs import names, open_contender
from .pictures import Reader
from .showing import pictures_of
from .tables import random_weights, write

PAIRS = 4  # shown, of the best and of the worst


def measure(args: argparse.Namespace) -> None:
    """Every model, and chance, on the same pairs; what is written lies in `args.out`."""
    root = Path(args.data)
    scored, choosing = read_spair(root, args.pairs), read_spair(root, args.choose_on) if len(args.spec) > 1 else []
    used = {path for pair in (*scored, *choosing) for path in (pair.source, pair.target)}
    source = FileSource(args.data, root, sorted(path.relative_to(root).as_posix() for path in used))
    with distributed.ended_by_sigterm(), distributed.group():
        contenders = [open_contender(text, [source], args.spec, args, dense=True) for text in args.what]
        fresh = random_weights(contenders, [source], args.spec, args, dense=True) if args.baselines else []
        if distributed.rank() > 0:  # it has read its share
            return
    everyone = [*contenders, *fresh]
    entries = [dense_of(one, name) for one, name in zip(everyone, names(everyone), strict=True)]
    if args.baselines:
        entries += dense_references([Reader(source, source.paths)], contenders)
    entries.append(dense_noise(entries[0], args.seed))
    found = [_match(entry, source, scored, choosing, args) for entry in entries]
    common = np.all([one.pck.points > 0 for one in found], axis=0)  # models may crop differently
    if not common.any():
        raise ValueError(f"no pair of {args.data} has a point that all models see: give others")
    paths = [f"{pair.source.relative_to(root)}:{pair.target.relative_to(root)}" for pair in scored]
    kept = [path for path, here in zip(paths, common, strict=True) if here]
    how = Protocol(seed=args.seed, draws=args.draws)
    settings = {"alphas": args.alphas, "upsample": args.upsample, "pairs of": args.pairs}
    records = []
    for number, (entry, one) in enumerate(zip(entries, found, strict=True)):
        own = settings | {"baseline": number >= len(contenders)}
        prints = {"data": source.fingerprint()}
        if number < len(everyone):
            prints["features"] = everyone[number].stores[0].fingerprint(one.chosen)
        chosen = one.chosen if one.search else ""
        record = evaluate_pairs(
            entry.name, _only(one.pck, common), kept, one.seconds, how, own, prints, chosen, one.search
        )
        record.save(args.out)
        records.append(record)
    pairs = [pair for pair, here in zip(scored, common, strict=True) if here]
    charts = [_chart(records[i], entries[i], found[i].chosen, pairs, source, args) for i, _ in enumerate(contenders)]
    write(records, args.out, args.data, pictures_of([source]), charts)


@dataclass(frozen=True, eq=False)
class _Found:
    """How one of them matched, by the reading that was chosen."""

    pck: PCK
    chosen: str
    search: dict[str, float]
    seconds: float


def _chart(
    record: Record, entry: Dense, reading: str, pairs: Sequence[Pair], source: FileSource, args: argparse.Namespace
) -> Chart:
    """Return the pairs with the most and with the fewest points found."""
    dense, root = _dense(entry, reading, source, args), Path(args.data)
    best, worst = extremes(record.arrays["right"], record.arrays["truth"], PAIRS)
    row_of = {path: row for row, path in enumerate(source.paths)}
    sheet = []
    for row in (*best, *worst):
        pair = pairs[row]
        matches = match_pair(pair, dense, entry.place, args.upsample)
        ends = [source.read(row_of[path.relative_to(root).as_posix()]) for path in (pair.source, pair.target)]
        points, wanted = pair.source_points[matches.inside], pair.target_points[matches.inside]
        caption = f"{pair.category} · {100 * record.arrays['right'][row]:.0f} %"
        sheet.append(Matched(*ends, points, matches.found, wanted, matches.error < args.alphas[0], caption))
    caption = (
        f"The {len(best)} best pairs, then the worst. Lines go to where a point was found: green within "
        f"{args.alphas[0]:g} of the box, else red, with a ring where it belongs."
    )
    return Chart("Matches", caption, png(correspondence_sheet(sheet)), record.name)


def _dense(entry: Dense, reading: str, source: FileSource, args: argparse.Namespace) -> Callable[[Path], np.ndarray]:
    """Return the path of a picture -> its map."""
    row_of, root = {path: row for row, path in enumerate(source.paths)}, Path(args.data)
    maps = entry.parts[0][reading]
    return lambda path: maps[row_of[path.relative_to(root).as_posix()]]


def _match(
    entry: Dense, source: FileSource, scored: Sequence[Pair], choosing: Sequence[Pair], args: argparse.Namespace
) -> _Found:
    start, (by_reading,) = time.perf_counter(), entry.parts

    def matched(reading: str, pairs: Sequence[Pair]) -> PCK:
        return pck(pairs, _dense(entry, reading, source, args), tuple(args.alphas), entry.place, args.upsample)

    search = {one: float(matched(one, choosing).per_image()[0]) for one in by_reading} if choosing else {}
    chosen = max(search, key=lambda one: search[one]) if search else next(iter(by_reading))
    return _Found(matched(chosen, scored), chosen, search, time.perf_counter() - start)


def _only(found: PCK, rows: np.ndarray) -> PCK:
    """Return the same of some pairs."""
    return PCK(found.alphas, found.categories[rows], found.points[rows], found.lost[rows], found.found[rows])
