"""Training of the demo's generators, each left as a model directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from randfeat import Pipeline, load
from randfeat.data.builtin.digits import FIT, VALIDATION, Digits, with_shifts
from randfeat.pretrain import PretrainConfig, Step, train
from randfeat.tokenizers import Tokenizer
from randfeat.utils import progress

from ...utils.parallel import run_all


def train_all(
    recipes: Mapping[str, PretrainConfig], digits: Digits, tokenizer: Tokenizer, directory: Path
) -> dict[str, Pipeline]:
    """Return the trained pipelines by name, saved in directory/NAME; a model there of the same recipe is kept."""
    run_all(
        {
            name: partial(train_one, name, recipe, digits, tokenizer, directory)
            for name, recipe in recipes.items()
            if not is_made(directory / name, recipe, tokenizer)
        }
    )
    return {name: load(directory / name) for name in recipes}


def train_one(
    name: str, recipe: PretrainConfig, digits: Digits, tokenizer: Tokenizer, directory: Path, line: int
) -> None:
    """Train a recipe, and save its pipeline with the record of the run.

    Without labels, the last two writers of train are held out, and the best step on them is kept. With labels all
    writers of train are used, as by the classifiers that it is compared with, and the last step is kept.
    """
    seen = digits.written_by(FIT) if not recipe.labels else digits.written_by(FIT, VALIDATION)
    held_out = digits.written_by(VALIDATION) if not recipe.labels else None
    tokens = tokenizer.encode(with_shifts(seen.images).flatten(0, 1))
    rows, columns = tokens.shape[1:]
    generator = recipe.build((rows, columns), tokenizer.vocab_size, int(digits.labels.max()) + 1)
    with progress.bar(recipe.training.steps, name, "step", line) as bar:

        def on_step(done: Step) -> None:
            bar.update()
            if done.step % 10 == 0:
                bar.set_postfix_str(f"{done.loss:.3f} nats/token", refresh=False)

        history = train(
            generator,
            tokens.flatten(1).unflatten(0, (len(seen), -1)),
            seen.labels if recipe.labels else None,
            None if held_out is None else (tokenizer.encode(held_out.images).flatten(1), None),
            recipe.training,
            on_step=on_step,
        )
    record = {"recipe": dataclasses.asdict(recipe), "history": dataclasses.asdict(history)}
    Pipeline(tokenizer, generator, training=record).save(directory / name)


def is_made(directory: Path, recipe: PretrainConfig, tokenizer: Tokenizer) -> bool:
    """Return whether a model of the same recipe and tokenizer lies there."""
    try:
        made = load(directory)
    except (FileNotFoundError, ValueError):
        return False
    same_recipe = made.training_record.get("recipe") == json.loads(json.dumps(dataclasses.asdict(recipe)))
    theirs, ours = made.tokenizer.state_dict(), tokenizer.state_dict()
    return same_recipe and theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in ours)
