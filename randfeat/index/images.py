"""Indexes of images: build one, or bring it up to date with a folder. Either happens as a whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ..data.sources import Source, TokenSource
from ..data.store import META
from ..features import extract
from .digests import State, digests_of
from .directory import Skipped
from .index import Index
from .reader import check, record_of
from .rows import SCHEMA
from .staging import ImageReader, Plan, label_of, listed, plan, state_of, table_of, with_digests
from .vectors import Part

if TYPE_CHECKING:
    from ..features.encoder import Encoder
    from ..features.store import FeatureStore

__all__ = ["Changes", "Plan", "build", "build_from_store", "listed", "plan", "sync"]


@dataclass(frozen=True)
class Changes:
    """Changes made to an index, in numbers of images.

    moved: renamed or moved files, known by their bytes and not read again; they keep their ids. copied: further files
    with the bytes of one that was there, not read either. skipped: path and reason of those that could not be read now.
    """

    added: int
    changed: int
    relabelled: int
    moved: int
    copied: int
    removed: int
    unchanged: int
    skipped: list[tuple[str, str]]


def build(
    directory: str | Path,
    encoder: Encoder,
    source: Source | TokenSource,
    *,
    index_type: str = "auto",
    metric: str = "cosine",
    whiten: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """Build an index of all images of `source` in a new directory. Those that cannot be read are in `Index.skipped`.

    index_type, metric, whiten, memory: see `Index.build`. batch_size, workers: see `extract`. shown: with progress
    bars. Raises a ValueError where no image can be read, or where an earlier call that was stopped had another encoder.
    """
    index = Index.begin(directory, index_type, metric, 0, record_of(encoder), whiten)
    with index._creating():
        table = listed(source)
        read = ImageReader(index, encoder, source, batch_size, workers)
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
    index_type: str = "auto",
    metric: str = "cosine",
    whiten: int | None = None,
    memory: int | None = None,
    shown: bool = False,
) -> Index:
    """Build an index of the features in a store. spec: needed where there are several."""
    features = store.as_numpy(spec)
    if features.ndim != 2:
        raise ValueError(f"{store.directory} holds maps, {features.shape[1:]} an image: choose a spec with a pool")
    store.warn_of_changes("`randfeat index sync` reads these again")
    changed = store.changed()
    others = None if changed is None else {*changed}
    root, classes = Path(store.meta["source"]["name"]), store.classes
    root = root.parent if root.is_file() else root
    known = (store.directory / META).stat().st_mtime_ns

    def found(path: str) -> State:
        name, size, mtime_ns, ctime_ns = state_of(os.path.join(root, path))  # noqa: PTH118
        if mtime_ns is None:  # it is gone, or a broken link; or it lies elsewhere, or in an archive
            of_folder = root.is_dir() and store.meta["source"].get("root") is not None
            return name if of_folder or os.path.lexists(name) else path, None, None, None
        as_read = mtime_ns <= known if others is None else path not in others
        return (name, size, mtime_ns, ctime_ns) if as_read else (name, None, None, None)

    states = [found(one) for one in store.paths]
    rows = [
        (path, label_of(label, classes), size, mtime, ctime)
        for (path, size, mtime, ctime), label in zip(states, store.table["label"].to_pylist(), strict=True)
    ]
    table = with_digests(table_of(rows), digests_of(states, shown))
    skipped: list[Skipped] = []
    for one, reason in store.skipped:
        path, size, mtime, ctime = found(one)
        skipped.append((path, reason, size, mtime, ctime))
    index = Index.begin(directory, index_type, metric, features.shape[1], store.encoder_record(spec), whiten)
    with index._creating():
        index._fill([features], table, memory, shown, skipped)
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
    """Bring an index up to date with the images of `source`: read those that are new or have other bytes, take over
    labels and, with `drop`, remove those that are gone from the folder. Images are looked at that are new, or have
    another size or times of change; those with the bytes of a row (renamed, moved, copied, touched) are not read again.

    encoder: the index's own; not needed where nothing is to be read.
    """
    if index.directory is None:
        raise ValueError("an index in memory is kept in step with nothing: save it first, and open it from there")
    if index.encoder_record is None:
        raise ValueError(f"{index!r} holds numbers that no model read: add to it with `Index.add`")
    with index._writing():
        todo, rows = plan(index, source, drop), SCHEMA.empty_table()
        parts: list[Part] = []
        skipped: list[Skipped] = []
        if todo.to_read:
            if encoder is None:
                raise ValueError(f"{len(todo.to_read):,} images are to be read: give the encoder of the index")
            check(index.encoder_record, encoder)
            read = ImageReader(index, encoder, source, batch_size, workers)
            parts, rows, skipped = read(todo.table, todo.to_read, shown)
        if todo.known:
            again = todo.table.take([*todo.known])
            for part, which in index.parts([*todo.known.values()]):
                parts, rows = [*parts, part], pa.concat_tables([rows, again.take(which)])
        moved = {todo.table["path"][number].as_py(): todo.known[number] for number in todo.moved}
        lost = {path for path, *_ in skipped}  # changed into what cannot be read: its row goes
        lost_ids = [id_ for id_ in index.find(sorted(lost)) if id_ is not None]
        gone = [id_ for id_, _ in todo.gone] + lost_ids
        if todo or skipped:
            read_now = {*rows["path"].to_pylist()}
            old = [one for one in index.skipped if one[0] not in todo.forgotten | lost | read_now]
            index._change(parts, rows, gone, [*old, *skipped], moved)
        if todo.to_read:
            read.clear()
    of_new = {todo.table["path"][number].as_py() for number in todo.new}
    return Changes(
        len(of_new - lost),
        len(todo.changed) - len(lost - of_new),
        len(todo.relabelled),
        len(todo.moved),
        len(todo.copied),
        len(gone),
        todo.unchanged,
        [(path, reason) for path, reason, *_ in skipped],
    )
