"""Inputs of a probe: models and stores with features of the same images, and the images of train and of test."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from randfeat.data.labels import as_text
from randfeat.data.sources import Source, TokenSource, open_source, splits, table
from randfeat.data.states import Inputs, StaleResult
from randfeat.data.store import META
from randfeat.features.encoder import EMBEDDING, OPEN_CLIP, TIMM, Encoder
from randfeat.features.extract import extract
from randfeat.features.opening import open_encoder
from randfeat.features.store import FeatureStore
from randfeat.probes import FeatureSet, Labelled, hold_out
from randfeat.utils.resume import is_unfinished
from randfeat.weights.fresh import RANDOM

from ..options import dtype_of, pick_device, short_name

TEST_SHARE = 0.3
Sources = Sequence["Source | TokenSource"]


@dataclass(frozen=True, eq=False)
class ProbedModel:
    """A model or stored features.

    text: as the user gave it. stores: of train and of test, or one of both. specs: the feature specs that are measured.
    encoder: None where only features are stored. name: for tables, "" where the user gave none.
    """

    text: str
    stores: tuple[FeatureStore, ...]
    specs: tuple[str, ...]
    encoder: Encoder | None = None
    name: str = ""

    @property
    def short_name(self) -> str:
        """Name for tables: the one that was given, or the last two parts of the path."""
        return self.name or short_name(self.text)


@dataclass(frozen=True, eq=False)
class Part:
    """Images of train or of test: paths, labels and groups (or None), each (n,)."""

    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None

    def __getitem__(self, rows: np.ndarray) -> Part:
        return Part(self.paths[rows], self.labels[rows], None if self.groups is None else self.groups[rows])

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, paths: Collection[str]) -> Part:
        """Return the images but those of these paths."""
        return self[~np.isin(self.paths, list(paths))] if paths else self


# images -------------------------------------------------------------------------------------------------------------


def open_data(data: str, split: Sequence[str] | None, labels: Path | None, label_column: str | None = None) -> Sources:
    """Return the sources of train and of test; one, where DATA has no such parts, or `split` names the same one twice.

    split: the parts of train and of test, each a name, several with commas, or "all". Raises a ValueError where these
    have some of their images in common.
    """
    found = {} if split is not None else _parts(data)
    if found and labels is None and label_column is None:
        return list(found.values())
    sources = [open_source(data, part, labels, label_column) for part in dict.fromkeys(split or found)]
    if split is None or len(sources) < 2:
        return sources
    train, test = ({splits.canonical(name) for name in splits.named(part)} for part in split)
    if train == test and sources[0].fingerprint() == sources[1].fingerprint():  # "val" and "validation"
        return sources[:1]
    if common := sorted(train & test) or sorted((train | test) & {splits.ALL}):
        raise ValueError(
            f"--split {' '.join(split)} has {common[0]} in train and in test: give parts without common images, or one "
            "part twice, of which a share is test"
        )
    return sources


def _parts(data: str) -> dict[str | None, Source | TokenSource]:
    """Return the sources of train and of test by the names of these parts, or one source under None."""
    try:
        train = open_source(data, "train")
    except ValueError:  # DATA has no splits, or cannot be opened: then the next call raises
        return {None: open_source(data)}
    for part in ("test", "val"):
        try:
            return {"train": train, part: open_source(data, part)}
        except ValueError:
            continue
    return {None: open_source(data)}  # DATA has train alone; with other parts beside it this raises and names them


def part_of(rows: FeatureStore | Source | TokenSource, group: str | None, data: str | None = None) -> Part:
    """Return the labelled images of a store or of a source.

    group: `parent`, or a column of the table that `data` is, by default of the table that the images were read from.
    """
    labels = rows.labels
    if labels is None:
        name = _name(rows)
        why = table.without_labels(name) or "give a folder for each class, or a list with labels"
        raise ValueError(f"{name} has no labels: {why}")
    codes = np.array([-1 if label is None else label for label in labels])
    known = codes >= 0
    named = codes[known] if rows.classes is None else np.array(rows.classes)[codes[known]]
    paths = np.array(rows.paths)[known]
    name = data if data is not None and Path(data).suffix.lower() in table.TABLES else _name(rows)
    return Part(paths, named, None if group is None else _groups(group, paths.tolist(), name))


def _groups(column: str, paths: Sequence[str], name: str) -> np.ndarray:
    """Return the group of each image (n,). name: the table with the column, unless this is `parent`."""
    if column == "parent":
        return np.array([PurePosixPath(path).parent.as_posix() for path in paths])
    if Path(name).suffix.lower() not in table.TABLES or not Path(name).is_file():
        raise ValueError(f"{name} is no table, so it has no column {column}: leave --group out, or choose parent")
    group_of = table.read_column(Path(name), column)
    groups = [as_text(group_of.get(path)) for path in paths]
    if None in groups:
        raise ValueError(f"{name} has no {column} for {paths[groups.index(None)]}: expected one for every image")
    return np.array(groups)


def _name(rows: FeatureStore | Source | TokenSource) -> str:
    return rows.meta["source"]["name"] if isinstance(rows, FeatureStore) else rows.name


def train_and_test(parts: Sequence[Part], share: float, seed: int) -> tuple[Part, Part]:
    """Return train and test: two parts as they are; of one part, `share` of the images as test, no group in both.

    share: 0 leaves train empty.
    """
    if len(parts) == 2:
        return parts[0], parts[1]
    everything = parts[0]
    if share == 0:
        return everything[np.zeros(len(everything), dtype=bool)], everything
    test = hold_out(everything.labels, everything.groups, share, seed)
    return everything[~test], everything[test]


# features -----------------------------------------------------------------------------------------------------------


def open_probed(
    text: str, sources: Sources, specs: Sequence[str], args: argparse.Namespace, dense: bool = False
) -> ProbedModel:
    """Return a store, two (TRAIN,TEST), or a model whose features of all sources are extracted unless they are stored.

    specs: empty for all of a store, and for a model's default. dense: whether these are the dense ones.
    """
    if (stored := open_stored(text, specs, dense)) is not None:
        _check_stored(stored, sources)
        return stored
    if not sources:
        raise ValueError(f"{text} is no feature store: give DATA as well for a model to read")
    encoder = open_model(text, specs, pick_device(args), dtype_of(args), args.seed, dense)
    return extract_probed(text, encoder, sources, args)


def open_all(
    texts: Sequence[str], sources: Sources, args: argparse.Namespace, dense: bool = False
) -> list[ProbedModel]:
    """Return models and stores as `open_probed` does, with the names of --name."""
    names = given_names(texts, args)
    return [
        replace(open_probed(text, sources, args.spec, args, dense), name=name)
        for text, name in zip(texts, names, strict=True)
    ]


def given_names(texts: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Return the name of each model by --name, "" where that is not given; a ValueError unless it names each once."""
    names = args.name or [""] * len(texts)
    if len(names) != len(texts):
        raise ValueError(f"--name gives {len(names)} names to {len(texts)} models: give one for each, in this sequence")
    if args.name and len(set(names)) < len(names):
        raise ValueError(f"--name gives the same name twice ({', '.join(names)}): give each model its own")
    return names


