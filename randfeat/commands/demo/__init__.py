"""The main job on real images, with no download: the 1,797 handwritten digits that ship with scikit-learn.

It trains a RandAR, its raster-order control (both without labels), a RandAR and an ARPG with labels; reads features
in every order mode and probes them beside simple baselines; classifies by likelihood; samples, inpaints, indexes and
searches. Training uses the first nine writers; what is scored is scored on the last five.

It writes report.html (open it in a browser), report.json, overview.png, models/ (open one with randfeat.load), index/
and digits/, the images with their labels and writers (for `randfeat probe`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

HOW_TO_RESUME = "Run the same command again: models that are trained already are kept."


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("-o", "--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (demo)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--fast", action="store_true", help="a first look in one to two minutes: too short to learn much"
    )
    length.add_argument("--full", action="store_true", help="train to the end, about 12 minutes on two cores")


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # a place that cannot be written to should fail before the long work

    from . import report, study

    preset = "fast" if args.fast else "full" if args.full else "default"
    results = study.run(preset, study.PRESETS[preset], args.out)
    page = report.write(results, args.out)
    print(f"wrote {page} and {page.with_suffix('.json').name}: open the first in a browser")
