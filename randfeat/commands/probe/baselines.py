"""Baselines that features are compared with: pixels and what is made of them, tokens, places and random weights.

Those for vectors are `FeatureSet`s; those for dense features are maps on the grid of the first model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from randfeat.data.images import CentreCrop
from randfeat.pipeline.pipeline import Pipeline
from randfeat.probes import (
    Components,
    FeatureSet,
    Labelled,
    PatchCounts,
    code_maps,
    colour_histogram,
    colour_maps,
    hog,
    hog_maps,
    pixel_maps,
    pixels,
    place_maps,
    recentred,
    token_codes,
    token_counts,
)
from randfeat.probes.protocol import CHANCE

from .inputs import RANDOM, Part, ProbedModel, Sources, check_complete, open_probed, random_name
from .pictures import PictureReader, Place, check_baselines, codebook, covering, pipelines, placement, readers_of

SIDE = 32  # pixels of the pictures that baselines on vectors see, at most
GREY_CHECKED = 16  # pictures that are opened to find out whether all are grey
COMPONENTS = (16, 64, 256)
CODES = 1 << 14  # numbers of the vectors of an image's tokens, at most
PIXELS = "pixels"
CELL = (2, 8)  # pixels of the side of a cell of a dense baseline, at least and at most
NUMBERS = 1 << 30  # of the pixels of all cells of a part, at most: 4 GiB
NOISE = 16  # dimensions of chance
PLAIN, PLACED = "plain", "with place"

Ends = tuple[np.ndarray, np.ndarray]  # of train and of test
Maps = dict[str, np.ndarray]  # by feature spec, (n, D, h, w)


# random weights -----------------------------------------------------------------------------------------------------


def random_weights(
    models: Sequence[ProbedModel], sources: Sources, specs: Sequence[str], args: argparse.Namespace, dense: bool
) -> list[ProbedModel]:
    """Return the network of each model with random weights, each architecture once, unless the user gave it as well.

    specs, dense: see `open_probed`.
    """
    known = {model.text for model in models}
    fresh: dict[str, ProbedModel] = {}
    for model in models:
        if model.encoder is None or model.text.startswith(RANDOM):
            continue
        if (text := random_name(model.text)) not in known:
            name = RANDOM + model.name if model.name else ""
            made = replace(open_probed(text, sources, specs, args, dense), name=name)
            fresh.setdefault(made.stores[0].fingerprint(made.specs[0]), made)
    return list(fresh.values())


# vectors ------------------------------------------------------------------------------------------------------------


def vector_baselines(sources: Sources, train: Part, test: Part, models: Iterable[ProbedModel]) -> list[FeatureSet]:
    """Return pixels, recentred pixels, HOG, PCA, patch counts, colours where there are some, and tokens of the models.

    They see pictures of at most `SIDE` pixels a side, as large as the first of test.
    """
    models = list(models)
    check_baselines(models)
    parts, readers = (train, test), readers_of(sources, train, test)
    crop = _crop(readers[1])
    ends = readers[0].pictures(crop), readers[1].pictures(crop)

    def made(name: str, **features: Ends) -> FeatureSet:
        both = [
            Labelled({variant: x[end] for variant, x in features.items()}, part.labels, part.paths, part.groups)
            for end, part in enumerate(parts)
        ]
        return FeatureSet(name, *both, baseline=True)

    plain = _each(pixels, ends)
    sets = [made(PIXELS, pixels=plain), made("recentred pixels", pixels=_each(recentred, ends))]
    sets.append(made("HOG", cells=_each(hog, ends)))
    if len(train):
        sets.append(made("PCA of pixels", **{f"{count}": _fitted(Components(count), plain) for count in COMPONENTS}))
    if len(train) and min(crop.size) >= PatchCounts().patch:
        counts = {f"{cells}x{cells}": _fitted(PatchCounts(cells=cells), ends) for cells in (1, 2)}
        sets.append(made("patch counts", **counts))
    if crop.channels == 3:
        sets.append(made("colour histogram", colours=_each(colour_histogram, ends)))
    sets += [made(f"tokens of {name}", **_tokens(pipeline, readers)) for name, pipeline in pipelines(models)]
    return sets


def _crop(reader: PictureReader) -> CentreCrop:
    first = [reader.source.read(row) for row in reader.rows[:GREY_CHECKED]]
    side = min(SIDE, *first[0].size)
    return CentreCrop((side, side), 1 if all(picture.mode == "L" for picture in first) else 3)


def _each(make: Callable[[np.ndarray], np.ndarray], ends: Ends) -> Ends:
    """Apply `make` to both ends; an empty train gets the shape of test."""
    of_test = make(ends[1])
    return (make(ends[0]) if len(ends[0]) else of_test[:0]), of_test


def _fitted(transformer: Any, ends: Ends) -> Ends:
    transformer.fit(ends[0])
    return transformer.transform(ends[0]), transformer.transform(ends[1])


def _tokens(pipeline: Pipeline, readers: list[PictureReader]) -> dict[str, Ends]:
    """Return how often each token occurs, and the tokenizer's vectors of all tokens unless these are too large."""
    ends = readers[0].tokens(pipeline), readers[1].tokens(pipeline)
    found = {"counts": _each(lambda tokens: token_counts(tokens, pipeline.tokenizer.vocab_size), ends)}
    book = codebook(pipeline.tokenizer)
    if book is not None and book.shape[1] * ends[1].shape[1] <= CODES:
        found["codes"] = _each(lambda tokens: token_codes(tokens, book), ends)
    return found


