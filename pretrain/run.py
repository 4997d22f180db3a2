"""A pretraining run on disk: a recipe and a token store become a model directory, resumed where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randfeat import models
from randfeat.data.token_store import TokenStore
from randfeat.models import Generator
from randfeat.pipeline.pipeline import Pipeline
from randfeat.tokenizers import Tokenizer
from randfeat.utils import devices, distributed
from randfeat.weights.published import sampling_for

from .checks import (
    check_agreement,
    check_control,
    check_init,
    check_same_tokenizer,
    check_stores,
    class_labels,
    class_names,
    fresh_generator,
    held_out_count,
    settings_of,
)
from .config import PretrainConfig
from .data import RowSubset, Tokens, shuffle
from .generator import Validation, train
from .objective import ControlObjective, Objective
from .parallel import full_tensor
from .start import ClassTable, Start, fill
from .trainer import History, Step

MODEL = "model"  # the folder of a run that `randfeat.load` opens
Labelled = tuple[Tokens, Tensor | None]  # tokens and labels
CURVE_POINTS = 1000  # of the training loss in the model's record


def run_pretraining(
    recipe: PretrainConfig,
    store: TokenStore,
    tokenizer: Tokenizer,
    directory: str | Path,
    *,
    validation: TokenStore | None = None,
    held_out: float = 0.0,
    init: Start | None = None,
    paired: TokenStore | None = None,
    device: str | torch.device = "auto",
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> Path:
    """Train on the tokens of a store and return the model directory, DIRECTORY/model, with the best weights.

    The same call resumes where an earlier one was stopped, see `train`. Under torchrun call it inside `group()`.

    tokenizer: the one that made the tokens.
    validation: held-out tokens. held_out: instead, the share of images to hold out, drawn by the recipe's seed. Without
        either the last weights are kept.
    init: a model to start from instead of a fresh one: a pipeline, or a generator, which has no names of its classes.
        Its weights are kept but for the class table where the classes are others, see `ClassTable`.
    paired: tokens, by the same tokenizer, of the pictures that conditions are computed from (depth maps, drawings), in
        the order of the images; by default they are computed from the images themselves.

    Raises a ValueError that names what does not fit together.
    """
    directory = Path(directory)
    check_same_tokenizer(tokenizer, store, validation, paired)
    check_stores(store, validation, held_out, paired)
    check_control(recipe, init, paired)
    device = devices.pick(device)
    generator, table = _generator(recipe, store, tokenizer, init)
    generator = generator.to(device)
    labels = class_labels(recipe, store, generator)
    trained_on: Labelled = store.tokens, labels
    validated_on: Labelled | None = None
    pairs: tuple[Tokens, Tokens | None] | None = None if paired is None else (paired.tokens, None)
    if validation:
        validated_on = validation.tokens[:, 0], class_labels(recipe, validation, generator, store)
    elif held_out:
        trained_on, validated_on = _split(store.tokens, labels, held_out, recipe.training.seed)
        if paired is not None:
            (kept, _), (held, _) = _split(paired.tokens, None, held_out, recipe.training.seed)
            pairs = kept, held
    objective: Callable[[Generator, bool], nn.Module] = Objective
    if recipe.control.kind is not None:
        objective = partial(
            ControlObjective, pixels=_pixels(store, tokenizer.to(device)), dropout=recipe.control.dropout
        )
        for name, parameter in generator.named_parameters():
            parameter.requires_grad_(not recipe.control.alone or name.startswith("control."))
    settings = _settings(recipe, store, validation, held_out, paired, init, table)
    history = train(
        generator,
        *trained_on,
        validated_on,
        recipe.training,
        recipe.running,
        objective=objective,
        directory=directory,
        settings=settings,
        paired=pairs,
        agreement=recipe.agreement,
        on_step=on_step,
        on_validation=on_validation,
    )
    usual = {"sampling": sampling_for(generator, recipe.training.label_dropout > 0)}
    inherited = usual | _inherited(recipe, store, init, table)
    _save(generator, tokenizer, inherited, _record(settings, history), directory / MODEL)
    return directory / MODEL


def _inherited(
    recipe: PretrainConfig, store: TokenStore, init: Start | None, table: ClassTable | None
) -> dict[str, Any]:
    """Return keywords of a pipeline: the names of the classes, and the settings of sampling of the model it began as.

    Those of a model with classes have guidance, which one without has not.
    """
    kept: dict[str, Any] = {"class_names": (class_names(store) or ()) if recipe.labels else ()}
    if isinstance(init, Pipeline) and table is not None:
        if bool(table.known) == bool(table.rows):
            kept["sampling"] = init.sampling
        if table.kept and not kept["class_names"]:
            kept["class_names"] = init.classes.given
    return kept


def _save(
    generator: Generator, tokenizer: Tokenizer, kept: dict[str, Any], record: dict[str, Any], directory: Path
) -> None:
    """Write the model directory, unsharded and from main memory; all processes have to call."""
    state = {name: full_tensor(value).cpu() for name, value in generator.state_dict().items()}
    if distributed.rank() == 0:
        trained = models.create(models.name_of(generator), **generator.config)
        trained.load_state_dict(state)
        Pipeline(tokenizer.cpu(), trained, **kept, training=record).save(directory)
    distributed.barrier()


def _settings(
    recipe: PretrainConfig,
    store: TokenStore,
    validation: TokenStore | None,
    held_out: float,
    paired: TokenStore | None,
    init: Start | None,
    table: ClassTable | None,
) -> dict[str, Any]:
    """Return the settings that decide the weights, and by which a run is recognized when it is resumed."""
    return {
        "tokens": store.meta["files"],
        "validation": validation.meta["files"] if validation else held_out or None,
        **({} if paired is None else {"paired": paired.meta["files"]}),
        **({} if table is None or table.kept else {"class_table": asdict(table)}),
        **settings_of(recipe, init),
    }


def _split(tokens: np.ndarray, labels: Tensor | None, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Return the rows to train on, with all their crops, and the first crops of the held-out ones."""
    mixed = shuffle(seed, -1, len(tokens)).numpy()
    count = held_out_count(len(tokens), share)
    held, kept = np.sort(mixed[:count]), np.sort(mixed[count:])
    own = (None, None) if labels is None else (labels[torch.from_numpy(kept)], labels[torch.from_numpy(held)])
    return (RowSubset(tokens, kept), own[0]), (tokens[held, 0], own[1])


def _pixels(store: TokenStore, tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Return the decoder of tokens (B, N) to images (B, C, H, W)."""

    def pixels(tokens: Tensor) -> Tensor:
        return tokenizer.decode(tokens.unflatten(1, store.grid))

    return pixels


def _generator(
    recipe: PretrainConfig, store: TokenStore, tokenizer: Tokenizer, init: Start | None
) -> tuple[Generator, ClassTable | None]:
    """Return a fresh generator, or one with the weights of `init` and the rows of its class table that it took.

    The recipe's control is added to a model without control.
    """
    made = fresh_generator(recipe, store, tokenizer)
    check_agreement(recipe, store, made)
    if init is None:
        return made, None
    table = check_init(recipe, store, made, init)
    fill(made, init, table)
    return made, table


def _record(settings: dict[str, Any], history: History) -> dict[str, Any]:
    """Return the record of the training that a model keeps."""
    curve = history.train[:: max(1, len(history.train) // CURVE_POINTS)]
    return {**settings, "history": {**asdict(history), "train": curve}}
