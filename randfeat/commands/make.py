"""Make a small data set of real images, without a download: PNG files and a table metadata.csv.

digits: 1,797 handwritten digits that ship with scikit-learn, 8 x 8 pixels, 14 writers.
cluttered: the digits at random positions, sizes and angles among pieces of others, 16 x 16 pixels.
letters: a to z in the typefaces that are installed, 24 x 24 pixels. More packages of fonts make more letters.
photographs: crops of photographs that ship with Python packages, 32 x 32 pixels; the class is the photograph.

The table has the columns path, label, split and a group (writer, design or part) that lies on one side of the split:
give it to `randfeat probe` as --group. Letters and photographs take about a minute. The folder appears when it is
complete; a folder of something else is left alone.

examples:
  randfeat make digits -o digits
  randfeat probe all timm:vit_tiny_patch16_224 digits --group writer -o measured
  randfeat make letters -o letters --split-seed 1
"""

from __future__ import annotations

import argparse

from . import options

HOW_TO_RESUME = "Nothing was written: the same command begins again."
SETS = ("digits", "cluttered", "letters", "photographs")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat make`."""
    parser.add_argument("set", choices=SETS, metavar="SET", help=", ".join(SETS))
    options.add_out(parser)
    options.add_seed(parser, "positions, sizes and angles")
    parser.add_argument("--split-seed", type=int, metavar="S", help="seed of another split into train and test")


def run(args: argparse.Namespace) -> None:
    """Make the folder, unless it is there already."""
    from ..data.builtin import base
    from ..utils import checks

    settings = {"set": args.set, "seed": args.seed, "split_seed": args.split_seed}
    checks.check_whole_number("seed", args.seed, 0)
    checks.check_whole_number("split seed", args.split_seed or 0, 0)
    if base.is_made(args.out, settings):
        print(f"{args.out} is made already")
        return
    from ..data import builtin

    made = builtin.DATASETS[args.set](seed=args.seed, split_seed=args.split_seed)
    builtin.write_folder(made, args.out, settings)
    kinds = f"{len(made.classes)} classes, {len(made.group_names)} groups ({made.group_kind})"
    print(f"{args.out}: {len(made)} images, {int(made.test.sum())} of them for test, {kinds}")