# dense features -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """Dense features of a model or a baseline: maps of each part of the images, and the crop that they cover."""

    name: str
    parts: list[Maps]
    place: Place


def dense_features(model: ProbedModel, name: str) -> DenseFeatures:
    """Return the maps of a model, a part for each of its stores; a ValueError where an image or a map is missing."""
    place = _place(model)
    check_complete(model)
    for spec in model.specs:
        _grid(model, spec)
    parts = [{spec: store.as_numpy(spec) for spec in model.specs} for store in model.stores]
    return DenseFeatures(name, parts, place)


def dense_noise(entry: DenseFeatures, seed: int) -> DenseFeatures:
    """Return chance: maps of noise on the same grids."""
    rng = np.random.default_rng(seed)

    def of(part: Maps) -> Maps:
        n, _, h, w = next(iter(part.values())).shape
        return {"noise": rng.standard_normal((n, NOISE, h, w), dtype=np.float32)}

    return DenseFeatures(CHANCE, [of(part) for part in entry.parts], entry.place)


def dense_baselines(
    readers: Sequence[PictureReader], models: Sequence[ProbedModel], place: Place | None = None
) -> list[DenseFeatures]:
    """Return patch pixels, HOG cells, cell colours, the tokens of randfeat's models, and the place alone.

    All but tokens are on the grid of the first model, of the crop `place` (its own by default); tokens are on the grids
    of their models. All but the place come as they are, and with the place of each cell beside them.
    """
    check_baselines(models)
    first = models[0]
    grid = _grid(first, first.specs[0])
    if place is None:
        place = _place(first)
    side = _side(readers, grid)
    pictures = [reader.placed(place, (side * grid[0], side * grid[1])) for reader in readers]
    makers: dict[str, Callable[..., np.ndarray]] = {
        "patch pixels": pixel_maps,
        "HOG cells": hog_maps,
        "cell colours": colour_maps,
    }
    made = [
        DenseFeatures(name, [_with_place(make(part, grid)) for part in pictures], place)
        for name, make in makers.items()
    ]
    for name, pipeline in pipelines(models):
        if (book := codebook(pipeline.tokenizer)) is not None:
            maps = [code_maps(reader.tokens(pipeline), book, pipeline.generator.grid) for reader in readers]
            crop = partial(covering, pipeline.image_size, 1.0)
            made.append(DenseFeatures(f"tokens of {name}", [_with_place(part) for part in maps], crop))
    places = [{PLAIN: place_maps(len(reader), grid)} for reader in readers]
    return [*made, DenseFeatures("the same place", places, place)]


def attentive_baselines(sources: Sources, train: Part, test: Part, models: Sequence[ProbedModel]) -> list[FeatureSet]:
    """Return the baselines of attentive probes: dense ones, and `vector_baselines` as maps of one cell.

    Attention makes little of cells that say little each, so the vectors are the stronger ones. Dense baselines see the
    largest centred part of a picture that has the shape of the grid; the place alone is left out, as it is the same in
    every image.
    """
    parts, everything = (train, test), partial(covering, _grid(models[0], models[0].specs[0]), 1.0)
    *found, _ = dense_baselines(readers_of(sources, *parts), models, everything)
    dense = [
        FeatureSet(
            one.name,
            *(Labelled(x, p.labels, p.paths, p.groups) for x, p in zip(one.parts, parts, strict=True)),
            baseline=True,
        )
        for one in found
    ]
    return dense + [
        replace(one, name=f"{one.name}, one cell", train=_one_cell(one.train), test=_one_cell(one.test))
        for one in vector_baselines(sources, train, test, models)
    ]


def _one_cell(part: Labelled) -> Labelled:
    return replace(part, features={variant: x[:, :, None, None] for variant, x in part.features.items()})


def _place(model: ProbedModel) -> Place:
    if model.encoder is None:
        raise ValueError(f"{model.text} is a store, which does not say how pictures were cropped: give the model")
    return placement(model.encoder)


def _grid(model: ProbedModel, spec: str) -> tuple[int, int]:
    """Return rows and columns of a model's maps; a ValueError where its features are vectors."""
    shape = model.stores[0].as_numpy(spec).shape
    if len(shape) != 4:
        raise ValueError(f"{spec} gives no dense map: choose the pool none")
    return shape[2], shape[3]


def _side(readers: Sequence[PictureReader], grid: tuple[int, int]) -> int:
    """Return the pixels of a cell's side: as many as the first picture has, within CELL and below NUMBERS in all."""
    width, height = next(iter(readers[-1])).size
    side = min(max(min(width // grid[1], height // grid[0]), CELL[0]), CELL[1])
    most = max(len(reader) for reader in readers) * grid[0] * grid[1] * 3
    while side > CELL[0] and most * side**2 > NUMBERS:
        side -= 1
    return side


def _with_place(maps: np.ndarray) -> Maps:
    """Return maps as they are, and with the place of each cell beside them."""
    n, _, h, w = maps.shape
    return {PLAIN: maps, PLACED: np.concatenate([maps, place_maps(n, (h, w))], axis=1)}
