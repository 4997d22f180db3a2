"""Models through pairs of pictures with the same points, each with a record."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from randfeat import processes
from randfeat.probes import PCK, Pair, Protocol, evaluate_pairs, pck, read_spair
from randfeat.sources.folder import FileSource

from .dense import dense_references, grid_of, place_of
from .inputs import Contender, names, open_contender
from .measuring import DENSE_SPECS, random_weights, write
from .placing import Place
from .reading import Reader

NOISE = 16  # dimensions of features that mean nothing


def measure(args: argparse.Namespace) -> None:
    """Every model, and chance, on the same pairs; what is written lies in `args.out`."""
    root, specs = Path(args.data), args.spec or DENSE_SPECS
    scored, choosing = read_spair(root, args.pairs), read_spair(root, args.choose_on) if len(args.spec) > 1 else []
    used = {path for pair in (*scored, *choosing) for path in (pair.source, pair.target)}
    source = FileSource(args.data, root, sorted(path.relative_to(root).as_posix() for path in used))
    with processes.ended_by_sigterm(), processes.group():
        contenders = [open_contender(text, [source], specs, args) for text in args.what]
        fresh = random_weights(contenders, [source], specs, args) if args.baselines else []
        if processes.rank() > 0:  # it has read its share
            return
    entries = _entries(contenders, source, args) + _entries(fresh, source, args, baseline=True)
    if args.baselines:
        entries += _references(contenders, source)
    entries.append(_noise(entries[0], args.seed))
    found = [_match(entry, source, scored, choosing, args) for entry in entries]
    common = np.all([one.pck.points > 0 for one in found], axis=0)  # models may crop differently
    if not common.any():
        raise ValueError(f"no pair of {args.data} has a point that all models see: give others")
    paths = [f"{pair.source.relative_to(root)}:{pair.target.relative_to(root)}" for pair in scored]
    kept = [path for path, here in zip(paths, common, strict=True) if here]
    how = Protocol(seed=args.seed, draws=args.draws)
    settings = {"alphas": args.alphas, "upsample": args.upsample, "pairs of": args.pairs}
    records = []
    for entry, one in zip(entries, found, strict=True):
        own = settings | {"baseline": entry.baseline}
        prints = {"data": source.fingerprint()} | ({} if not entry.prints else {"features": entry.prints[one.chosen]})
        chosen = one.chosen if one.search else ""
        record = evaluate_pairs(
            entry.name, _only(one.pck, common), kept, one.seconds, how, own, prints, chosen, one.search
        )
        record.save(args.out)
        records.append(record)
    write(records, args.out)


@dataclass(frozen=True, eq=False)
class _Entry:
    """What is matched: by reading the maps (n, D, h, w) of all pictures of a source and their fingerprints, and what of
    a picture they cover."""

    name: str
    maps: dict[str, np.ndarray]
    place: Place
    baseline: bool
    prints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Found:
    """How one of them matched, by the reading that was chosen."""

    pck: PCK
    chosen: str
    search: dict[str, float]
    seconds: float


def _entries(
    contenders: Sequence[Contender], source: FileSource, args: argparse.Namespace, baseline: bool = False
) -> list[_Entry]:
    made = []
    for contender, name in zip(contenders, names(contenders), strict=True):
        place, store = place_of(contender), contender.stores[0]
        if unread := store.skipped:
            raise ValueError(f"{unread[0][0]} cannot be read ({unread[0][1]}): get it again")
        maps = {spec: store.as_numpy(spec) for spec in contender.specs}
        if flat := next((spec for spec, x in maps.items() if x.ndim != 4), None):
            raise ValueError(f"{flat} gives no dense map: choose the pool none")
        made.append(_Entry(name, maps, place, baseline, {spec: store.fingerprint(spec) for spec in maps}))
    return made


def _references(contenders: Sequence[Contender], source: FileSource) -> list[_Entry]:
    """Pixels, edges, colours, tokens and the same place. The first contender says which part of a picture is seen."""
    reader, first = Reader(source, source.paths), contenders[0]
    made = dense_references([reader], contenders, grid_of(first), place_of(first))
    return [_Entry(one.name, one.parts[0], one.place, True) for one in made]


def _noise(entry: _Entry, seed: int) -> _Entry:
    """Chance: maps of the same sizes that mean nothing."""
    n, _, h, w = next(iter(entry.maps.values())).shape
    noise = np.random.default_rng(seed).standard_normal((n, NOISE, h, w), dtype=np.float32)
    return _Entry("chance (noise)", {"noise": noise}, entry.place, True)


def _match(
    entry: _Entry, source: FileSource, scored: Sequence[Pair], choosing: Sequence[Pair], args: argparse.Namespace
) -> _Found:
    start, root = time.perf_counter(), Path(args.data)
    row_of = {path: row for row, path in enumerate(source.paths)}

    def matched(reading: str, pairs: Sequence[Pair]) -> PCK:
        maps = entry.maps[reading]
        return pck(
            pairs,
            lambda path: maps[row_of[path.relative_to(root).as_posix()]],
            tuple(args.alphas),
            entry.place,
            args.upsample,
        )

    search = {one: float(matched(one, choosing).per_image()[0]) for one in entry.maps} if choosing else {}
    chosen = max(search, key=lambda one: search[one]) if search else next(iter(entry.maps))
    return _Found(matched(chosen, scored), chosen, search, time.perf_counter() - start)


def _only(found: PCK, rows: np.ndarray) -> PCK:
    """The same of some pairs."""
    return PCK(found.alphas, found.categories[rows], found.points[rows], found.lost[rows], found.found[rows])
