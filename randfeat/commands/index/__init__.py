"""An index of images by what a model sees in them, for `randfeat search` and `randfeat app`.

  randfeat index build INDEX DATA --model MODEL     read the images of DATA with MODEL, and index them
  randfeat index sync INDEX DATA                    add what is new in DATA, read again what changed, drop what is gone
  randfeat index add INDEX DATA                     the same without dropping, for DATA of any form
  randfeat index remove INDEX PATH ...              drop images, folders or patterns of them
  randfeat index compact INDEX                      one quick part of what was added, without what was removed
  randfeat index stats | verify | bench INDEX       what it is, whether it is whole, how quick and how exact it is

INDEX is a directory, which faiss, parquet and JSON files make up. It is changed as a whole or not at all, whenever the
process is killed; who reads it meanwhile sees what it was. One process writes at a time, the next one is told.

examples:
  randfeat index build photos.index photos --model arpg-l
  randfeat search photos.index photos/cat.jpg
  randfeat index sync photos.index photos

`randfeat index ACTION --help` has the options of each.
"""

from __future__ import annotations

import argparse
from importlib import import_module

HOW_TO_RESUME = "The index is as it was. Run the same command again: images that are read already are kept."

# ACTION -> what it does; the module of the same name runs it
ACTIONS = {
    "build": "read images with a model, and make an index of them",
    "add": "read more images into an index, and those that have changed",
    "sync": "bring an index up to date with a folder: add, read again, drop",
    "remove": "drop images, folders or patterns of them from an index",
    "compact": "make one part of all that was added, without what was removed",
    "stats": "what an index is, and what it is made of",
    "verify": "read all of an index, and say whether it is as it was written",
    "bench": "recall, build time, memory and queries a second of each kind of index, on its rows or on synthetic ones",
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        module = import_module(f".{name}", __package__)
        formatter = argparse.RawDescriptionHelpFormatter
        sub = actions.add_parser(name, help=summary, description=module.__doc__, formatter_class=formatter)
        sub.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        sub.set_defaults(parser=sub)
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> int | None:
    from randfeat.utils import distributed, progress

    with progress.warnings_as_lines(), distributed.ended_by_sigterm():
        return import_module(f".{args.action}", __package__).run(args)