def open_stored(text: str, specs: Sequence[str], dense: bool = False) -> ProbedModel | None:
    """Return a store, or two; None where `text` names a model. specs, dense: see `open_probed`."""
    if stores := _stores(text):
        for store in stores:
            store.warn_of_changes("extract them anew to measure the images as they are")
        there = [spec for spec in stores[0].specs if all(spec in store.specs for store in stores)]
        wanted = [spec for spec in there if (spec in specs if specs else not dense or is_dense(spec))]
        if not wanted:
            asked = " or ".join(specs) or ("of every position" if dense else "that both stores have")
            raise ValueError(f"{text} holds no feature {asked}: there is {', '.join(stores[0].specs)}")
        return ProbedModel(text, tuple(stores), tuple(wanted))
    return None


def _check_stored(stored: ProbedModel, sources: Sources) -> None:
    """Warn where stored features are of images of DATA, in archives, whose files have changed since."""
    for store in stored.stores:
        if store.changed() is not None:  # the store knows its files
            continue
        for source in sources:
            if store.meta["source"]["fingerprint"] == source.fingerprint():
                changed = Inputs(source, store.directory).changed()
                if changed:
                    warnings.warn(
                        f"the features in {store.directory} are of {len(changed):,} images that have changed since, "
                        f"such as {source.paths[changed[0]]}: extract them anew to measure the images as they are.",
                        stacklevel=3,
                    )


def _stores(text: str) -> list[FeatureStore]:
    folders = [Path(text)] if Path(text).exists() else [Path(part) for part in text.split(",")]
    begun = [(one / META).is_file() or is_unfinished(one) for one in folders]
    return [FeatureStore.open(one) for one in folders] if all(begun) and len(folders) < 3 else []


def extract_probed(text: str, encoder: Encoder, sources: Sources, args: argparse.Namespace) -> ProbedModel:
    """Return a model whose features of all sources are extracted, unless they are stored already."""
    folder = args.stores or args.out / "stores"
    return ProbedModel(
        text, tuple(_extract(encoder, source, folder, args) for source in sources), encoder.specs, encoder
    )


