"""What dense features have to beat: maps of pixels, edges, colours and tokens, and the place alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from randfeat.probes import FeatureSet, Labelled, code_maps, colour_maps, hog_maps, pixel_maps, place_maps

from .inputs import Contender, Part, Sources
from .pictures import Reader, codebook, pipelines, read_by
from .placing import Place, covering, placement
from .references import references

PATCH = (2, 8)  # pixels of the side of a cell, at least and at most
NUMBERS = 1 << 30  # of the pixels of all cells of a part, at most: 4 GiB
NOISE = 16  # dimensions of features that mean nothing
PLAIN, PLACED = "plain", "with place"

Maps = dict[str, np.ndarray]  # by reading, (n, D, h, w)


@dataclass(frozen=True, eq=False)
class Dense:
    """A baseline: its maps of each part of the images, and what of a picture they cover."""

    name: str
    parts: list[Maps]
    place: Place


def dense_of(contender: Contender, name: str) -> Dense:
    """Return the maps of a model, a part for each of its stores; a ValueError where an image or a map is missing."""
    place = _place(contender)
    for store in contender.stores:
        if unread := store.skipped:
            raise ValueError(f"{unread[0][0]} cannot be read ({unread[0][1]}): get it again")
    for spec in contender.specs:
        _grid(contender, spec)
    parts = [{spec: store.as_numpy(spec) for spec in contender.specs} for store in contender.stores]
    return Dense(name, parts, place)


def dense_noise(entry: Dense, seed: int) -> Dense:
    """Chance: maps of the same sizes that mean nothing."""
    rng = np.random.default_rng(seed)

    def of(part: Maps) -> Maps:
        n, _, h, w = next(iter(part.values())).shape
        return {"noise": rng.standard_normal((n, NOISE, h, w), dtype=np.float32)}

    return Dense("chance (noise)", [of(part) for part in entry.parts], entry.place)


def dense_references(
    readers: Sequence[Reader], contenders: Sequence[Contender], place: Place | None = None
) -> list[Dense]:
    """Patch pixels, HOG cells and cell colours on the grid of the first contender, of what `place` (by default its own)
    lets it see; the tokens of our models on their grids; and the place alone. All others are read as they are, and with
    the place beside them."""
    first = contenders[0]
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
    made = [Dense(name, [_readings(make(part, grid)) for part in pictures], place) for name, make in makers.items()]
    for name, pipeline in pipelines(contenders):
        if (book := codebook(pipeline.tokenizer)) is not None:
            maps = [code_maps(reader.tokens(pipeline), book, pipeline.generator.grid) for reader in readers]
            crop = partial(covering, pipeline.image_size, 1.0)
            made.append(Dense(f"tokens of {name}", [_readings(part) for part in maps], crop))
    return [*made, Dense("the same place", [{PLAIN: place_maps(len(reader), grid)} for reader in readers], place)]


def attended(sources: Sources, train: Part, test: Part, contenders: Sequence[Contender]) -> list[FeatureSet]:
    """These for attentive probes, to which the place alone says nothing: of the largest centred part of a picture that
    has the shape of the grid. And all `references`, each vector as a map of one cell: attention cannot put cells that
    say little together, and these are stronger."""
    parts, whole = (train, test), partial(covering, _grid(contenders[0], contenders[0].specs[0]), 1.0)
    *found, _ = dense_references(read_by(sources, *parts), contenders, whole)
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
        for one in references(sources, train, test, contenders)
    ]


def _one_cell(part: Labelled) -> Labelled:
    return replace(part, features={reading: x[:, :, None, None] for reading, x in part.features.items()})


def _place(contender: Contender) -> Place:
    if contender.encoder is None:
        raise ValueError(f"{contender.text} is a store, which does not say how pictures were cropped: give the model")
    return placement(contender.encoder)


def _grid(contender: Contender, spec: str) -> tuple[int, int]:
    """Rows and columns of its maps; a ValueError where these are none."""
    shape = contender.stores[0].as_numpy(spec).shape
    if len(shape) != 4:
        raise ValueError(f"{spec} gives no dense map: choose the pool none")
    return shape[2], shape[3]


def _side(readers: Sequence[Reader], grid: tuple[int, int]) -> int:
    """Pixels of the side of a cell: as many as the first picture has, within PATCH, and fewer of very many images."""
    width, height = next(iter(readers[-1])).size
    side = min(max(min(width // grid[1], height // grid[0]), PATCH[0]), PATCH[1])
    most = max(len(reader) for reader in readers) * grid[0] * grid[1] * 3
    while side > PATCH[0] and most * side**2 > NUMBERS:
        side -= 1
    return side


def _readings(maps: np.ndarray) -> Maps:
    """As they are, and with the place of each cell beside them."""
    n, _, h, w = maps.shape
    return {PLAIN: maps, PLACED: np.concatenate([maps, place_maps(n, (h, w))], axis=1)}
