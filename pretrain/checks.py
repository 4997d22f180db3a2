"""Checks of what a pretraining run is given, which are also made before images become tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from randfeat import models, weights
from randfeat.data import conditions
from randfeat.data.sources import Source
from randfeat.data.token_store import TokenStore
from randfeat.models import Generator
from randfeat.tokenizers import Tokenizer
from randfeat.utils import devices
from randfeat.utils.resume import difference

from .checkpoints import check_free
from .config import PretrainConfig
from .crops import Crops
from .data import as_labels


@dataclass(frozen=True)
class PlannedTokens:
    """Tokens that a tokenizer is to make of images: as much of a token store as a recipe has to fit.

    tokenizer: also one on the meta device, which is not trained yet.
    """

    source: Source
    tokenizer: Tokenizer
    crops: Crops

    def __len__(self) -> int:
        return len(self.source)

    @property
    def paths(self) -> Sequence[str]:
        return self.source.paths

    @property
    def labels(self) -> Sequence[int | None] | None:
        labels = self.source.labels
        return None if labels is None or all(label is None for label in labels) else labels

    @property
    def classes(self) -> Sequence[str] | None:
        return self.source.classes

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def grid(self) -> tuple[int, int]:
        height, width = self.crops.size
        return height // self.tokenizer.stride, width // self.tokenizer.stride

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size


Tokens: TypeAlias = "TokenStore | PlannedTokens"


def check_pretraining(
    recipe: PretrainConfig,
    tokens: PlannedTokens,
    directory: str | Path,
    *,
    validation: TokenStore | None = None,
    held_out: float = 0.0,
    init: Generator | None = None,
    paired: TokenStore | None = None,
) -> None:
    """Raise what `run_pretraining` would raise for the tokens of images, before these are made.

    The arguments are those of `run_pretraining`; stores of tokens are by the same tokenizer.
    """
    check_free(Path(directory))
    check_crops(tokens.tokenizer, tokens.crops)
    if validation is not None or paired is not None:
        check_same_tokenizer(tokens.tokenizer, validation, paired)
    check_stores(tokens, validation, held_out, paired)
    check_control(recipe, init, paired)
    with devices.meta():
        made = fresh_generator(recipe, tokens, tokens.tokenizer)
    check_agreement(recipe, tokens, made)
    if init is not None:
        check_init(made, init)
    class_labels(recipe, tokens, made)
    if validation is not None:
        class_labels(recipe, validation, made)
    if held_out:
        held_out_count(len(tokens), held_out)


def check_crops(tokenizer: Tokenizer, crops: Crops) -> None:
    """Raise a ValueError unless crops are images that the tokenizer takes."""
    stride, (height, width) = tokenizer.stride, crops.size
    if height % stride or width % stride or crops.channels != tokenizer.channels:
        raise ValueError(
            f"crops of {height} x {width} pixels and {crops.channels} channels do not fit a tokenizer of "
            f"{tokenizer.channels} channels and {stride} pixels a token: choose others"
        )
    if crops.value_range != tokenizer.value_range:
        raise ValueError(
            f"crops of images {_ranged(crops.value_range)} do not fit a tokenizer of images "
            f"{_ranged(tokenizer.value_range)}: give them its value_range"
        )


def _ranged(value_range: tuple[float, float] | None) -> str:
    """Return what images of a value range are, in words."""
    return "of 8 bits" if value_range is None else f"of values from {value_range[0]:g} to {value_range[1]:g}"


def held_out_count(images: int, share: float) -> int:
    """Return the number of images to hold out of so many. Raises a ValueError where none is left, or none held out."""
    count = round(share * images)
    if not 0 < count < images:
        raise ValueError(f"{share} of {images} images leaves none to train on, or none held out: choose another")
    return count


def check_same_tokenizer(tokenizer: Tokenizer, *stores: TokenStore | None) -> None:
    """Raise a ValueError unless the tokens of all stores are by the tokenizer."""
    made_by = weights.fingerprint(tokenizer)
    for each in (one for one in stores if one is not None):
        if each.tokenizer != made_by:
            raise ValueError(f"the tokens in {each.directory} were made by another tokenizer: give that one")


def check_stores(store: Tokens, validation: TokenStore | None, held_out: float, paired: TokenStore | None) -> None:
    """Raise a ValueError unless the held-out images and the pairs can be had."""
    if validation and validation.grid != store.grid:
        raise ValueError(
            f"held-out tokens have a grid of {validation.grid}, those to train on {store.grid}: tokenize both alike"
        )
    if not 0 <= held_out < 1 or (held_out and validation):
        raise ValueError(f"held_out must be a share below 1, without validation, got {held_out}: give one of both")
    if paired is not None:
        _check_paired(store, paired, validation)


def check_control(recipe: PretrainConfig, init: Generator | None, paired: TokenStore | None) -> None:
    """Raise a ValueError where the condition of the recipe is not available."""
    if recipe.control.kind is None:
        if paired is not None:
            raise ValueError(
                "paired pictures are for control, which this recipe has not: give the kind of control (--control)"
            )
        return
    if paired is None and conditions.kind_of(recipe.control.kind).given:
        raise ValueError(
            f"a condition of kind {recipe.control.kind} is not made of images: give paired pictures (--control-data)"
        )
    if recipe.control.alone and init is None:
        raise ValueError("control.alone trains the adapter of a trained generator: give one to start from (--init)")


def check_agreement(recipe: PretrainConfig, store: Tokens, made: Generator) -> None:
    """Raise a ValueError where crops cannot agree: the generator has no such states, or images have one crop."""
    if not recipe.agreement.weight:
        return
    made.check_spec([made.depth], recipe.agreement.context, "query")
    if _crops(store) < 2:
        raise ValueError(
            "agreement is between crops of an image, and there is one of each: tokenize with more (--crops moved)"
        )


def _crops(store: Tokens) -> int:
    """Return the number of crops per image."""
    return store.crops.count if isinstance(store, PlannedTokens) else store.crops


def _check_paired(store: Tokens, paired: TokenStore, validation: TokenStore | None) -> None:
    """Raise a ValueError unless row and crop of both stores belong together."""
    if validation is not None:
        raise ValueError(
            "paired pictures belong to the images trained on: hold out a share of these (--held-out), no other tokens"
        )
    names = [[Path(path).stem for path in one.paths] for one in (store, paired)]
    if names[0] != names[1]:
        different = next((a for a, b in zip(*names, strict=False) if a != b), "the number of pictures")
        raise ValueError(f"{paired.directory} and {_name(store)} do not hold pairs of one name: {different} differs")
    crops = _crops(store)
    if (paired.crops, paired.grid) != (crops, store.grid):
        raise ValueError(
            f"{paired.directory} has {paired.crops} crops on a grid of {paired.grid}, the images have {crops} on "
            f"{store.grid}: tokenize both alike"
        )


def fresh_generator(recipe: PretrainConfig, store: Tokens, tokenizer: Tokenizer) -> Generator:
    """Return the recipe's generator of these tokens, with fresh weights."""
    return recipe.build(store.grid, store.vocab_size, _num_classes(store), tokenizer.stride, tokenizer.channels)


def check_init(made: Generator, init: Generator) -> None:
    """Raise a ValueError unless a model to start from is as the recipe makes it; its control may be missing."""
    theirs, wanted = ({"model": models.name_of(one), **one.config, "dropout": None} for one in (init, made))
    if init.control is None and made.control is not None:
        theirs["control"] = made.control.config
    if other := difference(theirs, wanted):
        raise ValueError(
            f"the model to start from has {other}, as recipe and tokens require: choose another or change the recipe"
        )


def _num_classes(store: Tokens) -> int:
    if store.classes is not None:
        return len(store.classes)
    return max((label for label in store.labels or () if label is not None), default=-1) + 1


def class_labels(recipe: PretrainConfig, store: Tokens, generator: Generator) -> Tensor | None:
    """Return the label of each image as the generator takes them, None for a recipe without labels."""
    if not recipe.labels:
        return None
    if store.labels is None:
        raise ValueError(f"the recipe trains with labels and {_name(store)} has none: set labels to false")
    return as_labels(store.labels, generator.num_classes)


def _name(store: Tokens) -> str:
    return store.name if isinstance(store, PlannedTokens) else str(store.directory)
