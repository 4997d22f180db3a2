"""Names the classes that make an image likeliest. Nothing is trained: any model that saw labels is a classifier.

An image's score for a class is log p(image | class), its mean over K random orders; more orders are more accurate and
take longer. All classes are read in the same orders. What is printed as probability takes all classes for equally
likely beforehand, and tends to be too sure. An image is read as `randfeat extract` reads it.

Every class in K orders is what an exact answer takes, C * K passes of the network for an image. For hundreds of classes
--halving reads all of them on the first tokens of one order, and only those in front to the end.

examples:
  randfeat classify demo/models/randar demo/digits/images/0000.png demo/digits/images/0001.png
  randfeat classify MODEL photos --classes "golden retriever" otter n02128385 --orders 20
  randfeat classify MODEL photos --halving --format json > answers.json
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.likelihood import Classification

HOW_TO_RESUME = "Nothing was changed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat classify MODEL IMAGE ... [options]"
    parser.add_argument("model", metavar="MODEL", help="a model that was trained with labels")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="files, and folders of them")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="choose among these: indices or names (all)")
    parser.add_argument("--orders", type=int, default=16, metavar="K", help="that log p is averaged over (16)")
    parser.add_argument("--halving", action="store_true", help="read only the classes in front to the end")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes to name for each image (3)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of what is printed (table)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the orders (0)")
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the generator")


def run(args: argparse.Namespace) -> None:
    import torch

    from ..data.sources.folder import find_images
    from ..inference.successive_halving import SuccessiveHalving
    from ..pipeline.pipeline import load
    from ..utils import devices

    paths = find_images(args.images)
    model = load(args.model, device=devices.pick(args.device), dtype=getattr(torch, args.dtype))
    halving = SuccessiveHalving() if args.halving else None
    found = model.classify(paths, args.classes, args.orders, args.seed, halving, args.batch_size, progress=True)
    print(as_json(paths, found, args.top) if args.format == "json" else table(paths, found, args.top))


def table(paths: Sequence[Path], found: Classification, top: int) -> str:
    """Return a line for each image: its path, then the best classes with their probabilities in percent."""
    rows = [[f"{one.name} {100 * one.probability:.1f} %" for one in best] for best in found.top(top)]
    cells = [[str(path), *row] for path, row in zip(paths, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def as_json(paths: Sequence[Path], found: Classification, top: int) -> str:
    """Return a list with an object for each image; a class dropped before it was read in a whole order has no log_prob."""
    content = [
        {
            "image": str(path),
            "passes": round(passes, 3),
            "classes": [
                one._asdict() | {"log_prob": one.log_prob if math.isfinite(one.log_prob) else None} for one in best
            ],
        }
        for path, passes, best in zip(paths, found.passes.tolist(), found.top(top), strict=True)
    ]
    return json.dumps(content, indent=2)
