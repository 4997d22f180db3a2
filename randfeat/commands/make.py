"""Makes a folder of real images to try things on, without a download: PNG files and a table metadata.csv.

digits: 1,797 handwritten digits that ship with scikit-learn, 8 x 8 pixels, 14 writers.
cluttered: those at random places, sizes and angles among pieces of others, 16 x 16 pixels.
letters: a to z in the typefaces that are installed, 24 x 24 pixels. More packages of fonts make more letters.
photographs: crops of the photographs that packages bring along, 32 x 32 pixels; the class is the picture.

The table has the columns path, label, split and a group (writer, design or part) that lies on one side of the split:
give it to `randfeat probe` as --group. Letters and photographs take about a minute. The folder is there when it is
whole; one of something else is left alone.

examples:
  randfeat make digits -o digits
  randfeat probe all timm:vit_tiny_patch16_224 digits --group writer -o measured
  randfeat make letters -o letters --split-seed 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

HOW_TO_RESUME = "Nothing was written: the same command begins anew."
SETS = ("digits", "cluttered", "letters", "photographs")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("set", choices=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of places, sizes and angles (0)")
    parser.add_argument("--split-seed", type=int, help="another split into train and test than the usual one")


def run(args: argparse.Namespace) -> None:
    from ..data.builtin import base

    settings = {"set": args.set, "seed": args.seed, "split_seed": args.split_seed}
    if min(args.seed, args.split_seed or 0) < 0:
        raise ValueError("seeds are whole numbers from 0")
    if base.is_made(args.out, settings):
        print(f"{args.out} is made already")
        return
    from ..data import builtin

    made = builtin.DATASETS[args.set](seed=args.seed, split_seed=args.split_seed)
    builtin.write_folder(made, args.out, settings)
    kinds = f"{len(made.classes)} classes, {len(made.group_names)} groups ({made.group_kind})"
    print(f"{args.out}: {len(made)} images, {int(made.test.sum())} of them for test, {kinds}")
