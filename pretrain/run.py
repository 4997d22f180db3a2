"""A recipe, a token store and a directory: trained, gone on with where it was stopped, left as a model directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randfeat import models, weights
from randfeat.data import conditions
from randfeat.data.token_store import TokenStore
from randfeat.models import Generator
from randfeat.pipeline.pipeline import Pipeline
from randfeat.tokenizers import Tokenizer
from randfeat.utils import devices, distributed
from randfeat.utils.resume import difference

from .config import Recipe
from .data import Some, Tokens, as_labels, shuffle
from .objective import ControlObjective, Objective
from .parallel import whole
from .trainer import History, Step, Validation, train

MODEL = "model"  # the folder of a run that `randfeat.load` opens
Material = tuple[Tokens, Tensor | None]  # tokens and labels
POINTS = 1000  # of the loss curve that a model keeps of its training


def run(
    recipe: Recipe,
    store: TokenStore,
    tokenizer: Tokenizer,
    directory: str | Path,
    *,
    validation: TokenStore | None = None,
    held_out: float = 0.0,
    init: Generator | None = None,
    paired: TokenStore | None = None,
    device: str | torch.device = "auto",
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> Path:
    """Train on the tokens of a store and returns the model directory, DIRECTORY/model, with the best weights.

    The same call goes on where an earlier one was stopped, see `train`. tokenizer: the one that made the tokens.
    validation: held-out tokens; held_out: or the share of the images, drawn by the recipe's seed, that are held out;
    without either the last weights are kept. init: a generator to start from instead of a fresh one. paired: tokens, by
    the same tokenizer, of the pictures that conditions are made of (depth maps, drawings), in the order of the images;
    by default they are made of the images themselves. Under torchrun call it inside `group()`.
    A ValueError names what does not fit together.
    """
    directory = Path(directory)
    made_by = weights.fingerprint(tokenizer)
    for each in (one for one in (store, validation, paired) if one is not None):
        if each.tokenizer != made_by:
            raise ValueError(f"the tokens in {each.directory} were made by another tokenizer: give that one")
    if validation and validation.grid != store.grid:
        raise ValueError(f"held-out tokens on a grid of {validation.grid}, those to train on have {store.grid}")
    if not 0 <= held_out < 1 or (held_out and validation):
        raise ValueError(f"held_out is a share below 1 and takes the place of validation, got {held_out}")
    _check_control(recipe, init, paired)
    if paired is not None:
        _check_paired(store, paired, validation)
    device = devices.pick(device)
    generator = _generator(recipe, store, tokenizer, init).to(device)
    pairs: tuple[Tokens, Tokens | None] | None = None if paired is None else (paired.tokens, None)
    seen: Material = store.tokens, _labels(recipe, store, generator)
    judged: Material | None = None
    if validation:
        judged = validation.tokens[:, 0], _labels(recipe, validation, generator)
    elif held_out:
        seen, judged = _divided(store.tokens, seen[1], held_out, recipe.training.seed)
        if paired is not None:
            (kept, _), (held, _) = _divided(paired.tokens, None, held_out, recipe.training.seed)
            pairs = kept, held
    objective: Callable[[Generator, bool], nn.Module] = Objective
    if recipe.control.kind is not None:
        objective = partial(
            ControlObjective, pixels=_pixels(store, tokenizer.to(device)), dropout=recipe.control.dropout
        )
        for name, parameter in generator.named_parameters():
            parameter.requires_grad_(not recipe.control.alone or name.startswith("control."))
    free = {"running"} if recipe.control.kind else {"running", "control"}  # runs older than control can go on
    settings = {
        "recipe": {key: value for key, value in asdict(recipe).items() if key not in free},
        "tokens": store.meta["files"],
        "validation": validation.meta["files"] if validation else held_out or None,
        **({} if paired is None else {"paired": paired.meta["files"]}),
        "init": init and weights.fingerprint(init),
    }
    history = train(
        generator,
        *seen,
        judged,
        recipe.training,
        recipe.running,
        objective=objective,
        directory=directory,
        settings=settings,
        paired=pairs,
        on_step=on_step,
        on_validation=on_validation,
    )
    state = {name: whole(value).cpu() for name, value in generator.state_dict().items()}
    if distributed.rank() == 0:
        trained = models.create(recipe.model, **generator.config)
        trained.load_state_dict(state)
        names = store.classes if recipe.labels and store.classes else ()
        Pipeline(tokenizer.cpu(), trained, names, training=_record(settings, history)).save(directory / MODEL)
    distributed.barrier()
    return directory / MODEL


def _divided(tokens: np.ndarray, labels: Tensor | None, share: float, seed: int) -> tuple[Material, Material]:
    """Rows to train on with all their crops, and the first crops of those that are held out."""
    mixed = shuffle(seed, -1, len(tokens)).numpy()
    count = round(share * len(tokens))
    if not 0 < count < len(tokens):
        raise ValueError(f"{share} of {len(tokens)} images leaves none to train on, or none held out: choose another")
    held, kept = np.sort(mixed[:count]), np.sort(mixed[count:])
    own = (None, None) if labels is None else (labels[torch.from_numpy(kept)], labels[torch.from_numpy(held)])
    return (Some(tokens, kept), own[0]), (tokens[held, 0], own[1])


def _check_control(recipe: Recipe, init: Generator | None, paired: TokenStore | None) -> None:
    """Raise a ValueError where the condition that the recipe asks for cannot be had."""
    if recipe.control.kind is None:
        if paired is not None:
            raise ValueError("paired pictures are what control is made of: say which kind the recipe's control is")
        return
    if paired is None and conditions.kind_of(recipe.control.kind).given:
        raise ValueError(
            f"a condition of kind {recipe.control.kind} is not made of images: give paired pictures (--control-data)"
        )
    if recipe.control.alone and init is None:
        raise ValueError("a fresh generator has nothing that control alone could steer: give one to start from")


def _check_paired(store: TokenStore, paired: TokenStore, validation: TokenStore | None) -> None:
    """Raise a ValueError unless row and crop of both stores belong together."""
    if validation is not None:
        raise ValueError("paired pictures belong to the images trained on: hold a share of them out, no other tokens")
    names = [[Path(path).stem for path in one.paths] for one in (store, paired)]
    if names[0] != names[1]:
        different = next((a for a, b in zip(*names, strict=False) if a != b), "the number of pictures")
        raise ValueError(f"{paired.directory} and {store.directory} do not hold pairs of one name: {different} differs")
    if (paired.crops, paired.grid) != (store.crops, store.grid):
        raise ValueError(
            f"{paired.directory} has {paired.crops} crops on a grid of {paired.grid}, the images have {store.crops} on "
            f"{store.grid}: tokenise both alike"
        )


def _pixels(store: TokenStore, tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Tokens (B, N) -> images (B, C, H, W)."""

    def pixels(tokens: Tensor) -> Tensor:
        return tokenizer.decode(tokens.unflatten(1, store.grid))

    return pixels


