"""From images to an index, and an index brought up to date with a folder. Either happens all at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ..data.sources import Source, TokenSource
from ..data.store import META
from ..features import extract
from .directory import Skipped
from .index import Index
from .plans import Plan, label_of, listed, plan, state_of, table_of
from .reader import check, reading_of
from .rows import SCHEMA
from .staging import Reading
from .vectors import Part

if TYPE_CHECKING:
    from ..features.encoder import Encoder
    from ..features.store import FeatureStore

__all__ = ["Changes", "Plan", "build", "build_from_store", "listed", "plan", "sync"]


@dataclass(frozen=True)
class Changes:
    """What was done to an index: numbers of images. skipped: path and reason of those that could not be read now."""

    added: int
    changed: int
    relabelled: int
    removed: int
    unchanged: int
    skipped: list[tuple[str, str]]


def build(
    directory: str | Path,
    encoder: Encoder,
    source: Source | TokenSource,
    *,
    kind: str = "auto",
    metric: str = "cosine",
    whiten: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """Return an index of all images of `source` in a new directory. Those that cannot be read are listed, see
    `Index.skipped`.

    kind, metric, whiten, memory: see `Index.build`. batch_size, workers: see `extract`. shown: whether with progress
    bars.
    A ValueError where no image can be read, or an earlier call that was stopped read otherwise.
    """
    index = Index.__new__(Index)
    index._begin(directory, kind, metric, 0, reading_of(encoder), whiten)
    with index._building():
        table = listed(source)
        read = Reading(index, encoder, source, batch_size, workers)
        parts, rows, skipped = read(table, range(len(table)), shown)
        if not parts:
            read.clear()
            raise ValueError(
                f"none of the {len(table):,} images of {source.name} could be read: "
                f"{extract.reasons([(path, reason) for path, reason, *_ in skipped])}"
            )
        index.meta["dimension"] = read.dim
        index._fill(parts, rows, memory, shown, skipped)
        read.clear()
    return index


def build_from_store(
    directory: str | Path,
    store: FeatureStore,
    spec: str | None = None,
    *,
    kind: str = "auto",
    metric: str = "cosine",
    whiten: int | None = None,
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """Return an index of features that `randfeat extract` has read. spec: which, where there are several."""
    features = store.as_numpy(spec)
    if features.ndim != 2:
        raise ValueError(f"{store.directory} holds maps, {features.shape[1:]} an image: choose a spec with a pool")
    resolved = store.specs[store.number(spec)]
    reading = {
        "model": store.meta["model"],
        "spec": resolved,
        "encoder": store.meta["encoder"] | {"specs": [resolved]},
    }
    root, classes = Path(store.meta["source"]["name"]), store.classes
    root = root.parent if root.is_file() else root
    known = (store.directory / META).stat().st_mtime_ns

    def found(path: str) -> tuple[str, int | None, int | None]:
        name, size, mtime_ns = state_of(os.path.join(root, path))  # noqa: PTH118
        if mtime_ns is None:  # it lies elsewhere, or in an archive
            return path, None, None
        return (name, size, mtime_ns) if mtime_ns <= known else (name, None, None)  # changed since it was read

    rows = []
    for one, label in zip(store.paths, store.table["label"].to_pylist(), strict=True):
        path, size, mtime_ns = found(one)
        rows.append((path, label_of(label, classes), size, mtime_ns))
    skipped: list[Skipped] = []
    for one, reason in store.skipped:
        path, size, mtime_ns = found(one)
        skipped.append((path, reason, size, mtime_ns))
    index = Index.__new__(Index)
    index._begin(directory, kind, metric, features.shape[1], reading, whiten)
    with index._building():
        index._fill([features], table_of(rows), memory, shown, skipped)
    return index


def sync(
    index: Index,
    source: Source | TokenSource,
    encoder: Encoder | None = None,
    *,
    drop: bool = True,
    batch_size: int = 64,
    workers: int | None = None,
    shown: bool = False,
) -> Changes:
    """Bring an index up to date with the images of `source`: reads those that are new or have another size or time of
    change, takes over labels, and, with `drop`, removes those that are gone from the folder. All at once.

    encoder: is not needed where nothing is to be read.
    """
    if index.directory is None:
        raise ValueError("an index in memory is kept in step with nothing: save it first, and open it from there")
    if index.reading is None:
        raise ValueError(f"{index!r} holds numbers that no model read: add to it with `Index.add`")
    with index._writing():
        todo, rows = plan(index, source, drop), SCHEMA.empty_table()
        parts: list[Part] = []
        skipped: list[Skipped] = []
        if todo.to_read:
            if encoder is None:
                raise ValueError(f"{len(todo.to_read):,} images are to be read: give the encoder of the index")
            check(index.reading, encoder)
            read = Reading(index, encoder, source, batch_size, workers)
            parts, rows, skipped = read(todo.table, todo.to_read, shown)
        if todo.relabelled:
            again = todo.table.take(todo.relabelled)
            for part, which in index.parts([id_ for id_ in index.find(again["path"].to_pylist()) if id_ is not None]):
                parts, rows = [*parts, part], pa.concat_tables([rows, again.take(which)])
        lost = {path for path, *_ in skipped}  # changed into what cannot be read: its row goes
        lost_ids = [id_ for id_ in index.find(sorted(lost)) if id_ is not None]
        gone = [id_ for id_, _ in todo.gone] + lost_ids
        if todo or skipped:
            read_now = {*rows["path"].to_pylist()}
            old = [one for one in index.skipped if one[0] not in todo.forgotten | lost | read_now]
            index._change(parts, rows, gone, [*old, *skipped])
        if todo.to_read:
            read.clear()
    of_new = {todo.table["path"][number].as_py() for number in todo.new}
    return Changes(
        len(of_new - lost),
        len(todo.changed) - len(lost - of_new),
        len(todo.relabelled),
        len(gone),
        todo.unchanged,
        [(path, reason) for path, reason, *_ in skipped],
    )
