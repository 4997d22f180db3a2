"""Published models and tokenizers before they are downloaded: networks of their shapes, on the meta device."""

from __future__ import annotations

from pathlib import Path

from .. import models, tokenizers
from ..tokenizers import Tokenizer
from ..utils import devices
from . import published
from .fresh import RANDOM
from .loading import ModelParts, locate
from .published import PublishedModel, PublishedTokenizer


def planned_parts(source: str | Path) -> ModelParts | None:
    """Return the parts of a published model by its name, without values; None for any other source.

    Raises as `loading.locate` does, where there is no such source.
    """
    if str(source).startswith(RANDOM):
        return None
    found = locate(source, published.MODELS)
    if not isinstance(found, PublishedModel):
        return None
    sizes = dict(grid=found.grid, vocab_size=found.tokenizer.vocab_size, num_classes=published.NUM_CLASSES)
    with devices.meta():
        generator = models.create(found.size, **sizes)
        tokenizer = tokenizers.create(found.tokenizer.model, **found.tokenizer.config)
    return ModelParts(tokenizer, generator, published.CLASS_NAMES, sampling=found.sampling)


def planned_tokenizer(source: str | Path) -> Tokenizer | None:
    """Return a published tokenizer by its name, without values; None for any other source. Raises as `locate` does."""
    found = locate(source, published.TOKENIZERS)
    if not isinstance(found, PublishedTokenizer):
        return None
    with devices.meta():
        return tokenizers.create(found.model, **found.config)
