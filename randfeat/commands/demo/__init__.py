"""Show all that randfeat does on real images, without a download: 1,797 handwritten digits of scikit-learn.

The demo trains a RandAR, its raster-order control (both without labels), a RandAR and an ARPG with labels; extracts
features in every order mode, and probes them beside simple baselines; classifies by likelihood; samples, inpaints,
indexes and searches. Training uses the first nine writers; scores are those of the last five.

DIR then holds report.html (open it in a browser), report.json, overview.png, models/ (open one with randfeat.load),
index/ and digits/, the images with their labels and writers (for `randfeat probe`).
"""

from __future__ import annotations

import argparse
import tempfile

from .. import options

HOW_TO_RESUME = "Run the same command again: models that are trained already are kept."


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat demo`."""
    options.add_out(parser, default="demo")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--fast", action="store_true", help="a first look in one to two minutes: too short to learn much"
    )
    length.add_argument("--full", action="store_true", help="train to the end, about 12 minutes on two cores")


def run(args: argparse.Namespace) -> None:
    """Run the demo, and write its report."""
    args.out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=args.out).close()  # a folder that cannot be written to fails before the long work

    from . import report, study

    preset = "fast" if args.fast else "full" if args.full else "default"
    results = study.run(preset, study.PRESETS[preset], args.out)
    page = report.write(results, args.out)
    print(f"wrote {page} and {page.with_suffix('.json').name}: open the first in a browser")
