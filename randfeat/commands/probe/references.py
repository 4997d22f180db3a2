"""What features have to beat, as feature sets with the same search: pixels and what is made of them, and tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from randfeat import weights
from randfeat.data import CentreCrop
from randfeat.encoders import PipelineEncoder
from randfeat.pipeline import Pipeline
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
from randfeat.sources import Source
from randfeat.tokenizers import PatchTokenizer
from randfeat.tokenizers.vq import VQTokenizer

from .inputs import Contender, Part, Sources

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
    found = [source for source in sources if isinstance(source, Source)]
    if not found or len(found) < len(sources):
        raise ValueError("baselines read pictures, and there are none here: give DATA with images, or no --baselines")
    parts = (train, test)
    readers = [_Reader(source, part) for source, part in zip((found[0], found[-1]), parts, strict=True)]
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
    seen = set()
    for contender in contenders:
        if isinstance(contender.encoder, PipelineEncoder):
            pipeline = contender.encoder.pipeline
            if (mark := weights.fingerprint(pipeline.tokenizer)) not in seen:
                seen.add(mark)
                sets.append(made(f"tokens of {contender.short}", **_tokens(pipeline, readers)))
    return sets


class _Reader:
    """The pictures of the images of a part."""

    def __init__(self, source: Source, part: Part) -> None:
        row_of = {path: row for row, path in enumerate(source.paths)}
        if missing := [path for path in part.paths.tolist() if path not in row_of]:
            raise ValueError(f"{source.name} has no image {missing[0]}: give the DATA that the features are of")
        self.source, self.rows = source, [row_of[path] for path in part.paths.tolist()]

    def __iter__(self) -> Iterator[Image.Image]:
        return (self.source.read(row) for row in self.rows)

    def pictures(self, crop: CentreCrop) -> np.ndarray:
        """uint8 (n, h, w, channels)."""
        made = np.empty((len(self.rows), *crop.size, crop.channels), dtype=np.uint8)
        for place, row in enumerate(self.rows):
            made[place] = crop(self.source.read(row))
        return made


def _crop(reader: _Reader) -> CentreCrop:
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


def _tokens(pipeline: Pipeline, readers: list[_Reader]) -> dict[str, Ends]:
    """How often each token occurs, and the tokenizer's own vectors of all of them where these are not too many."""
    tokenizer = pipeline.tokenizer

    def tokens_of(reader: _Reader) -> np.ndarray:
        images = reader.rows and pipeline.tokens(reader)
        return np.asarray(images, dtype=np.int64).reshape(len(reader.rows), pipeline.generator.num_tokens)

    ends = tokens_of(readers[0]), tokens_of(readers[1])
    readings = {"counts": _each(lambda tokens: token_counts(tokens, tokenizer.vocab_size), ends)}
    book: torch.Tensor | None = None
    if isinstance(tokenizer, PatchTokenizer):
        book = tokenizer.codebook
    elif isinstance(tokenizer, VQTokenizer):
        book = tokenizer.normalised(tokenizer.quantize.embedding.weight)
    if book is not None and book.shape[1] * ends[1].shape[1] <= CODES:
        vectors = book.detach().float().cpu().numpy()
        readings["codes"] = _each(lambda tokens: token_codes(tokens, vectors), ends)
    return readings
