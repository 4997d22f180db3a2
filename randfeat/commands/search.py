"""Find the images of an index that are most similar to each QUERY, an image or a folder of images, or to a text.

--text finds what a text says, where the index was built with a text-image model, --model open_clip:NAME@FILE; several
texts are several queries, each in quotes. --mean makes one query of all images and texts: their mean.

The queries are read by the model that read the index, in the same way; if that model has changed since, the search is
refused. A score is the cosine similarity, 1 for the same image (with other metrics of `randfeat index build` the inner
product, or the distance).

INDEX may be lancedb:PATH, a table of LanceDB that `randfeat index export` wrote.

--label, in any case of its letters, and --path restrict the search. In a pattern `*` stands for any characters, `?` for
one; one that is not absolute describes the end of a path. --format json prints a list for each query, of objects with
path, label, score and id; html is one page with all pictures in it.

examples:
  randfeat search photos.index photos/cat.jpg
  randfeat search photos.index new/*.jpg -k 5 --path 'holidays/*' --format json
  randfeat search photos.index photos/cat.jpg -k 50 --label cat --format html -o cats.html
  randfeat search clip.index --text "a red shoe" "a dog on the beach" --format html -o found.html
  randfeat search clip.index photos/shoe.jpg --text "in the snow" --mean

exit code: 0 if all queries were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import options

if TYPE_CHECKING:
    import numpy as np

    from ..data.errors import SkippedImage
    from ..features.encoder import Encoder
    from ..index import Index, Match
    from ..index.lance import LanceIndex

HOW_TO_RESUME = "Nothing was changed."
SIDE = 192  # pixels of a picture on the page
NAMED = 4  # queries that their mean is named by, and shown with


class Query(NamedTuple):
    """Query of a search: its name, a path or a text, and the pictures in it."""

    name: str
    pictures: Sequence[Path] = ()


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat search`."""
    parser.usage = f"randfeat {command} INDEX [QUERY ...] [--text T ...] [options]"
    options.add_index(parser, str, ", or lancedb:PATH")
    options.add_images(parser, "queries", required=False)
    parser.add_argument("--text", nargs="+", action="extend", default=[], metavar="T", help="find what these texts say")
    parser.add_argument("--mean", action="store_true", help="make one query of all images and texts")
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
    from ..data.sources.folder import find_images
    from ..index import Filter
    from ..index.query import labels_like
    from ..utils.checks import check_whole_number

    if not args.queries and not args.text:
        raise ValueError("there is nothing to search for: give a picture, a folder of pictures or --text")
    if path := next((text for text in args.text if Path(text).is_file()), None):
        raise ValueError(f"--text {path} is a file: pictures to search for stand before --text")
    index, paths = open_index(args.index), find_images(args.queries) if args.queries else []
    check_whole_number("k", args.k, 1)
    known = [*index.labels()] if args.label else []
    where = Filter(labels_like(args.label, known, args.index), args.path)
    options.check_out_file(args)  # before the model is read
    encoder = index.encoder(str(options.pick_device(args)), args.model)
    skipped: list[SkippedImage] = []
    queries, features = read(index, encoder, paths, args, skipped)
    if args.mean:
        queries, features = [together(queries)], mean(index, features)
    found = index.search(features, args.k, where)
    written = {"table": table, "json": as_json, "html": page}[args.format](index, queries, found)
    options.write_or_print(args, written)
    return options.list_skipped(skipped)


def open_index(place: str) -> Index | LanceIndex:
    """Return an index in a directory, or in a table of LanceDB."""
    from ..features.lance import is_place
    from ..index import Index

    if not is_place(place):
        return Index.open(place)
    from ..index.lance import LanceIndex

    return LanceIndex(place)


def read(
    index: Index | LanceIndex,
    encoder: Encoder,
    paths: Sequence[Path],
    args: argparse.Namespace,
    skipped: list[SkippedImage],
) -> tuple[list[Query], np.ndarray]:
    """Return the queries that can be read, pictures first, and their features (n, F). skipped: gets the others."""
    import numpy as np

    queries: list[Query] = []
    features = [np.empty((0, index.width), np.float32)]
    texts = index.read_texts(args.text, encoder) if args.text else None  # first, since they may be refused
    if paths:
        rows = index.read(paths, encoder, args.batch_size, skipped.append)
        unread = {one.path for one in skipped}
        there = np.array([str(path) not in unread for path in paths])
        queries += [Query(str(path), [path]) for path, kept in zip(paths, there, strict=True) if kept]
        features.append(rows[there])
    if texts is not None:
        queries += map(Query, args.text)
        features.append(texts)
    return queries, np.concatenate(features)


def together(queries: Sequence[Query]) -> Query:
    """Return one query of several, named by the first of them."""
    names = [one.name for one in queries[:NAMED]]
    more = [f"{len(queries) - NAMED:,} more"] if len(queries) > NAMED else []
    return Query(" + ".join([*names, *more]), [path for one in queries for path in one.pictures][:NAMED])


def mean(index: Index | LanceIndex, features: np.ndarray) -> np.ndarray:
    """Return the mean (1, F) of queries, of their directions where the index compares these."""
    import numpy as np

    from ..index.vectors import normalize

    if index.metric == "cosine" and index.whitening is None:
        features = features.astype(np.float32)
        normalize(features)
    return features.mean(0, keepdims=True)


def table(index: Index | LanceIndex, queries: Sequence[Query], found: Sequence[Sequence[Match]]) -> str:
    """Return a block for each query: its path or text, then a line for each image with score, label and path."""
    width = max((len(options.in_line(match.label or "")) for matches in found for match in matches), default=0)
    blocks = []
    for query, matches in zip(queries, found, strict=True):
        lines = [
            f"  {m.score:7.4f}  {options.in_line(m.label or ''):{width}}  {options.in_line(m.path)}" for m in matches
        ]
        blocks.append("\n".join([options.in_line(query.name), *(lines or ["  nothing"])]))
    return "\n\n".join(blocks)


def as_json(index: Index | LanceIndex, queries: Sequence[Query], found: Sequence[Sequence[Match]]) -> str:
    """Return a JSON list with a list of matches for each query."""
    fields = ("path", "label", "score", "id")
    return json.dumps([[{name: getattr(match, name) for name in fields} for match in one] for one in found], indent=2)


def page(index: Index | LanceIndex, queries: Sequence[Query], found: Sequence[Sequence[Match]]) -> str:
    """Return a page with the queries and pictures of what was found for each."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows = [
        (
            query.name,
            [(str(path), thumbnail(path)) for path in query.pictures],
            [(match, thumbnail(Path(match.path))) for match in matches],
        )
        for query, matches in zip(queries, found, strict=True)
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
