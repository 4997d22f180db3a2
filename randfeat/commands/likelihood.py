"""Commands that read likelihoods: `classify`, the class that makes an image likeliest, and `surprise`, per-token
surprisal as heat maps."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..inference.likelihood import Classification
    from ..pipeline.pipeline import Pipeline

HOW_TO_RESUME = "Nothing was written: run the same command again."
IN_SHEET = 32  # images at most

# command -> its help
HELP = {
    "classify": """Classify images by likelihood, without training: any model that saw labels is a zero-shot classifier.

An image's score for a class is log p(image | class), its mean over K random orders, the same for all classes; more
orders are more accurate and take longer. The printed probabilities assume that all classes are equally likely
beforehand, and tend to be overconfident. Images are prepared as by `randfeat extract`.

With C classes an exact answer takes C * K passes of the network for each image. For hundreds of classes --halving
(successive halving) reads all of them on the first tokens of one order, and only the leading ones to the end.

examples:
  randfeat classify demo/models/randar demo/digits/images/0000.png demo/digits/images/0001.png
  randfeat classify MODEL photos --classes "golden retriever" otter n02128385 --orders 20
  randfeat classify MODEL photos --halving --format json > answers.json
""",
    "surprise": """Show where an image is unlike what the model expects, as heat maps of its tokens' surprisal.

The surprisal of a token is its negative log-likelihood, -log p(token | those before it) in nats, here its mean over K
random orders. The model may have been trained with labels or without; by default it is given none. DIR then holds

  sheet.png               image and heat map side by side, for the first images
  0000-NAME.png ...       the heat map of each image, from dark (no surprisal) to bright (the highest of all images)
  surprise.npz            maps, float32 (images, rows, columns), and paths

--exact conditions each token on all others instead, in as many passes as an image has tokens for every order. It finds
single odd tokens better, larger areas hardly (docs/guides/likelihood.md).

examples:
  randfeat surprise demo/models/randar_free demo/digits/images/0000.png -o surprising
  randfeat surprise MODEL photos --orders 32 --class "golden retriever" -o surprising
""",
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one of the two commands."""
    parser.description = HELP[command]
    if command == "classify":
        parser.usage = "randfeat classify MODEL IMAGE ... [options]"
        options.add_model(parser, "model that was trained with labels")
        options.add_images(parser)
        parser.add_argument("--classes", nargs="+", metavar="CLASS", help="indices or names to choose from (all)")
        options.add_orders(parser, 16, "log p")
        parser.add_argument("--halving", action="store_true", help="successive halving, for many classes: see above")
        parser.add_argument("--top", type=int, default=3, metavar="N", help="classes to print for each image (3)")
        options.add_format(parser)
    else:
        parser.usage = "randfeat surprise MODEL IMAGE ... -o DIR [options]"
        options.add_model(parser)
        options.add_images(parser)
        options.add_out(parser)
        options.add_orders(parser, 16, "surprisal")
        parser.add_argument("--exact", action="store_true", help="condition each token on all others: see above")
        options.add_class(parser, of="all images, which the model is given")
    options.add_seed(parser, "the orders")
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_device(machine)
    options.add_dtype(machine, "the generator")


def run(args: argparse.Namespace) -> None:
    """Read the images by either command."""
    from ..data.sources.folder import find_images

    paths = find_images(args.images)
    model = options.load_model(args)
    if args.command == "classify":
        classify(args, model, paths)
    else:
        surprise(args, model, paths)


# classify ------------------------------------------------------------------------------------------------------------


def classify(args: argparse.Namespace, model: Pipeline, paths: Sequence[Path]) -> None:
    """Print the likeliest classes of each image."""
    from ..inference.successive_halving import SuccessiveHalving

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
    """Return an object for each image; log_prob is null for a class that halving dropped before one whole order."""
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


# surprise ------------------------------------------------------------------------------------------------------------


def surprise(args: argparse.Namespace, model: Pipeline, paths: Sequence[Path]) -> None:
    """Write the surprisal of each image as arrays and pictures."""
    import numpy as np

    from ..utils import atomic, drawing

    labels = None if args.cls is None else [args.cls] * len(paths)
    maps = model.surprisal(paths, labels, args.orders, args.exact, args.seed, args.batch_size).numpy()
    highest = float(maps.max())
    seen = [_as_seen(model, path) for path in paths]
    heated = [drawing.heat(picture, values, 0.0, highest) for picture, values in zip(seen, maps, strict=True)]
    arrays = io.BytesIO()
    np.savez_compressed(arrays, maps=maps, paths=np.array([str(path) for path in paths]))
    args.out.mkdir(parents=True, exist_ok=True)
    for number, (path, picture) in enumerate(zip(paths, heated, strict=True)):
        atomic.write_bytes(args.out / f"{number:04}-{path.stem}.png", drawing.png(drawing.grid([picture])))
    atomic.write_bytes(args.out / "surprise.npz", arrays.getvalue())
    atomic.write_bytes(args.out / "sheet.png", drawing.png(_sheet(paths, seen, heated, maps)))
    print(f"up to {highest:.1f} nats; look at {args.out / 'sheet.png'} first")


def _as_seen(model: Pipeline, path: Path) -> Image.Image:
    """Return the part of an image that the model reads, at the model's size."""
    from ..data.images import preview

    return preview(model.as_images(path)[0])


def _sheet(
    paths: Sequence[Path], seen: Sequence[Image.Image], heated: Sequence[Image.Image], maps: np.ndarray
) -> Image.Image:
    """Return image and heat map side by side, for the first images."""
    from ..utils import drawing

    pictures, captions = [], []
    for path, picture, heat, values in list(zip(paths, seen, heated, maps, strict=True))[:IN_SHEET]:
        pictures += [picture, heat]
        captions += [path.name, f"to {values.max():.1f} nats"]
    return drawing.grid(pictures, min(8, len(pictures)), captions)
