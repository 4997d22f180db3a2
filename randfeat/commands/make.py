"""Make a data set of real images, without a download.

digits: 1,797 handwritten digits that ship with scikit-learn, 8 x 8 pixels, 14 writers.
cluttered: the digits at random positions, sizes and angles among pieces of others, 16 x 16 pixels.
letters: a to z in the typefaces that are installed, 24 x 24 pixels. More packages of fonts make more letters.
photographs: crops of photographs that ship with Python packages and desktop backgrounds, 32 x 32 pixels or --size; the
class is the photograph. More packages of backgrounds make more photographs.
fashion: Fashion-MNIST, 60,000 + 10,000 grey images of 28 x 28 pixels of ten classes (Zalando, MIT licence), from
Debian's package dataset-fashion-mnist, or from elsewhere (--from).

The first four are PNG files and a table metadata.csv with the columns path, label, split and a group (writer, design or
part) that lies on one side of the split: give it to `randfeat probe` as --group. Letters and photographs take about a
minute. fashion is four IDX files, which every command reads; it has no groups, and the split of its authors.
The folder appears when it is complete; a folder of something else is left alone.

examples:
  randfeat make digits -o digits
  randfeat probe all timm:vit_tiny_patch16_224 digits --group writer -o measured
  randfeat make letters -o letters --split-seed 1
  randfeat make photographs --size 64 -o photographs
  randfeat make fashion -o fashion
"""

from __future__ import annotations

import argparse
from typing import Any

from . import options

HOW_TO_RESUME = "Nothing was written: the same command begins again."
SETS = ("digits", "cluttered", "letters", "photographs", "fashion")
ONLY = {"--size": ("photographs",), "--from": ("fashion",), "--split-seed": SETS[:-1], "--seed": SETS[:-1]}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat make`."""
    parser.add_argument("set", choices=SETS, metavar="SET", help=", ".join(SETS))
    options.add_out(parser)
    options.add_seed(parser, "positions, sizes and angles")
    parser.add_argument("--split-seed", type=int, metavar="S", help="seed of another split into train and test")
    parser.add_argument("--size", type=int, metavar="N", help="pixels of a side, of photographs (32)")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="folder with the IDX files of fashion, or hub, which downloads it (Debian's package)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the folder, unless it is there already."""
    from ..data.builtin import base

    how, settings = _how(args)
    if base.is_made(args.out, settings):
        print(f"{args.out} is made already")
        return
    from ..data import builtin

    made = builtin.DATASETS[args.set](**how)
    (builtin.write_fashion if args.set == "fashion" else builtin.write_folder)(made, args.out, settings)
    groups = "" if args.set == "fashion" else f", {len(made.group_names)} groups ({made.group_kind})"
    counts = f"{len(made)} images, {int(made.test.sum())} of them for test, {len(made.classes)} classes"
    print(f"{args.out}: {counts}{groups}")


def _how(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of the function that makes the set, and the settings of what it makes.

    Raises a ValueError for a flag that the set does not have, or one out of range.
    """
    from ..data.builtin import photographs
    from ..utils import checks

    given = {"--size": args.size, "--from": args.source, "--split-seed": args.split_seed, "--seed": args.seed or None}
    for flag, value in given.items():
        if value is not None and args.set not in ONLY[flag]:
            raise ValueError(f"{flag} is of {', '.join(ONLY[flag])}: leave it out for {args.set}")
    if args.set == "fashion":
        return {"folder": args.source}, {"set": args.set}
    checks.check_whole_number("seed", args.seed, 0)
    checks.check_whole_number("split seed", args.split_seed or 0, 0)
    how = {"seed": args.seed, "split_seed": args.split_seed}
    if args.size is not None:
        how["size"] = args.size
    recorded = {key: value for key, value in how.items() if (key, value) != ("size", photographs.SIDE)}
    return how, {"set": args.set, **recorded}  # without the size that was the only one once
