"""Actions that help to clean data: duplicates and select."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import options

if TYPE_CHECKING:
    from ...index.duplicates import Group

AUTO = "auto"

# action -> its help
HELP = {
    "duplicates": """Find near-duplicates in an index: groups of images that are all but the same to its model.

Each image of a group scores --threshold or better with another one of it. By default the threshold is found from the
scores: copies lie much nearer to each other than images that are merely alike, and the threshold lies in that gap. It
is printed with what it was found by, and it is cautious: copies that were compressed again or scaled may need a lower
one. Where there is no gap, only images with the same features are named. Look at the page before anything is deleted.

Of each group the largest file is to be kept, and comes first. Files with its bytes are marked.

  table   a block for each group: score to the nearest other one, label, path
  json    threshold and groups
  paths   all images but the one to keep of each group, one a line
  html    one page with the pictures, and the scores of all images

examples:
  randfeat index duplicates photos.index --format html -o duplicates.html
  randfeat index duplicates photos.index --threshold 0.98
  randfeat index duplicates photos.index --format paths -o copies.txt
""",
    "select": """Choose images that differ most from each other, to look at or to label first.

The first image is the one nearest to the mean, each next one the farthest from those chosen before. How near every
image of the index is to a chosen one, at worst, is told on standard error.

  paths   a path a line, which every command takes as DATA (-o chosen.txt)
  csv     path and label, likewise
  json    path, label, score to the nearest one chosen before, and id

examples:
  randfeat index select photos.index --count 100 -o chosen.txt
  randfeat index select photos.index --count 20 --label cat --format csv
""",
}
FORMATS = {"duplicates": ("table", "json", "paths", "html"), "select": ("paths", "csv", "json")}


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of one action."""
    parser.usage = f"randfeat index {action} INDEX {'--count N ' if action == 'select' else ''}[options]"
    options.add_index(parser)
    if action == "duplicates":
        help = "score from which images are alike; of the metric l2, distance up to which (auto: found from the scores)"
        parser.add_argument("--threshold", default=AUTO, metavar="X", help=help)
    else:
        parser.add_argument("--count", type=int, required=True, metavar="N", help="images to choose")
        options.add_filters(parser)
    options.add_format(parser, FORMATS[action])
    options.add_out(parser, metavar="FILE", required=False)


# actions -------------------------------------------------------------------------------------------------------------


def duplicates(args: argparse.Namespace) -> None:
    """Print or write groups of near-duplicates."""
    import sys

    from ...index import Index
    from ...index.duplicates import group_of, suggest_threshold
    from ...index.grouping import check_threshold

    options.check_out_file(args)
    index, given = Index.open(args.index), _number(args.threshold)
    if given is not None:
        check_threshold(given, index.metric)
    found = suggest_threshold(index, shown=True) if given is None else None
    value = found.value if found is not None else given
    assert value is not None
    if found is not None:
        print(f"--threshold {value:.6g}: {found}", file=sys.stderr)
    groups = [group_of(index, matches) for matches in index.near_duplicates(value, shown=True)]
    if args.format == "html":
        from .duplicates_page import page

        written = page(index, groups, value, found)
    else:
        written = {"table": _table, "json": _json, "paths": _paths}[args.format](groups, value)
    options.write_or_print(args, written)


def select(args: argparse.Namespace) -> None:
    """Print or write images that differ most from each other."""
    import sys

    from ...data.store import as_csv
    from ...index import Filter, Index
    from ...index.diverse import farthest
    from ...index.query import labels_like

    options.check_out_file(args)
    index = Index.open(args.index)
    where = Filter(labels_like(args.label, [*index.labels()], str(args.index)), args.path)
    found, radius = farthest(index, args.count, where, shown=True)
    what = "has a cosine of at least" if index.metric == "cosine" else "has a distance of at most"
    chosen = f"{len(found):,} chosen" + (", all that there are" if len(found) < args.count else "")
    print(f"{chosen}; every image {what} {radius:.4g} to one of them", file=sys.stderr)
    if args.format == "csv":
        written = as_csv([("path", "label"), *((one.path, one.label or "") for one in found)]).decode()
    elif args.format == "json":
        rows = [one._asdict() | {"score": None if one.score != one.score else one.score} for one in found]
        written = json.dumps(rows, indent=2)
    else:
        written = "\n".join(one.path for one in found)
    options.write_or_print(args, written.rstrip("\n"))


RUN = {"duplicates": duplicates, "select": select}


# parts of the actions ------------------------------------------------------------------------------------------------


def _number(text: str) -> float | None:
    """Return --threshold as a number, None of "auto"."""
    if text == AUTO:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise ValueError(f"--threshold is a number, or {AUTO}, got {text}")
    return value


def _table(groups: Sequence[Group], threshold: float) -> str:
    if not groups:
        return "no near-duplicates"
    width = max(len(options.in_line(match.label or "")) for group in groups for match in group.matches)
    blocks = []
    for group in groups:
        lines = [f"{len(group.matches)} alike"]
        for place, (match, same) in enumerate(zip(group.matches, group.same, strict=True)):
            note = "keep" if not place else "same bytes" if same else ""
            label, path = options.in_line(match.label or ""), options.in_line(match.path)
            lines.append(f"  {match.score:8.5f}  {label:{width}}  {note:10}  {path}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _json(groups: Sequence[Group], threshold: float) -> str:
    found = [
        [
            {**match._asdict(), "same_bytes": same, "keep": not place}
            for place, (match, same) in enumerate(zip(group.matches, group.same, strict=True))
        ]
        for group in groups
    ]
    return json.dumps({"threshold": threshold, "groups": found}, indent=2)


def _paths(groups: Sequence[Group], threshold: float) -> str:
    return "\n".join(match.path for group in groups for match in group.matches[1:])
