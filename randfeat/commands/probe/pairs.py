"""Models through pairs of pictures with the same points, each with a record."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from randfeat import processes
from randfeat.encoders import Encoder, PipelineEncoder
from randfeat.probes import PCK, Pair, Placement, Protocol, evaluate_pairs, pck, read_spair, stretched
from randfeat.sources.folder import FileSource

from .inputs import Contender, names, open_contender
from .measuring import DENSE_SPECS, random_weights, write

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
    everyone = [*contenders, *fresh]
    found = [
        _match(contender, name, scored, choosing, args, contender in fresh)
        for contender, name in zip(everyone, names(everyone), strict=True)
    ]
    found.append(_match(contenders[0], "chance (noise)", scored, [], args, baseline=True, noise=True))
    common = np.all([one.pck.points > 0 for one in found], axis=0)  # models may crop differently
    if not common.any():
        raise ValueError(f"no pair of {args.data} has a point that all models see: give others")
    paths = [f"{pair.source.relative_to(root)}:{pair.target.relative_to(root)}" for pair in scored]
    how = Protocol(seed=args.seed, draws=args.draws)
    settings = {"alphas": args.alphas, "upsample": args.upsample, "pairs of": args.pairs}
    records = []
    for one in found:
        own = settings | {"baseline": one.baseline}
        kept, there = _only(one.pck, common), [path for path, here in zip(paths, common, strict=True) if here]
        record = evaluate_pairs(one.name, kept, there, one.seconds, how, own, one.prints, one.chosen, one.search)
        record.save(args.out)
        records.append(record)
    write(records, args.out)


@dataclass(frozen=True, eq=False)
class _Found:
    """What one model matched, and how its reading was chosen."""

    name: str
    pck: PCK
    chosen: str
    search: dict[str, float]
    prints: dict[str, str]
    seconds: float
    baseline: bool


def _match(
    contender: Contender,
    name: str,
    scored: Sequence[Pair],
    choosing: Sequence[Pair],
    args: argparse.Namespace,
    baseline: bool,
    noise: bool = False,
) -> _Found:
    """noise: features of the same sizes that mean nothing, in place of the model's."""
    start = time.perf_counter()
    if contender.encoder is None:
        raise ValueError(f"{contender.text} is a store, which does not say how pictures were cropped: give the model")
    store, root = contender.stores[0], Path(args.data)
    if unread := store.skipped:
        raise ValueError(f"{unread[0][0]} cannot be read ({unread[0][1]}): get it again")
    row_of, place = {path: row for row, path in enumerate(store.paths)}, placement(contender.encoder)

    def matched(spec: str, pairs: Sequence[Pair]) -> PCK:
        maps = store.as_numpy(spec)
        if maps.ndim != 4:
            raise ValueError(f"{spec} gives no dense map: choose the pool none")

        def dense(path: Path) -> np.ndarray:
            row = row_of[path.relative_to(root).as_posix()]
            if noise:
                return np.random.default_rng([args.seed, row]).standard_normal((NOISE, *maps.shape[2:]))
            return maps[row]

        return pck(pairs, dense, tuple(args.alphas), place, args.upsample)

    search = {spec: float(matched(spec, choosing).per_image()[0]) for spec in contender.specs} if choosing else {}
    spec = max(search, key=lambda one: search[one]) if search else contender.specs[0]
    found = matched(spec, scored)
    prints = {"data": store.meta["source"]["fingerprint"]} | ({} if noise else {"features": store.fingerprint(spec)})
    return _Found(name, found, spec if search else "", search, prints, time.perf_counter() - start, baseline)


def _only(found: PCK, rows: np.ndarray) -> PCK:
    """The same of some pairs."""
    return PCK(found.alphas, found.categories[rows], found.points[rows], found.lost[rows], found.found[rows])


def placement(encoder: Encoder) -> Callable[[tuple[int, int]], Placement]:
    """Where an encoder's preparation puts a picture of a size (width, height)."""
    if isinstance(encoder, PipelineEncoder):
        return partial(_covering, encoder.pipeline.image_size, 1.0)
    config = encoder.prepare.config  # type: ignore[attr-defined]
    if config.get("crop_mode", "center") == "squash":
        return stretched
    if config.get("crop_mode", "center") != "center":
        raise ValueError(f"{encoder.name} pads its pictures, and points cannot be followed there: choose another model")
    return partial(_covering, tuple(config["input_size"][1:]), config["crop_pct"])


def _covering(target: tuple[int, int], share: float, size: tuple[int, int]) -> Placement:
    """A picture (width, height) is scaled until it covers `target` (height, width) over `share`, and cropped at the
    centre to the target; in pixels of the picture."""
    (height, width), (across, down) = target, size
    scale = max(width / across, height / down) / share
    seen = width / scale, height / scale
    return Placement((1.0, 1.0), ((seen[0] - across) / 2, (seen[1] - down) / 2), seen)
