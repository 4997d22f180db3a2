"""Makes one part of all that an index holds, of the kind that was asked for when it was built, without the images that
were removed.

Added images lie in parts of their own, which are compared one by one, and removed ones are crossed out; after many
changes an index is slower and larger than it need be. Who searches meanwhile sees the index as it was, and the same
images under the same ids afterwards.

examples:
  randfeat index compact photos.index
"""

from __future__ import annotations

import argparse

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index compact INDEX [--memory GB]"
    options.add_index(parser)
    options.add_memory(parser)


def run(args: argparse.Namespace) -> None:
    from randfeat.index import Index

    index = Index.open(args.index)
    before = index.stats()["bytes"]
    if not index.compact(options.memory(args), shown=True):
        print(f"{args.index} is compact already")
        return
    after = index.stats()["bytes"]
    print(f"{len(index):,} images in {args.index}: {index.index_type} ({index.meta['reason']})")
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
