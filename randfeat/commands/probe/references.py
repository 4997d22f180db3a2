"""What features have to beat, as feature sets with the same search: pixels and what is made of them, and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from randfeat.data.images import CentreCrop
from randfeat.pipeline.pipeline import Pipeline
from randfeat.probes import (
    Components,
    FeatureSet,
    Labelled,
    PatchCounts,
    colour_histogram,
    hog,
    pixels,
    recentred,
    token_codes,
    token_counts,
)

from .inputs import Contender, Part, Sources
from .pictures import Reader, codebook, pipelines, read_by

SIDE = 32  # pixels of the pictures that baselines see, at most
LOOK = 16  # pictures that tell whether all are grey
COMPONENTS = (16, 64, 256)
CODES = 1 << 14  # numbers of the vectors of an image's tokens, at most
PIXELS = "pixels"

Ends = tuple[np.ndarray, np.ndarray]  # of train and of test


def references(sources: Sources, train: Part, test: Part, contenders: Iterable[Contender]) -> list[FeatureSet]:
    """Pixels, recentred pixels, HOG, PCA, patch counts, colours where there are some, and the tokens of our models.

    They see pictures of at most 32 pixels a side, as large as the first of test.
    """
    parts, readers = (train, test), read_by(sources, train, test)
    crop = _crop(readers[1])
    ends = readers[0].pictures(crop), readers[1].pictures(crop)

    def made(name: str, **features: Ends) -> FeatureSet:
        both = [
            Labelled({reading: x[end] for reading, x in features.items()}, part.labels, part.paths, part.groups)
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
    sets += [made(f"tokens of {name}", **_tokens(pipeline, readers)) for name, pipeline in pipelines(contenders)]
    return sets


def _crop(reader: Reader) -> CentreCrop:
    first = [reader.source.read(row) for row in reader.rows[:LOOK]]
    side = min(SIDE, *first[0].size)
    return CentreCrop((side, side), 1 if all(picture.mode == "L" for picture in first) else 3)


def _each(make: Callable[[np.ndarray], np.ndarray], ends: Ends) -> Ends:
    """`make` of both; of an empty train as many numbers as of test."""
    of_test = make(ends[1])
    return (make(ends[0]) if len(ends[0]) else of_test[:0]), of_test


def _fitted(transformer: Any, ends: Ends) -> Ends:
    transformer.fit(ends[0])
    return transformer.transform(ends[0]), transformer.transform(ends[1])


def _tokens(pipeline: Pipeline, readers: list[Reader]) -> dict[str, Ends]:
    """Return how often each token occurs, and the tokenizer's own vectors of all of them where these are not too
    many."""
    ends = readers[0].tokens(pipeline), readers[1].tokens(pipeline)
    readings = {"counts": _each(lambda tokens: token_counts(tokens, pipeline.tokenizer.vocab_size), ends)}
    book = codebook(pipeline.tokenizer)
    if book is not None and book.shape[1] * ends[1].shape[1] <= CODES:
        readings["codes"] = _each(lambda tokens: token_codes(tokens, book), ends)
    return readings
