"""Commands that read likelihoods: `classify`, the class that makes an image likeliest, and `surprise`, per-token
surprisal as heat maps."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..data.errors import SkippedImage
    from ..data.sources import Source
    from ..inference.likelihood import Classification
    from ..pipeline.pipeline import Pipeline

HOW_TO_RESUME = "Nothing was written: run the same command again."
IN_SHEET = 32  # images at most
NAMED = 10  # classes in a sentence, at most

# command -> its help
HELP = {
    "classify": """Classify images by likelihood, without training: any model that saw labels is a zero-shot classifier.

An image's score for a class is log p(image | class), its mean over K random orders, the same for all classes; more
orders are more accurate and take longer. The printed probabilities assume that all classes are equally likely
beforehand, and tend to be overconfident. Images are prepared as by `randfeat extract`.

With C classes an exact answer takes C * K passes of the network for each image. For hundreds of classes --halving
(successive halving) reads all of them on the first tokens of one order, and only the leading ones to the end.

How likely tokens are depends on where the image is cut into them. With --shifts, --flip, --crop and --jitter each order
reads another view of the image, which takes no more passes (docs/guides/likelihood.md).

Instead of files, one IMAGE may be data that `randfeat extract` takes, all of its splits unless --split says which.
Where its labels are classes of the model, as folders called like them are, the accuracy is printed last. -o FILE.csv
keeps a row for each image: path, label, likeliest class, whether that is right, its probability and log p, or the
reason why the image could not be read. Such images are skipped, counted and listed.