def _extract(encoder: Encoder, source: Source | TokenSource, folder: Path, args: argparse.Namespace) -> FeatureStore:
    """Return the features of a source, in a folder whose name follows from everything that decides them.

    Those of images whose files have changed since are made anew, which is said.
    """
    decides = json.dumps([encoder.record(), source.fingerprint()], sort_keys=True)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", encoder.name)[-60:].strip("-.")
    directory = folder / f"{slug}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}"
    try:
        return extract(encoder, source, directory, args.batch_size, args.workers)
    except StaleResult as stale:
        warnings.warn(
            f"{len(stale.rows):,} of {len(source):,} images have changed since {directory} was made of them, such as "
            f"{source.paths[stale.rows[0]]}: it is made anew.",
            stacklevel=2,
        )
    shutil.rmtree(directory)
    return extract(encoder, source, directory, args.batch_size, args.workers)


def random_name(text: str) -> str:
    """Return the name of the same network with random weights."""
    if text.startswith(RANDOM):
        return text
    return RANDOM + (text.partition("@")[0] if text.startswith((TIMM, OPEN_CLIP)) else text)


def open_model(
    text: str,
    specs: Sequence[str],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    dense: bool = False,
) -> Encoder:
    """Return an encoder of MODEL. dense: see `open_probed`.

    specs: those of other kinds of models (of timm, of open_clip, of randfeat) are ignored. seed: of random weights.
    """
    own = [spec for spec in specs if family_of(spec) == family(text)]
    encoder = open_encoder(text, own, device, dtype, seed)
    return encoder.dense() if dense and not own else encoder


def family(model: str) -> str:
    """Return the beginning of the names of a model's kind, "" of randfeat's own."""
    return next((one for one in (TIMM, OPEN_CLIP) if model.removeprefix(RANDOM).startswith(one)), "")


def family_of(spec: str) -> str:
    """Return the beginning of the names of the models that a feature spec is for, "" of randfeat's own."""
    if spec == EMBEDDING:
        return OPEN_CLIP
    return TIMM if spec.startswith("pooled") or re.match(r"L[-\d]", spec) is not None else ""


def is_dense(spec: str) -> bool:
    """Return whether a feature spec, of randfeat or of timm, gives a map instead of a vector."""
    return "none" in spec.split("/")


def feature_set(model: ProbedModel, train: Part, test: Part, name: str, baseline: bool = False) -> FeatureSet:
    """Return a model's features of the images of train and of test."""
    stores = model.stores
    ends = [features_of(store, model.specs, part) for store, part in ((stores[0], train), (stores[-1], test))]
    parts = [Labelled(x, part.labels, part.paths, part.groups) for x, part in zip(ends, (train, test), strict=True)]
    own = {store.directory: store for store in stores}.values()
    prints = {
        "features": " ".join(store.fingerprint(spec) for store in own for spec in model.specs),
        "data": " ".join(store.meta["source"]["fingerprint"] for store in own),
    }
    return FeatureSet(name, *parts, baseline, prints)


def features_of(store: FeatureStore, specs: Sequence[str], part: Part) -> dict[str, np.ndarray]:
    """Return by feature spec the rows of a store that are the images of a part.

    Memory-mapped where these are all rows in their order.
    """
    row_of = {path: row for row, path in enumerate(store.paths)}
    if missing := [path for path in part.paths.tolist() if path not in row_of]:
        raise ValueError(
            f"{store.directory} has no features of {len(missing):,} images, such as {missing[0]}: measure stores "
            "of the same images together"
        )
    rows = np.array([row_of[path] for path in part.paths.tolist()], dtype=np.intp)
    complete = len(rows) == len(store) and bool((rows == np.arange(len(rows))).all())
    return {spec: store.as_numpy(spec) if complete else store.as_numpy(spec)[rows] for spec in specs}


def skipped_of(models: Sequence[ProbedModel], of_last: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Return path and reason of each image that could not be read when the models read DATA; stores as given have
    told them before.

    of_last: further ones of the last split. An image that several models met counts once, but two of equal names in two
    splits are two.
    """
    met = [(0, path, reason) for path, reason in of_last]
    for model in models:
        if model.encoder is not None:
            met += [(end, *one) for end, store in enumerate(reversed(model.stores)) for one in store.skipped]
    return [(path, reason) for _, path, reason in dict.fromkeys(met)]


def check_complete(model: ProbedModel) -> None:
    """Raise a ValueError where images of a model's stores could not be read."""
    for store in model.stores:
        if unread := store.skipped:
            raise ValueError(f"{unread[0][0]} cannot be read ({unread[0][1]}): get it again")


def display_names(probed: Sequence[ProbedModel]) -> list[str]:
    """Return one name for each model: the one that was given, else with the feature spec if it has but one.

    Else it is the short name, or the text where two short names are equal.
    """
    shorts = [model.short_name for model in probed]
    plain = [m.short_name if m.name or shorts.count(m.short_name) == 1 else m.text for m in probed]
    return [
        f"{name} {one.specs[0]}" if len(one.specs) == 1 and not one.name else name
        for name, one in zip(plain, probed, strict=True)
    ]
