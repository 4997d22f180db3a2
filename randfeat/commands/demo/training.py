"""Trains the demo's generators side by side, each in a process and on a core of its own.

Networks this small gain nothing from a second thread, so two processes with one thread each are twice as fast as one with two.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from randfeat import Pipeline, load, progress
from randfeat.pretrain import Recipe, train
from randfeat.tokenizers import Tokenizer

from .digits import FIT, VALIDATION, Digits


def train_all(
    recipes: Mapping[str, Recipe], digits: Digits, tokenizer: Tokenizer, directory: Path
) -> dict[str, Pipeline]:
    """The trained pipelines by name, also left in directory/NAME. A model there that the same recipe made is kept."""
    todo = [name for name, recipe in recipes.items() if not is_made(directory / name, recipe, tokenizer)]
    if todo:
        context = multiprocessing.get_context("spawn")
        workers = min(len(todo), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, context, set_up_worker, (context.RLock(),)) as pool:
            jobs = [
                pool.submit(train_one, name, recipes[name], digits, tokenizer, directory, position)
                for position, name in enumerate(todo)
            ]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:  # Ctrl-C too: what is trained stays, what is not stops now
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    return {name: load(directory / name) for name in recipes}


def set_up_worker(lock: Any) -> None:
    """One thread, a lock shared by all bars, and Ctrl-C left to the parent, which ends its workers."""
    torch.set_num_threads(1)
    tqdm.set_lock(lock)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train_one(
    name: str, recipe: Recipe, digits: Digits, tokenizer: Tokenizer, directory: Path, position: int
) -> None:
    """Trains a recipe and saves its pipeline with the record of the run.

    Without labels, the last two writers of train are held out and the best step on them is kept. With labels all writers of
    train are used, as the classifiers use them that it is compared with: its number of steps is the recipe's.
    """
    seen = digits.written_by(FIT) if not recipe.labels else digits.written_by(FIT, VALIDATION)
    held_out = digits.written_by(VALIDATION) if not recipe.labels else None
    tokens = tokenizer.encode(seen.images)
    generator = recipe.build(tuple(tokens.shape[1:]), tokenizer.vocab_size, int(digits.labels.max()) + 1)
    with progress.bar(recipe.training.steps, name, "step", position) as bar:

        def on_step(step: int, loss: float) -> None:
            bar.update()
            if step % 10 == 0:
                bar.set_postfix_str(f"{loss:.3f} nats/token", refresh=False)

        history = train(
            generator,
            tokens.flatten(1),
            seen.labels if recipe.labels else None,
            held_out and (tokenizer.encode(held_out.images).flatten(1), None),
            recipe.training,
            on_step,
        )
    record = {"recipe": dataclasses.asdict(recipe), "history": dataclasses.asdict(history)}
    Pipeline(tokenizer, generator, training=record).save(directory / name)


def is_made(directory: Path, recipe: Recipe, tokenizer: Tokenizer) -> bool:
    """Whether a model of the same recipe and tokenizer lies there."""
    try:
        made = load(directory)
    except (FileNotFoundError, ValueError):
        return False
    same_recipe = made.training_record.get("recipe") == json.loads(json.dumps(dataclasses.asdict(recipe)))
    theirs, ours = made.tokenizer.state_dict(), tokenizer.state_dict()
    return same_recipe and all(
        torch.equal(theirs[key], ours[key]) if key in theirs else False for key in ours
    )
