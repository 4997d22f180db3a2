"""Drops images from an index; the files stay where they are.

PATH is an image, a folder, of which all images are dropped, or a pattern: `*` stands for any characters, `?` for one;
a pattern that is not absolute describes the end of a path. What was dropped is gone from every search at once, and its
room is given back by `randfeat index compact`.

examples:
  randfeat index remove photos.index photos/blurred.jpg photos/2019
  randfeat index remove photos.index 'screenshots/*.png'
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from randfeat.index import Index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index remove INDEX PATH ..."
    options.add_index(parser)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders, patterns")


def run(args: argparse.Namespace) -> None:
    from randfeat.index import Index

    index = Index.open(args.index)
    which = {id_ for path in args.paths for id_ in named(index, path)}
    removed = index.remove(sorted(which))
    print(f"{removed:,} removed; {len(index):,} images in {args.index}")


def named(index: Index, path: str) -> list[int]:
    """Ids of the image, the folder or the pattern; a ValueError if there is none."""
    import glob

    from randfeat.index import Filter

    whole = os.path.abspath(path)  # noqa: PTH100
    exact = [id_ for id_ in index.find([path, whole]) if id_ is not None]
    for pattern in (f"{glob.escape(whole)}/*", path):
        exact = exact or index.ids(Filter(paths=pattern))
    if not exact:
        raise ValueError(f"{index.directory} holds nothing called {path}: give an image, a folder or a pattern")
    return exact
