"""Action that writes an index to a table of LanceDB."""

from __future__ import annotations

import argparse

from .. import options

# action -> its help
HELP = {
    "export": """Write the rows of INDEX to a new table of LanceDB: pip install 'randfeat[lancedb]'.

PLACE is lancedb:PATH, a folder, or an object store as LanceDB names it, lancedb:s3://bucket/folder. The table `images`
has the columns id, path, label, spec, model (a fingerprint) and vector. `randfeat search PLACE QUERY` searches it, or
LanceDB itself, with its versions and filters in SQL. From 100,000 rows on LanceDB makes an index of its own, whose
recall is its own, too; fewer rows are compared one by one.

examples:
  randfeat index export photos.index --to lancedb:photos
  randfeat search lancedb:photos photos/cat.jpg
""",
}


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of the action."""
    parser.usage = f"randfeat index {action} INDEX --to lancedb:PATH"
    options.add_index(parser)
    parser.add_argument("--to", required=True, metavar="PLACE", help="where to: lancedb:PATH")


def export(args: argparse.Namespace) -> None:
    """Write the table, and say how many rows it has."""
    from ...index import Index
    from ...index.lance import export

    made = export(Index.open(args.index), args.to)
    print(f"{args.to}: {len(made):,} rows of {made.width}, {made.metric}")


RUN = {"export": export}
