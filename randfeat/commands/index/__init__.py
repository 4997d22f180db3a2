"""Build, update and measure an index of images by their features, for `randfeat search` and `randfeat app`.

  randfeat index build INDEX DATA --model MODEL     read the images of DATA with MODEL, and index them
  randfeat index sync INDEX DATA                    add what is new in DATA, read again what changed, drop what is gone
  randfeat index add INDEX DATA                     the same without dropping, for DATA of any form
  randfeat index remove INDEX PATH ...              drop images, folders or patterns of them
  randfeat index compact INDEX                      rebuild as one quick part, without the removed images
  randfeat index duplicates INDEX                   find images that are all but the same
  randfeat index select INDEX --count N             choose images that differ most from each other
  randfeat index export INDEX --to lancedb:PATH     write its rows to a table of LanceDB
  randfeat index stats | verify | bench INDEX       describe it, check its files, measure speed and recall

INDEX is a directory of faiss, parquet and JSON files. A change is made completely or not at all, whenever the process
is killed; a search meanwhile sees the index as it was. One process writes at a time, a second one is refused.

examples:
  randfeat index build photos.index photos --model arpg-l
  randfeat search photos.index photos/cat.jpg
  randfeat index sync photos.index photos

`randfeat index ACTION --help` has the options of each.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import NamedTuple

from .. import options

HOW_TO_RESUME = "The index is as it was. Run the same command again: images that are read already are kept."


class Action(NamedTuple):
    """One action of the command. module: the one here that has its arguments, its help and its run."""

    module: str
    summary: str


ACTIONS = {
    "build": Action("change", "read images with a model, and make an index of them"),
    "add": Action("change", "read more images into an index, and those that have changed"),
    "sync": Action("change", "bring an index up to date with a folder: add, read again, drop"),
    "remove": Action("change", "drop images, folders or patterns of them from an index"),
    "compact": Action("change", "rebuild an index as one part, without the removed images"),
    "duplicates": Action("clean", "find images that are all but the same, with a threshold from the scores"),
    "select": Action("clean", "choose images that differ most from each other"),
    "export": Action("export", "write ids, vectors, paths and labels of an index to a table of LanceDB"),
    "stats": Action("inspect", "describe an index and its parts"),
    "verify": Action("inspect", "read all files of an index, and compare them with their checksums"),
    "bench": Action("inspect", "measure recall, build time, memory and queries a second of each type of index"),
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add a subparser for each action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        module = import_module(f".{action.module}", __package__)
        sub = options.add_action(actions, name, action.summary, module.HELP[name])
        module.add_arguments(sub, name)


def run(args: argparse.Namespace) -> int | None:
    """Run one action."""
    from ...utils import distributed, progress

    with progress.warnings_as_lines(), distributed.ended_by_sigterm():
        module = import_module(f".{ACTIONS[args.action].module}", __package__)
        return module.RUN[args.action](args)