examples:
  randfeat classify digits_demo/models/randar digits_demo/digits/images/0000.png digits_demo/digits/images/0001.png
  randfeat classify digits_demo/models/randar digits_demo/digits --split test -o answers.csv
  randfeat classify MODEL photos --classes "golden retriever" otter n02128385 --orders 20
  randfeat classify MODEL photos --orders 20 --crop .8
  randfeat classify MODEL photos --halving --format json > answers.json

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
    "surprise": """Show where an image is unlike what the model expects, as heat maps of its tokens' surprisal.

The surprisal of a token is its negative log-likelihood, -log p(token | those before it) in nats, here its mean over K
random orders. The model may have been trained with labels or without; by default it is given none. DIR then holds

  sheet.png               image and heat map side by side, for the first images
  0000-NAME.png ...       the heat map of each image, from dark (no surprisal) to bright (the highest of all images)
  surprise.npz            maps, float32 (images, rows, columns), and paths
  skipped.csv             path and reason of each image that could not be read, where there are any

--exact conditions each token on all others instead, in as many passes as an image has tokens for every order. It finds
single odd tokens better, larger areas hardly (docs/guides/likelihood.md).

examples:
  randfeat surprise digits_demo/models/randar_free digits_demo/digits/images/0000.png -o surprising
  randfeat surprise MODEL photos --orders 32 --class "golden retriever" -o surprising

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one of the two commands."""
    parser.description = HELP[command]
    if command == "classify":
        parser.usage = "randfeat classify MODEL IMAGE ... [options]"
        options.add_model(parser, "model that was trained with labels")
        options.add_images(parser)
        options.add_split(parser, "a data set")
        options.add_labels(parser)
        options.add_out(parser, metavar="FILE", required=False)
        parser.add_argument("--classes", nargs="+", metavar="CLASS", help="indices or names to choose from (all)")
        options.add_orders(parser, 16, "log p")
        parser.add_argument("--halving", action="store_true", help="successive halving, for many classes: see above")
        add_views(parser)
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


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the views that the orders read."""
    views = parser.add_argument_group("views, of which each order reads another")
    views.add_argument("--shifts", type=int, default=1, metavar="N", help="N x N places within a token (1)")
    views.add_argument("--flip", action="store_true", help="mirrored in every second order")
    views.add_argument(
        "--crop", type=float, default=1.0, metavar="X", help="random crops that keep at least this share of a side (1)"
    )
    views.add_argument(
        "--jitter", type=float, default=0.0, metavar="S", help="noise on the latents, in their standard deviations (0)"
    )


def run(args: argparse.Namespace) -> int:
    """Read the images by either command."""
    from ..data.sources.folder import find_images

    if args.command == "classify":
        return classify(args)
    paths = find_images(args.images)
    return surprise(args, options.load_model(args), paths)


# classify ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """Images to classify: paths as they are printed, and the label of each in its data, None where there is none."""

    paths: Sequence[str]
    labels: Sequence[str | int | None]
    source: Source | None = None

    def images(self, model: Pipeline) -> Iterable[Any]:
        """Return the images as `Pipeline.classify` takes them."""
        from ..data.crop import images_of

        if self.source is None:
            return self.paths
        return images_of(self.source, range(len(self.source)), model.tokenizer.value_range, skipping=True)


def given_images(args: argparse.Namespace) -> Given:
    """Return the images that the arguments name: files, or one data set with its labels."""
    from ..data.sources import Source, open_source
    from ..data.sources.folder import ARRAY, FileSource, find_images, is_image
    from ..data.sources.splits import ALL
    from ..utils import progress

    first, of_data = args.images[0], args.split or args.labels or args.label_column
    is_file = is_image(first.name) or first.suffix == ARRAY
    if len(args.images) > 1 or is_file:
        if of_data:
            raise ValueError("--split, --labels and --label-column are for one data set: leave them out")
        paths = [str(path) for path in find_images(args.images)]
        return Given(paths, [None] * len(paths))
    with progress.warnings_as_lines():
        source = open_source(first, args.split or ALL, args.labels, args.label_column)
    if not isinstance(source, Source):
        raise ValueError(f"{first} holds tokens, not images: give the images")
    paths = [source.file(row) for row in range(len(source))] if isinstance(source, FileSource) else list(source.paths)
    codes, names = source.labels or [None] * len(source), source.classes
    return Given(paths, [code if code is None or names is None else names[code] for code in codes], source)


def classify(args: argparse.Namespace) -> int:
    """Print the likeliest classes of each image, and the accuracy where the images have labels."""
    import sys

    from ..inference.successive_halving import SuccessiveHalving
    from ..inference.views import Views
    from ..utils import atomic

    if args.out is not None and args.out.is_dir():
        raise IsADirectoryError(f"{args.out} is a folder: name a file in it, such as {args.out / 'answers.csv'}")
    given = given_images(args)
    model = options.load_model(args)
    skipped: list[SkippedImage] = []
    found = model.classify(
        given.images(model),
        args.classes,
        args.orders,
        args.seed,
        SuccessiveHalving() if args.halving else None,
        args.batch_size,
        progress=True,
        on_error=skipped.append,
        views=Views(args.shifts, args.flip, args.crop, args.jitter),
    )
    truth = class_indices(given.labels, model)
    print(as_json(given, found, args.top) if args.format == "json" else table(given, found, args.top))
    if any(label is not None for label in given.labels):
        print(accuracy(truth, found, model), file=sys.stderr if args.format == "json" else sys.stdout)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(args.out, as_rows(given, truth, found, dict(zip(found.skipped, skipped, strict=True))))
    listed = [(given.paths[number], one.reason) for number, one in zip(found.skipped, skipped, strict=True)]
    return options.list_skipped(listed)


def class_indices(labels: Sequence[str | int | None], model: Pipeline) -> list[int | None]:
    """Return the model's class of each label, None where there is no label or the model has no such class."""
    index_of: dict[str | int, int | None] = {}
    for label in set(labels) - {None}:
        assert label is not None
        try:
            index_of[label] = model.classes.index(label)
        except ValueError:
            index_of[label] = None
    return [None if label is None else index_of[label] for label in labels]


