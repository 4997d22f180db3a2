"""The pictures and the tokens that baselines are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from randfeat import weights
from randfeat.data.images import CentreCrop
from randfeat.data.sources import Source
from randfeat.features.encoder import PipelineEncoder
from randfeat.pipeline.pipeline import Pipeline
from randfeat.tokenizers import PatchTokenizer, Tokenizer
from randfeat.tokenizers.vq import VQTokenizer

from .inputs import Contender, Part, Sources
from .placing import Place, seen


class Reader:
    """The pictures of some images of a source."""

    def __init__(self, source: Source, paths: Sequence[str]) -> None:
        row_of = {path: row for row, path in enumerate(source.paths)}
        if missing := [path for path in paths if path not in row_of]:
            raise ValueError(f"{source.name} has no image {missing[0]}: give the DATA that the features are of")
        self.source, self.rows = source, [row_of[path] for path in paths]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Image.Image]:
        return (self.source.read(row) for row in self.rows)

    def pictures(self, crop: CentreCrop) -> np.ndarray:
        """uint8 (n, h, w, channels)."""
        made = np.empty((len(self), *crop.size, crop.channels), dtype=np.uint8)
        for row, picture in enumerate(self):
            made[row] = crop(picture)
        return made

    def placed(self, place: Place, size: tuple[int, int]) -> np.ndarray:
        """What `place` lets a model see of the pictures, in colour: uint8 (n, h, w, 3). size: (h, w)."""
        made = np.empty((len(self), *size, 3), dtype=np.uint8)
        for row, picture in enumerate(self):
            made[row] = seen(picture, place, size)
        return made

    def tokens(self, pipeline: Pipeline) -> np.ndarray:
        """int64 (n, N)."""
        images = self.rows and pipeline.tokens(self)
        return np.asarray(images, dtype=np.int64).reshape(len(self), pipeline.generator.num_tokens)


def read_by(sources: Sources, *parts: Part) -> list[Reader]:
    """Return a reader of each part. sources: one for each of them, or one for both; a ValueError where they hold no
    images."""
    found = [source for source in sources if isinstance(source, Source)]
    if not found or len(found) < len(sources):
        raise ValueError("baselines read pictures, and there are none here: give DATA with images, or no --baselines")
    return [Reader(source, part.paths.tolist()) for source, part in zip((found[0], found[-1]), parts, strict=True)]


def pipelines(contenders: Iterable[Contender]) -> list[tuple[str, Pipeline]]:
    """Our models with their names, one of each tokenizer."""
    found: dict[str, tuple[str, Pipeline]] = {}
    for contender in contenders:
        if isinstance(contender.encoder, PipelineEncoder):
            pipeline = contender.encoder.pipeline
            found.setdefault(weights.fingerprint(pipeline.tokenizer), (contender.short, pipeline))
    return list(found.values())


def codebook(tokenizer: Tokenizer) -> np.ndarray | None:
    """Return a tokenizer's own vectors of its tokens (vocab_size, c), if it has some."""
    book: torch.Tensor | None = None
    if isinstance(tokenizer, PatchTokenizer):
        book = tokenizer.codebook
    elif isinstance(tokenizer, VQTokenizer):
        book = tokenizer.normalised(tokenizer.quantize.embedding.weight)
    return None if book is None else book.detach().float().cpu().numpy()
