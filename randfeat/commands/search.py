"""Finds the images of an index that are most like each QUERY, an image or a folder of images.

The queries are read by the model that read the index, in the same way; if the model has changed since, that is said. A
score is the cosine similarity, 1 for the same image (with other metrics of `randfeat index build` the inner product, or
the distance).

--label and --path search among some of the images only. In a pattern `*` stands for any characters, `?` for one; one
that is not absolute describes the end of a path. With --format json a list is printed for each query, of objects with
path, label, score and id; with html it is a page with pictures, whole in one file.

examples:
  randfeat search photos.index photos/cat.jpg
  randfeat search photos.index new/*.jpg -k 5 --path 'holidays/*' --format json
  randfeat search photos.index photos/cat.jpg -k 50 --label cat --format html -o cats.html
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..index import Index, Match

HOW_TO_RESUME = "Nothing was changed."
SIDE = 192  # pixels of a picture on the page
SOME = 5  # labels that an error names


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.usage = "randfeat search INDEX QUERY ... [options]"
    parser.add_argument("index", type=Path, metavar="INDEX", help="what `randfeat index build` made")
    parser.add_argument("queries", nargs="+", type=Path, metavar="QUERY", help="images, and folders of them")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="images to find for each (10)")
    among = parser.add_argument_group("among which")
    among.add_argument("--label", nargs="+", action="extend", default=[], metavar="L", help="with one of these labels")
    among.add_argument("--path", nargs="+", action="extend", default=[], metavar="GLOB", help="with such paths")
    shown = parser.add_argument_group("what comes out")
    shown.add_argument("--format", choices=("table", "json", "html"), default="table", help="(table)")
    shown.add_argument("-o", "--out", type=Path, metavar="FILE", help="where to write, instead of printing it")
    machine = parser.add_argument_group("how to read the queries")
    machine.add_argument("--model", metavar="MODEL", help="where the model lies that read the index, if it was moved")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")


def run(args: argparse.Namespace) -> None:
    from ..data.images import batches
    from ..data.sources.folder import find_images
    from ..index import Filter, Index
    from ..utils import atomic, devices

    index, paths = Index.open(args.index), find_images(args.queries)
    _check(args, [*index.labels()])  # before the model is read
    encoder, where = index.encoder(str(devices.pick(args.device)), args.model), Filter(args.label, args.path)
    found: list[list[Match]] = []
    for some in batches(paths, args.batch_size):
        found += index.search(index.read(some, encoder), args.k, where)
    written = {"table": table, "json": as_json, "html": page}[args.format](index, paths, found)
    if args.out is None:
        print(written)
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(args.out, f"{written}\n".encode())


def _check(args: argparse.Namespace, labels: Sequence[str]) -> None:
    """What can be wrong with the arguments alone. labels: that the index has."""
    from ..utils.checks import check_whole_number

    check_whole_number("k", args.k, 1)
    if unknown := next((label for label in args.label if label not in labels), None):
        few = ", ".join([*labels[:SOME], *(["..."] if len(labels) > SOME else [])])
        raise ValueError(f"{args.index} has no row of the label {unknown}: it has {few or 'none'}")
    if args.out and args.out.is_dir():
        raise IsADirectoryError(f"{args.out} is a folder: name a file in it")
    if args.out and args.index.resolve() in args.out.resolve().parents:
        raise ValueError(f"{args.out} lies in the index: choose another file")


def table(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Return each query, and below it a line for each image: score, label, path."""
    width = max((len(_in_line(match.label or "")) for matches in found for match in matches), default=0)
    blocks = []
    for path, matches in zip(paths, found, strict=True):
        lines = [f"  {m.score:7.4f}  {_in_line(m.label or ''):{width}}  {_in_line(m.path)}" for m in matches]
        blocks.append("\n".join([_in_line(str(path)), *(lines or ["  nothing"])]))
    return "\n\n".join(blocks)


def _in_line(name: str) -> str:
    """Return a name with its line breaks, and what else cannot be printed, spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def as_json(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Return a list for each query."""
    fields = ("path", "label", "score", "id")
    return json.dumps([[{name: getattr(match, name) for name in fields} for match in one] for one in found], indent=2)


def page(index: Index, paths: Sequence[Path], found: Sequence[Sequence[Match]]) -> str:
    """Pictures of the queries and of what was found for each."""
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
    """Return a picture as a data URI, None where there is none any more."""
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