def accuracy(truth: Sequence[int | None], found: Classification, model: Pipeline) -> str:
    """Return a sentence with the share of the images that got their class, of those whose class was to be found."""
    possible, skipped = set(found.indices), set(found.skipped)
    best = found.best.tolist()
    pairs = [(best[i], true) for i, true in enumerate(truth) if true in possible and i not in skipped]
    if not pairs:
        few = ", ".join(model.classes.short(index) for index in found.indices[:NAMED])
        more = ", ..." if len(found.indices) > NAMED else ""
        return f"no accuracy: no image has a label that is one of the classes {few}{more}"
    right = sum(one == true for one, true in pairs)
    others = len(truth) - len(skipped) - len(pairs)
    rest = f"; {others:,} more without a label among the classes" if others else ""
    return f"accuracy {100 * right / len(pairs):.1f} % ({right:,} of {len(pairs):,} images{rest})"


def as_rows(
    given: Given, truth: Sequence[int | None], found: Classification, skipped: Mapping[int, SkippedImage]
) -> bytes:
    """Return the answers as CSV, a row for each image. skipped: by the numbers of the images."""
    from ..data.store import as_csv

    rows: list[Sequence[Any]] = [("path", "label", "class", "right", "probability", "log_prob", "reason")]
    for number, (path, label, true, best) in enumerate(
        zip(given.paths, given.labels, truth, found.top(1), strict=True)
    ):
        shown = "" if label is None else label
        if not best:
            rows.append((path, shown, "", "", "", "", skipped[number].reason))
            continue
        (one,) = best
        right = "" if true is None else int(one.label == true)
        rows.append((path, shown, one.name, right, f"{one.probability:.6g}", f"{one.log_prob:.6g}", ""))
    return as_csv(rows)


def table(given: Given, found: Classification, top: int) -> str:
    """Return a line for each image that was read: its path, then the best classes with probabilities in percent."""
    rows = [[f"{one.name} {100 * one.probability:.1f} %" for one in best] for best in found.top(top)]
    cells = [[path, *row] for path, row in zip(given.paths, rows, strict=True) if row]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def as_json(given: Given, found: Classification, top: int) -> str:
    """Return an object for each image; log_prob is null for a class that halving dropped before one whole order.

    An image that was skipped has no classes.
    """
    content = [
        {
            "image": path,
            **({} if label is None else {"label": label}),
            "passes": round(passes, 3),
            "classes": [
                one._asdict() | {"log_prob": one.log_prob if math.isfinite(one.log_prob) else None} for one in best
            ],
        }
        for path, label, passes, best in zip(
            given.paths, given.labels, found.passes.tolist(), found.top(top), strict=True
        )
    ]
    return json.dumps(content, indent=2)


# surprise ------------------------------------------------------------------------------------------------------------


def surprise(args: argparse.Namespace, model: Pipeline, given: Sequence[Path]) -> int:
    """Write the surprisal of each image as arrays and pictures; return the exit code."""
    import numpy as np

    from ..utils import arrays, atomic, drawing

    labels = None if args.cls is None else [args.cls] * len(given)
    skipped: list[SkippedImage] = []
    how = args.orders, args.exact, args.seed, args.batch_size, skipped.append
    maps = model.surprisal(given, labels, *how).numpy()
    unread = {one.path for one in skipped}
    read = np.array([str(path) not in unread for path in given])
    paths, maps = [path for path, there in zip(given, read, strict=True) if there], maps[read]
    highest = float(maps.max())
    seen = [_as_seen(model, path) for path in paths]
    heated = [drawing.heat(picture, values, 0.0, highest) for picture, values in zip(seen, maps, strict=True)]
    args.out.mkdir(parents=True, exist_ok=True)
    for number, (path, picture) in enumerate(zip(paths, heated, strict=True)):
        atomic.write_bytes(args.out / f"{number:04}-{path.stem}.png", drawing.png(drawing.grid([picture])))
    arrays.write_npz(args.out / "surprise.npz", {"maps": maps, "paths": [str(path) for path in paths]})
    atomic.write_bytes(args.out / "sheet.png", drawing.png(_sheet(paths, seen, heated, maps)))
    print(f"up to {highest:.1f} nats; look at {args.out / 'sheet.png'} first")
    return options.list_skipped(skipped, args.out)


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
