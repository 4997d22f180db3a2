"""Rows of a map: features, names, classes and pictures of a feature store or an index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from randfeat.data.decode import open_picture
from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source, TokenSource
from randfeat.data.sources.folder import FileSource
from randfeat.features.store import FeatureStore, is_store
from randfeat.index import Index
from randfeat.index.images import listed

from ..app import thumbnails

LARGEST = 256  # pixels of the longer side of a picture, where it is decoded reduced

Picture = Callable[[], Image.Image]


@dataclass(frozen=True, eq=False)
class MapRows:
    """Rows that are drawn.

    name, read: of the store or index, and a phrase about the model that read it, "" if none did. total: rows that there
    are. paths: names of the n rows. labels: their classes or None. features: float32 (n, F). pictures: a function that
    opens the picture of each row, and raises an UnreadableImage where it is gone. files: the absolute path of each
    image file, "" where there is none. missing: a sentence that says why no row can have a picture, "" where they can.
    """

    name: str
    read: str
    total: int
    paths: list[str]
    labels: list[str | None]
    features: np.ndarray
    pictures: list[Picture]
    files: list[str]
    missing: str = ""

    def __len__(self) -> int:
        return len(self.paths)


def open_rows(directory: Path, spec: str | None, most: int, source: Source | TokenSource | None) -> MapRows:
    """Return at most `most` rows of a store or an index, evenly spread over it.

    spec: of a store with several. source: the images, where they do not lie where they were read.
    """
    if is_store(directory):
        return _of_store(FeatureStore.open(directory), spec, most, source)
    try:
        index = Index.open(directory)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{directory} is no feature store and no index: make one with `randfeat extract` or `randfeat index build`"
        ) from error
    if spec is not None:
        raise ValueError(f"{directory} is an index, which holds one feature of each image: leave --spec out")
    return _of_index(index, most, source)


def spread(count: int, most: int) -> np.ndarray:
    """Return the numbers of at most `most` of `count` rows, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def _of_store(store: FeatureStore, spec: str | None, most: int, source: Source | TokenSource | None) -> MapRows:
    features, chosen = store.as_numpy(spec), spread(len(store), most)
    if features.ndim != 2:
        raise ValueError(f"{store.directory} holds maps, {features.shape[1:]} an image: choose a spec with a pool")
    names, labels = ([column[row] for row in chosen] for column in (store.paths, store.class_names))
    try:
        paths = store.absolute_paths()
    except ValueError as error:
        paths, missing = [""] * len(store), f"No pictures: {error}; or give --data."
    else:
        missing = ""
    files = [paths[row] for row in chosen]
    return MapRows(
        store.directory.resolve().name,
        f"read by {store.meta['model']} as {store.specs[store.number(spec)]}",
        len(store),
        names,
        labels,
        np.array(features[chosen]),
        *_pictures(names, files, source, missing),
    )


def _of_index(index: Index, most: int, source: Source | TokenSource | None) -> MapRows:
    ids = index.ids()
    if not ids:
        raise ValueError(f"{index!r} is empty: add images to it")
    found, record = index.rows([ids[row] for row in spread(len(ids), most)]), index.encoder_record
    paths = [match.path for match in found]
    return MapRows(
        Path(index.directory or "index").resolve().name,
        f"read by {record['model']} as {record['spec']}" if record else "",
        len(ids),
        paths,
        [match.label for match in found],
        index.vectors([match.id for match in found]),
        *_pictures(paths, paths, source, "", absolute=True),
    )


def _pictures(
    names: Sequence[str],
    files: Sequence[str],
    source: Source | TokenSource | None,
    missing: str,
    absolute: bool = False,
) -> tuple[list[Picture], list[str], str]:
    """Return the pictures of rows, their files, and why there are none: of a source where one is given, else of the
    files. absolute: whether the names of rows from files are absolute paths, as those of an index are.
    """
    if source is None:
        there = [file if Path(file).is_file() else "" for file in files]
        if not missing and not any(there):
            missing = f"No pictures: {files[0]} is not there any more, and no other image is; give --data."
        return [partial(open_reduced, file) for file in files], there, missing
    if not isinstance(source, Source):
        raise ValueError(f"{source.name} holds tokens and no pictures: give --data with the images")
    row_of = {path: row for row, path in enumerate(listed(source)["path"].to_pylist() if absolute else source.paths)}
    if not any(name in row_of for name in names):
        raise ValueError(f"{source.name} holds no image called {names[0]}, nor one of the others: give their folder")
    rows = [row_of.get(name, -1) for name in names]
    of_files = isinstance(source, FileSource)
    known = [os.path.abspath(source.file(row)) if of_files and row >= 0 else "" for row in rows]  # type: ignore[attr-defined]  # noqa: PTH100
    return [partial(_of_source, source, row) for row in rows], known, ""


def _of_source(source: Source, row: int) -> Image.Image:
    if row < 0:
        raise UnreadableImage(f"not in {source.name}")
    return source.read(row)


def open_reduced(path: str) -> Image.Image:
    """Return the picture in a file; of a large JPEG a reduced one, which is decoded many times as fast."""
    jpeg = Path(path).suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif")
    picture = thumbnails.open_reduced(path, LARGEST) if jpeg else None
    return open_picture(path) if picture is None else picture  # which says what is wrong with a file
