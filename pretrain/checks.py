"""Checks of what a pretraining run is given, which are also made before images become tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from randfeat import weights
from randfeat.data import conditions
from randfeat.data.sources import Source
from randfeat.data.token_store import TokenStore
from randfeat.models import Generator
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic, devices
from randfeat.utils.resume import check_same_settings

from .checkpoints import FORMAT, RUN, check_free
from .config import PretrainConfig
from .crops import Crops
from .data import as_labels
from .start import ClassTable, Start, check_start, class_table, generator_of


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
    tokens: Tokens,
    directory: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    validation: TokenStore | None = None,
    held_out: float = 0.0,
    init: Start | None = None,
    paired: TokenStore | None = None,
) -> ClassTable | None:
    """Raise what `run_pretraining` would raise, before it begins, and before images become tokens.

    The arguments are those of `run_pretraining`; stores of tokens are by the same tokenizer. tokenizer: may be left out
    for tokens that are planned. init: also one on the meta device, which is not downloaded yet.

    Returns the rows of the class table of `init` that the classes take.
    """
    tokenizer = tokens.tokenizer if isinstance(tokens, PlannedTokens) else tokenizer
    assert tokenizer is not None
    check_same_run(Path(directory), recipe, init)
    if isinstance(tokens, PlannedTokens):
        check_crops(tokenizer, tokens.crops)
    stored = [one for one in (tokens, validation, paired) if isinstance(one, TokenStore)]
    if stored and not _is_meta(tokenizer):
        check_same_tokenizer(tokenizer, *stored)
    check_stores(tokens, validation, held_out, paired)
    check_control(recipe, init, paired)
    with devices.meta():
        made = fresh_generator(recipe, tokens, tokenizer)
    check_agreement(recipe, tokens, made)
    table = None if init is None else check_init(recipe, tokens, made, init)
    class_labels(recipe, tokens, made)
    if validation is not None:
        class_labels(recipe, validation, made, tokens)
    if held_out:
        held_out_count(len(tokens), held_out)
    return table


def settings_of(recipe: PretrainConfig, init: Start | None) -> dict[str, Any]:
    """Return the settings of recipe and model to start from by which a run is recognized when it is resumed."""
    # runs older than control and agreement can be resumed
    used = {"control": recipe.control.kind, "agreement": recipe.agreement.weight}
    ignored = {"running", *(name for name, on in used.items() if not on)}
    fingerprint = None if init is None else weights.fingerprint(generator_of(init))
    return {"recipe": {key: value for key, value in asdict(recipe).items() if key not in ignored}, "init": fingerprint}


def check_same_run(directory: Path, recipe: PretrainConfig, init: Start | None) -> None:
    """Raise where a directory, if there is one, holds anything but a run by this recipe, from this model.

    A ValueError names the setting that differs; it is a FileExistsError where there is no run.
    """
    check_free(directory)
    before = atomic.read_json(directory / RUN, FORMAT)
    if before is None or (init is not None and _is_meta(generator_of(init))):
        return
    now = json.loads(json.dumps(settings_of(recipe, init)))
    was = {name: before.get("settings", {}).get(name) for name in now}
    check_same_settings(directory, {"settings": was}, {"settings": now}, "a run")


def _is_meta(module: nn.Module) -> bool:
    return any(value.is_meta for value in module.state_dict().values())


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


def check_control(recipe: PretrainConfig, init: Start | None, paired: TokenStore | None) -> None:
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
            "agreement is between crops of an image, and there is one of each: tokenize with more (--crops moved), or "
            "set agreement.weight to 0"
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


def check_init(recipe: PretrainConfig, store: Tokens, made: Generator, init: Start) -> ClassTable:
    """Return the rows of the class table of a model to start from that the classes of a store take.

    Raises a ValueError unless the rest of it is as the recipe makes it, and where the rows would not be trained.
    """
    check_start(made, init)
    table = class_table(init, class_names(store), made.num_classes)
    if recipe.control.alone and table.new:
        raise ValueError(
            f"control.alone trains the adapter alone, and {table.new} of {_name(store)}'s classes are none of the "
            "model's: fine-tune the model on them first, or set labels to false"
        )
    return table


def class_names(store: Tokens) -> Sequence[str] | None:
    """Return the names of the classes of a store; None of classes without names, which are numbered from 0.

    Where labels are ids that do not count from 0 without a gap, those that occur are the classes, in ascending order.
    """
    if store.classes is not None:
        return store.classes
    ids = sorted({label for label in store.labels or () if label is not None})
    return [str(id_) for id_ in ids] if ids and ids[-1] + 1 > len(ids) else None


def _num_classes(store: Tokens) -> int:
    names = class_names(store)
    if names is not None:
        return len(names)
    return max((label for label in store.labels or () if label is not None), default=-1) + 1


def class_labels(
    recipe: PretrainConfig, store: Tokens, generator: Generator, trained_on: Tokens | None = None
) -> Tensor | None:
    """Return the label of each image as the generator takes them, None for a recipe without labels.

    trained_on: the store whose classes the generator has, by default this one. Raises a ValueError where that has no
    class that images of this one have.
    """
    if not recipe.labels:
        return None
    if store.labels is None:
        raise ValueError(f"the recipe trains with labels and {_name(store)} has none: set labels to false")
    index_of = _index_of(store, trained_on or store, generator.num_classes)
    known = {label for label in store.labels if label is not None}
    if strange := sorted(label for label in known if label not in index_of):
        name = strange[0] if store.classes is None else store.classes[strange[0]]
        raise ValueError(f"{_name(store)} has images of the class {name}, and {_name(trained_on or store)} has none")
    return as_labels([None if label is None else index_of[label] for label in store.labels], generator.num_classes)


def _index_of(store: Tokens, trained_on: Tokens, count: int) -> dict[int, int]:
    """Return the index, among `count` classes of the store trained on, of each label of a store that has one there."""
    if (store.classes is None) != (trained_on.classes is None):  # one has names, the other numbers the same classes
        return {index: index for index in range(count)}
    names = {name: index for index, name in enumerate(class_names(trained_on) or map(str, range(count)))}
    own = (
        enumerate(store.classes) if store.classes is not None else ((one, str(one)) for one in {*(store.labels or ())})
    )
    return {label: names[name] for label, name in own if label is not None and name in names}


def _name(store: Tokens) -> str:
    return store.name if isinstance(store, PlannedTokens) else str(store.directory)
