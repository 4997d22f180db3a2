"""Draw the images of a feature store or an index on a map: those that a model finds alike lie side by side (t-SNE).

SOURCE is what `randfeat extract` or `randfeat index build` made. The form follows from the name of --out, or --format:

  map.png     pictures in cells of a grid, 1,600 at most
  map.html    one page that asks nothing of the network, for up to 10,000 images: point at an image to see it, press it
              to see those most like it, colours by class, search by name, zoom and keys
  projector   a folder that TensorBoard's embedding projector opens: `tensorboard --logdir DIR`
  fiftyone    a folder with features, classes and paths of images for FiftyOne:
              fiftyone.Dataset.from_dir(DIR, fiftyone.types.LegacyFiftyOneDataset)

Pictures are read where they lay when the features were extracted. Where they have moved, or lie in archives or a data
set, --data names them, in any form that `randfeat extract` takes. Of more images than --count, those shown are evenly
spread; 10,000 take minutes.

examples:
  randfeat map features -o map.html
  randfeat map photos.index -o map.png
  randfeat map features -o projector --format projector
  randfeat map features -o map.html --data moved/photos
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options

if TYPE_CHECKING:
    from .rows import MapRows

HOW_TO_RESUME = "Nothing was written."
FORMATS = ("png", "html", "projector", "fiftyone")
MOST = {"png": 1600, "html": 10_000}
LONG = 2000  # images that t-SNE takes long for


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat map`."""
    parser.usage = f"randfeat {command} SOURCE -o FILE [options]"
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a feature store, or an index")
    options.add_out(parser, metavar="FILE")
    parser.add_argument("--format", choices=FORMATS, help="form of the result (by the name of --out)")
    parser.add_argument("--spec", metavar="S", help="feature spec, of a store with several")
    parser.add_argument("--count", type=int, metavar="N", help="images, at most (png: 1600, html: 10000, else all)")
    options.add_seed(parser, "t-SNE")
    data = parser.add_argument_group("pictures")
    data.add_argument("--data", metavar="DATA", help="the images, where they do not lie where they were read")
    options.add_split(data)


def run(args: argparse.Namespace) -> None:
    """Draw a map, or export what one is drawn of."""
    from ...data.sources import open_source
    from ...utils import atomic, checks
    from .rows import open_rows

    form = _form(args)
    if args.count is not None:
        checks.check_whole_number("count", args.count, 1)
        if args.count > MOST.get(form, args.count):
            raise ValueError(f"a map as {form} shows at most {MOST[form]:,} images: choose a smaller --count")
    if args.split is not None and args.data is None:
        raise ValueError("--split is for --data: leave it out")
    source = None if args.data is None else open_source(args.data, args.split)
    rows = open_rows(args.source, args.spec, args.count or MOST.get(form, sys.maxsize), source)
    if rows.missing:
        print(f"note: {rows.missing}", file=sys.stderr)
    if form in ("projector", "fiftyone"):
        _export(form, rows, args)
    else:
        if len(rows) > LONG:
            print(f"placing {len(rows):,} images (t-SNE), which takes minutes", file=sys.stderr)
        content = _picture(rows, args.seed) if form == "png" else _page(rows, args.seed)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(args.out, content)
    print(f"{len(rows):,} of {rows.total:,} images -> {args.out}")


def _form(args: argparse.Namespace) -> str:
    """Return the form of the result; a ValueError where the name of --out does not say it, or is taken."""
    form = args.format or {".png": "png", ".html": "html", ".htm": "html"}.get(args.out.suffix.lower())
    if form is None:
        raise ValueError(f"the form of {args.out} is not known by its name: end it in .png or .html, or give --format")
    if form in MOST and args.out.is_dir():
        raise IsADirectoryError(f"{args.out} is a folder: name a file in it")
    if args.source.resolve() in (args.out.resolve(), *args.out.resolve().parents):
        raise ValueError(f"{args.out} lies in {args.source}: choose another place")
    return form


def _page(rows: MapRows, seed: int) -> bytes:
    from .page import page

    return page(rows, seed).encode("utf-8", "backslashreplace")


def _picture(rows: MapRows, seed: int) -> bytes:
    """Return the map as a PNG file, without the images that cannot be read."""
    from ...data.errors import UnreadableImage
    from ...index.image_map import image_map
    from ...utils import drawing
    from .rows import LARGEST

    if rows.missing:
        raise ValueError("a map as a picture is made of pictures, and there are none: give --data")
    shown, pictures = [], []
    for number, opened in enumerate(rows.pictures):
        try:
            picture = opened()
        except (UnreadableImage, OSError):
            continue
        picture.thumbnail((LARGEST, LARGEST))  # so that all fit into the memory
        pictures.append(picture)
        shown.append(number)
    if len(shown) < len(rows):
        print(f"note: {len(rows) - len(shown):,} images are gone or cannot be read, and left out", file=sys.stderr)
    return drawing.png(image_map(pictures, rows.features[shown], seed=seed))


def _export(form: str, rows: MapRows, args: argparse.Namespace) -> None:
    """Write a folder for another viewer."""
    from . import exports

    if form == "projector":
        exports.projector(rows, args.out)
        return
    if rows.missing or not all(rows.files):
        raise ValueError(f"FiftyOne opens image files, and those of {args.source} are not known: give --data, a folder")
    exports.fiftyone(rows, rows.files, args.out)
