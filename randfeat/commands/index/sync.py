"""Brings an index up to date with DATA, a folder or a list of image files, as rsync brings a folder up to date.

Images that are new in DATA are read into the index; those with another size or time of change are read again and keep
their id; those that the index holds from below this folder, and DATA does not name any more, are dropped (with
--split also those of other splits). A new label is taken over without reading. What the index holds from elsewhere
stays. It all happens at once: until then, a search sees the index as it was. After a kill the same command goes on.

examples:
  randfeat index sync photos.index photos --dry-run
  randfeat index sync photos.index photos

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse

from . import add, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index sync INDEX DATA [options]"
    options.add_index(parser)
    options.add_data(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would happen: + added, ~ read again, = with another label, - dropped",
    )
    options.add_moved_model(parser)
    options.add_machine(parser)


def run(args: argparse.Namespace) -> int:
    if not args.dry_run:
        return add.run(args, drop=True)

    from randfeat.index import Index, images

    todo = images.plan(Index.open(args.index), options.source(args))
    of = [("+", todo.new), ("~", todo.changed), ("=", todo.relabelled)]
    signs = [(sign, todo.table["path"].take(numbers).to_pylist()) for sign, numbers in of if numbers]
    print(add.listing([*signs, ("-", [path for _, path in todo.gone])]) or "nothing to do")
    return 0
