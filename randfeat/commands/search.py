"""Find the images of an index that are most similar to each QUERY, an image or a folder of images.

The queries are read by the model that read the index, in the same way; if that model has changed since, the search is
refused. A score is the cosine similarity, 1 for the same image (with other metrics of `randfeat index build` the inner
product, or the distance).

--label, in any case of its letters, and --path restrict the search. In a pattern `*` stands for any characters, `?` for
one; one that is not absolute describes the end of a path. --format json prints a list for each query, of objects with
path, label, score and id; html is one page with all pictures in it.

examples:
  randfeat search photos.index photos/cat.jpg
  randfeat search photos.index new/*.jpg -k 5 --path 'holidays/*' --format json
  randfeat search photos.index photos/cat.jpg -k 50 --label cat --format html -o cats.html

exit code: 0 if all queries were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from ..data.errors import SkippedImage
    from ..index import Index, Match

HOW_TO_RESUME = "Nothing was changed."
SIDE = 192  # pixels of a picture on the page


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat search`."""
    parser.usage = f"randfeat {command} INDEX QUERY ... [options]"
    options.add_index(parser)
    options.add_images(parser, "queries")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="images to find for each query (10)")
    options.add_filters(parser)
    output = parser.add_argument_group("output")
    options.add_format(output, ("table", "json", "html"))
    options.add_out(output, metavar="FILE", required=False)
    machine = options.machine(parser)
    options.add_moved_model(machine)
    options.add_batch_size(machine)
    options.add_device(machine)


def run(args: argparse.Namespace) -> int:
    """Search, print or write what was found, and return the exit code."""
    import numpy as np

    from ..data.sources.folder import find_images
    from ..index import Filter, Index
    from ..index.query import labels_like
    from ..utils.checks import check_whole_number

    index, paths = Index.open(args.index), find_images(args.queries)
    check_whole_number("k", args.k, 1)
    where = Filter(labels_like(args.label, [*index.labels()], str(args.index)), args.path)
    options.check_out_file(args)  # before the model is read
    encoder = index.encoder(str(options.pick_device(args)), args.model)
    skipped: list[SkippedImage] = []
    queries = index.read(paths, encoder, args.batch_size, skipped.append)
    unread = {one.path for one in skipped}
    read = np.array([str(path) not in unread for path in paths])
    paths = [path for path, there in zip(paths, read, strict=True) if there]
    found = index.search(queries[read], args.k, where)
    written = {"table": table, "json": as_json, "html": page}[args.format](index, paths, found)
    options.write_or_print(args, written)
    return options.list_skipped(skipped)


def table(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Return a block for each query: its path, then a line for each image with score, label and path."""
    width = max((len(options.in_line(match.label or "")) for matches in found for match in matches), default=0)
    blocks = []
    for path, matches in zip(paths, found, strict=True):
        lines = [
            f"  {m.score:7.4f}  {options.in_line(m.label or ''):{width}}  {options.in_line(m.path)}" for m in matches
        ]
        blocks.append("\n".join([options.in_line(str(path)), *(lines or ["  nothing"])]))
    return "\n\n".join(blocks)


def as_json(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Return a JSON list with a list of matches for each query."""
    fields = ("path", "label", "score", "id")
    return json.dumps([[{name: getattr(match, name) for name in fields} for match in one] for one in found], indent=2)


def page(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Return a page with pictures of the queries and of what was found for each."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows = [
        (str(path), thumbnail(path), [(match, thumbnail(Path(match.path))) for match in matches])
        for path, matches in zip(paths, found, strict=True)
    ]
    return environment.get_template("search.html.j2").render(
        name=Path(index.directory or "index").name,
        images=len(index),
        metric=index.metric,
        reading=index.encoder_record,
        rows=rows,
    )


def thumbnail(path: Path) -> str | None:
    """Return a small copy of an image as a data URI; None where the file is gone or cannot be read."""
    import base64

    from PIL import Image

    from ..data import decode
    from ..utils import drawing

    try:
        picture = decode.open_picture(path)
    except decode.UnreadableImage:
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if min(picture.size) < drawing.SMALLEST:
        picture = drawing.magnified(picture)
    return f"data:image/png;base64,{base64.b64encode(drawing.png(picture)).decode()}"
