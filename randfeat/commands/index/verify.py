"""Reads all files of an index, and says whether they are as they were written.

Every file is compared with the SHA-256 in meta.json; ids and paths must be there once. It takes as long as reading the
files does.

examples:
  randfeat index verify photos.index

exit code: 0 if all is well, 1 with a sentence that names the first thing that is not.
"""

from __future__ import annotations

import argparse

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index verify INDEX"
    options.add_index(parser)


def run(args: argparse.Namespace) -> None:
    from randfeat.index import Index

    index = Index.open(args.index)
    index.verify()
    print(f"{args.index} is whole: {len(index):,} images")
