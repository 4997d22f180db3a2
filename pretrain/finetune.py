"""Recipes of fine-tuning: that of the model to start from, on a shorter schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from randfeat import models
from randfeat.pipeline.pipeline import Pipeline

from .config import PretrainConfig, TrainingConfig, read_config

SHORTER, GENTLER = 5, 4  # so many times fewer steps than the model's training, and a lower peak of the learning rate
EPOCHS = 100  # at most, of few images
VALIDATIONS, PATIENCE = 10, 3
# of a model that does not say how it was trained, such as an official one: over its width, the rate is about a quarter
# of what the recipes of every size here have
UNRECORDED = TrainingConfig(steps=5000, batch_size=64, other_crops=None)
RATE_TIMES_WIDTH, DROPOUT = 0.05, 0.1


@dataclass(frozen=True)
class FineTuning:
    """Recipe of a fine-tuning. why: steps and learning rate with their reasons, as a sentence without a stop."""

    recipe: PretrainConfig
    why: str


@dataclass(frozen=True)
class _Schedule:
    """Fields of a recipe's training, and the reasons for two of them."""

    fields: dict[str, Any]
    steps: str
    rate: str


def plan_finetuning(
    model: Pipeline,
    images: int,
    labelled: bool,
    config: str | Path | None = None,
    changes: Sequence[str] = (),
) -> FineTuning:
    """Return the recipe of a fine-tuning, and why its schedule is so.

    Model and size are the model's; there are labels where the model has classes and the images have labels. The rest is
    the recipe that the model was trained by, with a fifth of the steps, but at most 100 epochs, and a quarter of the
    learning rate; a model that does not keep its recipe gets a rate by its width.

    model: weights are not read. images: to train on. labelled: whether they have labels. config: a recipe to take
    instead, which may leave out model, labels and size. changes: as of `read_recipe`; warm-up, validations and average
    follow changed steps. Raises a ValueError for unknown and ill-typed fields.
    """
    fields = _of_model(model, labelled)
    if config is not None:
        recipe = read_config(PretrainConfig, config, changes, fields)
        return FineTuning(recipe, _sentence(recipe, f"as {config} says", f"as {config} says"))
    record = _record(model)
    more = {name: value for name in ("agreement", "control") if (value := record.get(name))}
    if (control := model.generator.config.get("control")) is not None:
        own = {name: control[name] for name in ("kind", "width", "depth")}
        more["control"] = {**more.get("control", {}), **own, "alone": False}
    schedule = _schedule(model, record, images)
    recipe = read_config(PretrainConfig, None, changes, {**fields, **more, "training": schedule.fields})
    if recipe.training.steps != schedule.fields["steps"]:
        schedule = _schedule(model, record, images, recipe.training.steps)
        recipe = read_config(PretrainConfig, None, changes, {**fields, **more, "training": schedule.fields})
    rate = schedule.rate if recipe.training.learning_rate == schedule.fields["learning_rate"] else "as set"
    return FineTuning(recipe, _sentence(recipe, schedule.steps, rate))


def _of_model(model: Pipeline, labelled: bool) -> dict[str, Any]:
    """Return the fields of a recipe that are a model's: its name, its size, and labels where both have some."""
    own = model.generator.config
    names = ("embed_dim", "depth", "num_heads", "num_kv_heads", "ffn_dim", "dropout")
    size = {name: own[name] for name in names}
    if not _record(model):
        size["dropout"] = DROPOUT
    labels = bool(model.generator.num_classes) and labelled
    return {"model": models.name_of(model.generator), "labels": labels, "size": size}


def _record(model: Pipeline) -> Mapping[str, Any]:
    """Return the recipe that a model keeps, an empty one where it keeps none."""
    recipe = model.training_record.get("recipe")
    return recipe if isinstance(recipe, Mapping) and "training" in recipe else {}


def _schedule(model: Pipeline, record: Mapping[str, Any], images: int, steps: int | None = None) -> _Schedule:
    """Return the training of a recipe. steps: where they are changed."""
    before = asdict(UNRECORDED) | record.get("training", {})
    width = model.generator.embed_dim
    if record:
        rate, why_rate = before["learning_rate"] / GENTLER, f"a quarter of its {before['learning_rate']:g}"
        usual, why = -(-before["steps"] // SHORTER), f"a fifth of its {before['steps']:,}"
    else:
        rate, why_rate = RATE_TIMES_WIDTH / width, f"{RATE_TIMES_WIDTH} over its width of {width:,}"
        usual, why = before["steps"], "as it keeps no recipe"
    epochs = EPOCHS * -(-images // before["batch_size"])
    if steps is not None:
        usual, why = steps, "as set"
    elif epochs < usual:
        usual, why = epochs, f"{EPOCHS} epochs of {images:,} images"
    shorter = {
        "steps": usual,
        "learning_rate": float(f"{rate:.3g}"),
        "warmup": usual // 20,
        "schedule": "cosine",
        "decay_steps": None,
        "ema": min(before["ema"], max(0.0, 1 - 10 / usual)),
        "eval_every": -(-usual // VALIDATIONS),
        "patience": PATIENCE,
    }
    return _Schedule({**before, **shorter}, why, why_rate)


def _sentence(recipe: PretrainConfig, why_steps: str, why_rate: str) -> str:
    training = recipe.training
    return (
        f"{training.steps:,} steps of {training.batch_size:,} images, {why_steps}; learning rate "
        f"{training.learning_rate:g}, {why_rate}; {'with' if recipe.labels else 'without'} labels"
    )