def _generator(recipe: Recipe, store: TokenStore, tokenizer: Tokenizer, init: Generator | None) -> Generator:
    """Return a fresh one, or the given one if it fits; one without control gets what the recipe asks for."""
    of_images = tokenizer.stride, tokenizer.channels
    made = recipe.build(store.grid, store.vocab_size, _num_classes(store), *of_images)
    if init is None:
        return made
    theirs, wanted = ({"model": models.name_of(one), **one.config, "dropout": None} for one in (init, made))
    state = init.state_dict()
    if init.control is None and made.control is not None:
        theirs["control"] = made.control.config
        state |= {f"control.{name}": value for name, value in made.control.state_dict().items()}
    if other := difference(theirs, wanted):
        raise ValueError(f"the model to start from has {other}, as recipe and tokens ask for")
    made.load_state_dict(state)
    return made


def _num_classes(store: TokenStore) -> int:
    if store.classes is not None:
        return len(store.classes)
    return max((label for label in store.labels or () if label is not None), default=-1) + 1


def _labels(recipe: Recipe, store: TokenStore, generator: Generator) -> Tensor | None:
    if not recipe.labels:
        return None
    if store.labels is None:
        raise ValueError(f"the recipe trains with labels and {store.directory} has none: set labels to false")
    return as_labels(store.labels, generator.num_classes)


def _record(settings: dict[str, Any], history: History) -> dict[str, Any]:
    """What a model keeps of its training."""
    curve = history.train[:: max(1, len(history.train) // POINTS)]
    return {**settings, "history": {**asdict(history), "train": curve}}
