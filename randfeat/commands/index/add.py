"""Reads the images of DATA into an index, with the model and the reading that it was built with.

Images that are in it already and have not changed since are left alone; those that have changed are read again and keep
their id. Nothing is removed: see `randfeat index sync`. DATA is what `randfeat extract` takes. After a kill the same
command goes on.

examples:
  randfeat index add photos.index more_photos
  randfeat index add digits.index demo/digits --split test

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from randfeat.index.images import Changes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index add INDEX DATA [options]"
    options.add_index(parser)
    options.add_data(parser)
    options.add_moved_model(parser)
    options.add_machine(parser)


def run(args: argparse.Namespace, drop: bool = False) -> int:
    from randfeat.index import Index, images

    index, source = Index.open(args.index), options.source(args)
    encoder = options.encoder(args, index) if images.plan(index, source, drop).to_read else None
    more = {"batch_size": args.batch_size, "workers": args.workers, "shown": True}
    changes = images.sync(index, source, encoder, drop=drop, **more)
    print(f"{summary(changes)}; {len(index):,} images in {args.index}")
    if index.wants_compaction():
        print(f"randfeat index compact {args.index} would make searching quicker")
    return options.say_skipped(changes.skipped)


def summary(changes: Changes) -> str:
    """Of what happened, what is not nothing."""
    counts = {
        "added": changes.added,
        "read again": changes.changed,
        "with another label": changes.relabelled,
        "removed": changes.removed,
        "unchanged": changes.unchanged,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing to do"


def listing(signs: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a line for each path, with the sign of what would happen to it."""
    return "\n".join(f"{sign} {path}" for sign, paths in signs for path in paths)
