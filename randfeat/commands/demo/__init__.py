"""Show what randfeat does on pictures of clothes, in about a minute and without a download.

The package holds four small models (two RandAR, two ARPG) that learned Fashion-MNIST, and 5,000 of its images. The
demo samples with them by class, watches a picture being decoded, completes hidden halves and crops, finds pasted
patches, classifies by likelihood, reads features, probes them beside pixels, PCA, HOG and random weights, and builds
an index that it searches. Everything is chosen on 3,000 training images and scored on 2,000 test images.

DIR (demo) then holds

  report.html, report.json   the page (open it in a browser), and every number with its 95 % interval
  overview.png               samples, a decode, completed halves and a search in one picture
  fashion/                   the images with their labels, for any other command
  index/                     the index of the training images

and from there:

  randfeat sample fashion-arpg --classes Bag "Ankle boot" --count 20
  randfeat search demo/index demo/fashion/images/3000.png -k 5
  randfeat classify fashion-arpg demo/fashion/images/3000.png demo/fashion/images/3001.png

With --train, four models are trained before your eyes instead, on the 1,797 handwritten digits of scikit-learn: nine
writers to learn from, five for test. DIR (digits_demo) then also holds models/, to open with randfeat.load, and
digits/. It takes about 6 minutes on two cores.

examples:
  randfeat demo
  randfeat demo --train --fast
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from .. import options

HOW_TO_RESUME = "Run the same command again: images that are written and models that are trained are kept."
SHIPPED, TRAINED = "demo", "digits_demo"  # default folders
IMAGES = {"fashion": "randfeat demo", "digits": "randfeat demo --train"}  # folder of images that each demo leaves first


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat demo`."""
    options.add_out(parser, required=False)
    parser.add_argument("--train", action="store_true", help="train models on handwritten digits, and show these")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--fast", action="store_true", help="with --train: a first look in one to two minutes, too short to learn much"
    )
    length.add_argument("--full", action="store_true", help="with --train: to the end, about 12 minutes on two cores")


def run(args: argparse.Namespace) -> None:
    """Run the demo, and write its page."""
    if not args.train and (args.fast or args.full):
        args.parser.error("--fast and --full say how long to train: add --train")
    out = args.out or Path(TRAINED if args.train else SHIPPED)
    check_folder(out, "digits" if args.train else "fashion")
    out.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=out).close()  # a folder that cannot be written to fails before the long work
    page = train(out, "fast" if args.fast else "full" if args.full else "default") if args.train else show(out)
    print(f"wrote {page} and {page.with_suffix('.json').name}: open the first in a browser")


def check_folder(out: Path, images: str) -> None:
    """Raise a FileExistsError for a folder of the other demo. images: the folder of images of this one."""
    for other, command in IMAGES.items():
        if other != images and (out / other).exists():
            raise FileExistsError(f"{out} holds what `{command}` made: choose another folder (-o)")


def show(out: Path) -> Path:
    """Show the models of the package, and return the path of the page."""
    began = time.perf_counter()

    from . import shipped, shipped_page

    results = shipped.run(shipped.Effort(), out)
    return shipped_page.write(results, out, time.perf_counter() - began)


def train(out: Path, preset: str) -> Path:
    """Train models, show them, and return the path of the page."""
    from . import trained, trained_page

    return trained_page.write(trained.run(preset, trained.PRESETS[preset], out), out)
