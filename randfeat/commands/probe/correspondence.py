"""Semantic correspondence of one model or several on the pairs of SPair-71k, or of anything with its layout."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_machine

if TYPE_CHECKING:
    from randfeat.encoders import Encoder
    from randfeat.probes import PCK, Pair, Placement, Protocol, Record

    from .inputs import Contender


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe correspondence MODEL [MODEL ...] SPAIR -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models that read dense maps, see `randfeat probe --help`"
    )
    parser.add_argument("data", metavar="SPAIR", help="the folder with JPEGImages and PairAnnotation")
    parser.add_argument(
        "--spec",
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="how models are read, with the pool `none`; of several the best one is chosen on the pairs of --choose-on",
    )
    parser.add_argument("--pairs", default="test", metavar="PART", help="which pairs are scored (test)")
    parser.add_argument("--choose-on", default="val", metavar="PART", help="which pairs choose among specs (val)")
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.1, 0.05], metavar="X", help="of PCK (0.1 0.05)")
    parser.add_argument("--upsample", type=int, default=1, metavar="N", help="enlarge maps N times before matching (1)")
    parser.add_argument("--baselines", action="store_true", help="add random weights of each model")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and draws (0)")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="resamples of a bootstrap (2000)")
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    from randfeat import processes
    from randfeat.probes import Protocol, read_spair
    from randfeat.sources.folder import FileSource

    from .inputs import names, open_contender
    from .measuring import DENSE_SPECS, random_weights, write

    root, specs = Path(args.data), args.spec or DENSE_SPECS
    scored, choosing = read_spair(root, args.pairs), read_spair(root, args.choose_on) if len(args.spec) > 1 else []
    used = {path for pair in (*scored, *choosing) for path in (pair.source, pair.target)}
    source = FileSource(args.data, root, sorted(path.relative_to(root).as_posix() for path in used))
    with processes.ended_by_sigterm(), processes.group():
        contenders = [open_contender(text, [source], specs, args) for text in args.what]
        fresh = random_weights(contenders, [source], specs, args) if args.baselines else []
        if processes.rank() > 0:  # it has read its share
            return
    records = []
    everyone = [*contenders, *fresh]
    for contender, name in zip(everyone, names(everyone), strict=True):
        how = Protocol(seed=args.seed, draws=args.draws)
        record = _measured(contender, name, scored, choosing, how, args, contender in fresh)
        record.save(args.out)
        records.append(record)
    write(records, args.out, None)


def _measured(
    contender: Contender,
    name: str,
    scored: Sequence[Pair],
    choosing: Sequence[Pair],
    how: Protocol,
    args: argparse.Namespace,
    baseline: bool,
) -> Record:
    from randfeat.probes import evaluate_pairs

    start = time.perf_counter()
    store = contender.stores[0]
    score = partial(_pck, contender, args=args)
    search = {spec: float(score(spec, choosing).per_image()[0]) for spec in contender.specs} if choosing else {}
    spec = max(search, key=lambda one: search[one]) if search else contender.specs[0]
    found = score(spec, scored)
    root = Path(args.data)
    paths = [f"{pair.source.relative_to(root)}:{pair.target.relative_to(root)}" for pair in scored]
    own = {"baseline": baseline, "alphas": args.alphas, "upsample": args.upsample, "pairs of": args.pairs}
    prints = {"features": store.fingerprint(spec), "data": store.meta["source"]["fingerprint"]}
    seconds = time.perf_counter() - start
    return evaluate_pairs(name, found, paths, seconds, how, own, prints, spec if search else "", search)


def _pck(contender: Contender, spec: str, pairs: Sequence[Pair], args: argparse.Namespace) -> PCK:
    from randfeat.probes import pck

    if contender.encoder is None:
        raise ValueError(f"{contender.text} is a store, which does not say how pictures were cropped: give the model")
    store, root = contender.stores[0], Path(args.data)
    maps, row_of = store.as_numpy(spec), {path: row for row, path in enumerate(store.paths)}
    if maps.ndim != 4:
        raise ValueError(f"{spec} gives no dense map: choose the pool none")
    if unread := store.skipped:
        raise ValueError(f"{unread[0][0]} cannot be read ({unread[0][1]}): get it again")
    place = placement(contender.encoder)
    return pck(
        pairs,
        lambda path: maps[row_of[path.relative_to(root).as_posix()]],
        tuple(args.alphas),
        place,
        args.upsample,
    )


def placement(encoder: Encoder) -> Callable[[tuple[int, int]], Placement]:
    """Where an encoder's preparation puts a picture of a size (width, height)."""
    from randfeat.encoders import PipelineEncoder
    from randfeat.probes import stretched

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
    from randfeat.probes import Placement

    (height, width), (across, down) = target, size
    scale = max(width / across, height / down) / share
    seen = width / scale, height / scale
    return Placement((1.0, 1.0), ((seen[0] - across) / 2, (seen[1] - down) / 2), seen)
