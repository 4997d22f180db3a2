"""What is measured: models and stores, read on the same images, cut into train and test."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from randfeat import models
from randfeat.data.sources import Source, TokenSource, open_source
from randfeat.data.sources import table as tables
from randfeat.features.encoder import TIMM, Encoder, PipelineEncoder, open_encoder
from randfeat.features.extract import extract
from randfeat.features.store import META, FeatureStore
from randfeat.pipeline.pipeline import Pipeline
from randfeat.probes import FeatureSet, Labelled, hold_out
from randfeat.utils import devices, resume
from randfeat.weights.loading import load

RANDOM = "random:"
SHARE = 0.3
Sources = Sequence["Source | TokenSource"]


@dataclass(frozen=True, eq=False)
class Contender:
    """One model or store. stores: of train and of test, or one of both. specs: those that are measured. encoder: of a
    model."""

    text: str
    stores: tuple[FeatureStore, ...]
    specs: tuple[str, ...]
    encoder: Encoder | None = None

    @property
    def short(self) -> str:
        """A name for tables, without folders."""
        parts = re.split(r"(random:|timm:|@|,)", self.text)
        return "".join(PurePosixPath(part).name if part else "" for part in parts)


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


# data ---------------------------------------------------------------------------------------------------------------


def open_data(data: str, split: Sequence[str] | None, labels: Path | None, label_column: str | None = None) -> Sources:
    """Return the sources of train and of test; one, where DATA has no such parts."""
    found = {} if split is not None else _parts(data)
    if found and labels is None and label_column is None:
        return list(found.values())
    return [open_source(data, part, labels, label_column) for part in split or found]


def _parts(data: str) -> dict[str | None, Source | TokenSource]:
    """Its parts by name, None for the whole."""
    try:
        train = open_source(data, "train")
    except ValueError:  # it has no splits, or is none: which is said then
        return {None: open_source(data)}
    for part in ("test", "val"):
        try:
            return {"train": train, part: open_source(data, part)}
        except ValueError:
            continue
    return {None: open_source(data)}  # where train is all there is; else it says which parts there are


def groups_of(column: str, paths: Sequence[str], name: str) -> np.ndarray:
    """Return the group of each image (n,). name: of the data that names them, a list where `column` is one of its
    columns."""
    if column == "parent":
        return np.array([PurePosixPath(path).parent.as_posix() for path in paths])
    if Path(name).suffix.lower() not in tables.TABLES or not Path(name).is_file():
        raise ValueError(f"{name} is no table, so it has no column {column}: leave --group out, or choose parent")
    group_of = tables.read_column(Path(name), column)
    if missing := [path for path in paths if group_of.get(path) is None]:
        raise ValueError(f"{name} has no {column} for {missing[0]}: expected one for every image")
    return np.array([str(group_of[path]) for path in paths])


# features -----------------------------------------------------------------------------------------------------------


def open_contender(
    text: str, sources: Sources, specs: Sequence[str], args: argparse.Namespace, dense: bool = False
) -> Contender:
    """Return a store, two (TRAIN,TEST), or a model whose features of all sources are read, unless they are there
    already.

    specs: none stands for all of a store, and for a model's own; dense: for those of every position.
    """
    if (stored := open_stored(text, specs, dense)) is not None:
        return stored
    if not sources:
        raise ValueError(f"{text} is no feature store: give DATA as well for a model to read")
    encoder = open_model(text, specs, devices.pick(args.device), getattr(torch, args.dtype), args.seed, dense)
    return read_contender(text, encoder, sources, args)


def open_stored(text: str, specs: Sequence[str], dense: bool = False) -> Contender | None:
    """Return a store, or two; None for a model. specs, dense: see `open_contender`."""
    if stores := _stores(text):
        there = [spec for spec in stores[0].specs if all(spec in store.specs for store in stores)]
        wanted = [spec for spec in there if (spec in specs if specs else not dense or is_dense(spec))]
        if not wanted:
            asked = " or ".join(specs) or ("of every position" if dense else "that both stores have")
            raise ValueError(f"{text} holds no feature {asked}: there is {', '.join(stores[0].specs)}")
        return Contender(text, tuple(stores), tuple(wanted))
    return None


def read_contender(text: str, encoder: Encoder, sources: Sources, args: argparse.Namespace) -> Contender:
    """Return a model whose features of all sources are read, unless they are there already."""
    folder = args.stores or args.out / "stores"
    return Contender(text, tuple(_read(encoder, source, folder, args) for source in sources), encoder.specs, encoder)


def fresh_of(text: str) -> str:
    """Return the same network with random weights, by name."""
    if text.startswith(RANDOM):
        return text
    return RANDOM + (text.partition("@")[0] if text.startswith(TIMM) else text)


def open_model(
    text: str,
    specs: Sequence[str],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    dense: bool = False,
) -> Encoder:
    """Return an encoder of MODEL; specs of the other kind (of timm's models, or of ours) are left aside. dense: see
    `open_contender`."""
    own = [spec for spec in specs if _is_of_timm(spec) == text.removeprefix(RANDOM).startswith(TIMM)]
    encoder = _open(text, own, device, dtype, seed)
    return encoder.dense() if dense and not own else encoder


def _open(text: str, own: Sequence[str], device: torch.device, dtype: torch.dtype, seed: int) -> Encoder:
    plain = text.removeprefix(RANDOM)
    if plain == text:
        return open_encoder(text, own, device, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if plain.startswith(TIMM):
            from randfeat.features.timm_encoder import open_timm

            encoder = open_timm(plain.removeprefix(TIMM), own, device, dtype, fresh=True)
            encoder.name = text
            return encoder
        trained = load(plain, device=device, dtype=dtype)
        config = trained.generator.config
        fresh = models.create(models.name_of(trained.generator), **config).to(device, dtype)
        return PipelineEncoder(Pipeline(trained.tokenizer, fresh), own, text)


def feature_set(contender: Contender, train: Part, test: Part, name: str, baseline: bool = False) -> FeatureSet:
    """Its features of the images of train and of test."""
    stores = contender.stores
    ends = [features_of(store, contender.specs, part) for store, part in ((stores[0], train), (stores[-1], test))]
    parts = [Labelled(x, part.labels, part.paths, part.groups) for x, part in zip(ends, (train, test), strict=True)]
    own = {store.directory: store for store in stores}.values()
    prints = {
        "features": " ".join(store.fingerprint(spec) for store in own for spec in contender.specs),
        "data": " ".join(store.meta["source"]["fingerprint"] for store in own),
    }
    return FeatureSet(name, *parts, baseline, prints)


def names(contenders: Sequence[Contender]) -> list[str]:
    """Return one name for each: the short one, with the reading if there is but one, unless two would be called the
    same."""
    shorts = [contender.short for contender in contenders]
    plain = [c.short if shorts.count(c.short) == 1 else c.text for c in contenders]
    specs = [contender.specs for contender in contenders]
    return [f"{name} {own[0]}" if len(own) == 1 else name for name, own in zip(plain, specs, strict=True)]


def part_of(rows: FeatureStore | Source | TokenSource, group: str | None, data: str | None = None) -> Part:
    """Return the labelled images of a store or of a source. data: the table that has the groups, if it is not the one
    that they were read from."""
    labels = rows.labels
    if labels is None:
        name = _name(rows)
        why = tables.without_labels(name) or "give a folder for each class, or a list with labels"
        raise ValueError(f"{name} has no labels: {why}")
    codes = np.array([-1 if label is None else label for label in labels])
    known = codes >= 0
    named = codes[known] if rows.classes is None else np.array(rows.classes)[codes[known]]
    paths = np.array(rows.paths)[known]
    name = data if data is not None and Path(data).suffix.lower() in tables.TABLES else _name(rows)
    return Part(paths, named, None if group is None else groups_of(group, paths.tolist(), name))


def divided(parts: Sequence[Part], share: float, seed: int) -> tuple[Part, Part]:
    """Train and test: the two, or, of one, `share` of the images as test, no group in both; 0 leaves train empty."""
    if len(parts) == 2:
        return parts[0], parts[1]
    whole = parts[0]
    if share == 0:
        return whole[np.zeros(len(whole), dtype=bool)], whole
    test = hold_out(whole.labels, whole.groups, share, seed)
    return whole[~test], whole[test]


def _name(rows: FeatureStore | Source | TokenSource) -> str:
    return rows.meta["source"]["name"] if isinstance(rows, FeatureStore) else rows.name


def _stores(text: str) -> list[FeatureStore]:
    folders = [Path(text)] if Path(text).exists() else [Path(part) for part in text.split(",")]
    begun = [(one / META).is_file() or resume.is_unfinished(one) for one in folders]
    return [FeatureStore.open(one) for one in folders] if all(begun) and len(folders) < 3 else []


def _read(encoder: Encoder, source: Source | TokenSource, folder: Path, args: argparse.Namespace) -> FeatureStore:
    """Return the features of a source, in a folder whose name follows from all that decides them."""
    decides = json.dumps([encoder.record(), source.fingerprint()], sort_keys=True)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", encoder.name)[-60:].strip("-.")
    directory = folder / f"{slug}-{hashlib.sha256(decides.encode()).hexdigest()[:16]}"
    return extract(encoder, source, directory, args.batch_size, args.workers)


def _is_of_timm(spec: str) -> bool:
    return spec == "pooled" or re.match(r"L[-\d]", spec) is not None


def is_dense(spec: str) -> bool:
    """Return whether it reads every position and not the image, ours or timm's."""
    return "none" in spec.split("/")


def features_of(store: FeatureStore, specs: Sequence[str], part: Part) -> dict[str, np.ndarray]:
    """By reading, the rows of a store that are the images of a part; mapped from the disk where that is all of them."""
    row_of = {path: row for row, path in enumerate(store.paths)}
    if missing := [path for path in part.paths.tolist() if path not in row_of]:
        raise ValueError(
            f"{store.directory} has no features of {len(missing):,} images, such as {missing[0]}: measure stores "
            "of the same images together"
        )
    rows = np.array([row_of[path] for path in part.paths.tolist()], dtype=np.intp)
    whole = len(rows) == len(store) and bool((rows == np.arange(len(rows))).all())
    return {spec: store.as_numpy(spec) if whole else store.as_numpy(spec)[rows] for spec in specs}
