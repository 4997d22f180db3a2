"""Recipes of pretraining: generator, size, training and use of the machine, read from the YAML files in `configs/`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import torch

from randfeat import models
from randfeat.data import conditions
from randfeat.models import Generator

Recipe = TypeVar("Recipe")
UNION = re.compile(  # jsonargparse's words for a value of none of several types
    r"Does not validate against any of the Union subtypes Subtypes: \[(.*)\] Errors: .* Given value: (.*)"
)


@dataclass(frozen=True)
class OptimConfig:
    """Hyperparameters of a training that do not depend on what is trained.

    steps: optimizer steps. batch_size: images a step, of all processes together.
    warmup: steps of linear warm-up to `learning_rate`. schedule: `cosine`, which then falls to `final_lr_ratio` of it;
        `constant`; or `linear-end` and `cosine-end`, constant but for the last `decay_steps`, in which it falls to that
        ratio.
    clip: largest global gradient norm.
    ema: decay of the averaged weights that are validated and kept; 0 keeps the weights themselves.
    eval_every: steps between validations. patience: validations without a new best before training stops (0: never).
    max_not_finite: steps in a row with gradients that are not finite before training is aborted; each is skipped.
    """

    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 100
    schedule: Literal["cosine", "constant", "linear-end", "cosine-end"] = "cosine"
    decay_steps: int | None = None
    final_lr_ratio: float = 0.05
    clip: float = 1.0
    ema: float = 0.0
    eval_every: int = 100
    patience: int = 0
    max_not_finite: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "max_not_finite"):
            check_range(self, name, 1, math.inf)
        for name in ("learning_rate", "weight_decay", "warmup", "patience"):
            check_range(self, name, 0, math.inf)
        for name in ("final_lr_ratio", "ema"):
            check_range(self, name, 0, 1)
        if not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip!r}: .inf clips nothing")
        if self.schedule not in ("cosine", "constant", "linear-end", "cosine-end"):
            raise ValueError(f"schedule must be cosine, constant, linear-end or cosine-end, got {self.schedule!r}")
        if self.schedule.endswith("-end") != (self.decay_steps is not None):
            raise ValueError(
                f"decay_steps belongs to schedule linear-end or cosine-end, got {self.decay_steps} and {self.schedule}"
            )
        if self.decay_steps is not None:
            check_range(self, "decay_steps", 1, self.steps)


@dataclass(frozen=True)
class TrainingConfig(OptimConfig):
    """Hyperparameters of a generator's training: those of `OptimConfig`, and how images are shown.

    order: `random`, a fresh order per image and epoch, or another mode of `orders.MODES` for every image; by default
        the model's own first, which is random where it can.
    random_until: shares of the steps between which random orders give way to `order`: up to the first each image has a
        random one, with a probability that falls linearly to 0 at the second (RAR). None is `order` from the start.
    label_dropout: probability with which the null class replaces an image's label, for classifier-free guidance.
    other_crops: probability of showing one of an image's other crops instead of the first. It falls from epoch to epoch
        in proportion to the images still to be seen, so that a long training ends with first crops only. None (`null`
        in YAML) shows all crops equally often, to the end, as RandAR and ARPG were trained.
    """

    order: str | None = None
    random_until: tuple[float, float] | None = None
    label_dropout: float = 0.1
    other_crops: float | None = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "label_dropout", 0, 1)
        if self.other_crops is not None:
            check_range(self, "other_crops", 0, 1)
        if self.random_until is not None and not 0 <= self.random_until[0] <= self.random_until[1] <= 1:
            raise ValueError(f"random_until is two shares of the steps, the lower first, got {self.random_until}")


@dataclass(frozen=True)
class RuntimeConfig:
    """Use of the machine, which changes the weights by rounding only; `micro_batch` also changes what dropout drops.

    A stopped run can go on with other settings.

    precision: of matrix products and attention; weights, sums and the optimizer are always float32.
    parallel: each of several processes holds all weights (`ddp`) or a shard of them (`fsdp`).
    compile: run each block through torch's compiler: a slow start, then faster on a GPU.
    recompute: compute the activations inside blocks again in the backward pass, which saves memory and costs time.
    micro_batch: images that go through the network at once; 0 for all those of a process.
    save_every: steps between checkpoints; a new best is saved, too. keep: number of last checkpoints kept beside the
        best.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    compile: bool = False
    recompute: bool = False
    micro_batch: int = 0
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        for name, known in (("precision", ("float32", "bfloat16")), ("parallel", ("ddp", "fsdp"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, got {getattr(self, name)!r}")
        check_range(self, "micro_batch", 0, math.inf)
        for name in ("save_every", "keep"):
            check_range(self, name, 1, math.inf)


def check_range(settings: object, name: str, low: float, high: float) -> None:
    value = getattr(settings, name)
    if not low <= value <= high:
        limits = f"{low} or more" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, got {value!r}")


@dataclass(frozen=True)
class ModelConfig:
    """Size of a generator: the keywords of `Generator` that do not follow from the data."""

    embed_dim: int
    depth: int
    num_heads: int
    num_kv_heads: int | None = None
    ffn_dim: int | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class ControlConfig:
    """Control of a generator by a condition image.

    kind: type of condition, computed from the images or from images paired with them, see `conditions.KINDS`; None for
        a generator without control.
    width, depth: of the adapter, see `models.Control`.
    dropout: probability with which an image is shown without its condition, for guidance.
    alone: train the adapter only and leave the generator's weights as they are.
    """

    kind: str | None = None
    width: int = 256
    depth: int = 2
    dropout: float = 0.1
    alone: bool = False

    def __post_init__(self) -> None:
        if self.kind is not None:
            conditions.kind_of(self.kind)  # raises for a wrong name
        check_range(self, "dropout", 0, 1)


@dataclass(frozen=True)
class AgreementConfig:
    """Agreement of two crops of an image in their pooled states, beside the loss of the tokens, for features.

    The loss is NT-Xent (SimCLR, Chen et al., arXiv 2002.05709) over the images that go through the network at once, on
    a projection of the mean state after the last block, without label. The projector is dropped after training.

    weight: of the loss, an image's weighing as much as its tokens'; 0 for none. temperature: of the similarities.
    width, dim: of the projector's hidden layer and output.
    context: of the states, which needs a query stream; see `Generator.hidden`.
    """

    weight: float = 0.0
    temperature: float = 0.2
    width: int = 256
    dim: int = 128
    context: str = "after"

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, math.inf)
        for name in ("width", "dim"):
            check_range(self, name, 1, math.inf)
        if not self.temperature > 0:
            raise ValueError(f"agreement.temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True)
class PretrainConfig:
    """Recipe of a pretraining run.

    model: a registered name. labels: train with class labels. size: of the generator. training: its hyperparameters.
    running: use of the machine. control: the condition that the generator follows, if any. agreement: of two crops of
    an image, if any.
    """

    model: str
    labels: bool
    size: ModelConfig
    training: TrainingConfig
    running: RuntimeConfig = field(default_factory=RuntimeConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)

    def __post_init__(self) -> None:
        if self.agreement.weight and self.control.kind is not None:
            raise ValueError("agreement of crops and control are trained one after the other: leave one of them out")

    def build(
        self, grid: tuple[int, int], vocab_size: int, num_classes: int, patch: int = 1, channels: int = 1
    ) -> Generator:
        """Return a generator with fresh weights, a function of the recipe's seed; without labels it has no classes.

        patch: pixels per token, along one side, of the images that conditions are computed from. channels: of these
            images, 1 or 3.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            made = models.create(
                self.model,
                grid=grid,
                vocab_size=vocab_size,
                num_classes=num_classes if self.labels else 0,
                **vars(self.size),
            )
            if self.control.kind is not None:
                wanted = {name: getattr(self.control, name) for name in ("kind", "width", "depth")}
                own = conditions.kind_of(self.control.kind).channels or channels
                made.add_control(**wanted, patch=patch, channels=own)
        return made


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> PretrainConfig:
    """Return a recipe by its name in `configs/` or by the path of a YAML file.

    changes: such as `training.steps=100`. Unknown, missing and ill-typed fields raise a ValueError.
    """
    return read_config(PretrainConfig, name, changes)


def read_config(
    kind: type[Recipe], name: str | Path | None, changes: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Recipe:
    """Return a recipe of a class, a dataclass, as `read_recipe` does.

    given: fields that hold where the recipe does not have them. name: None for a recipe of these alone.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    parser.add_argument("--file", action="config")  # which is merged into the fields given
    for change in changes:
        _check_field(kind, change)
    text, words = None if name is None else _text_of(name), [f"--{change}" for change in changes]
    try:
        if text is not None and (given or {}).keys() <= set(re.findall(r"^(\w+):", text, re.MULTILINE)):
            base = parser.parse_string(text, defaults=False)
        else:
            base = parser.parse_object({**(given or {})}, defaults=False)
            words = [*([] if text is None else ["--file", text]), *words]
        parsed = parser.parse_args(words, namespace=base)
        parsed.pop("file", None)
        _check_values(kind, parsed)
        return kind(**vars(parser.instantiate(parsed)))
    except ArgumentError as error:
        problem = re.sub(r"Parser key |typing\.|<class |(?<=')>", "", " ".join(str(error).split()))
        problem = UNION.sub(r"expected one of \1, got \2", problem).replace("'NoneType'", "none")
        problem = re.sub(r"^unsupported operand .*", "a field has no name", problem)  # of a recipe such as "~: 1"
        raise ValueError(f"recipe {name or 'of a model'}: {problem}") from None
    except RecursionError:
        raise ValueError(f"recipe {name}: it is nested too deep, or in itself; expected the fields of one") from None


def _check_values(kind: Any, values: Any, within: str = "") -> None:
    """Raise an ArgumentError where jsonargparse took anything for a part of a recipe, or null for a field that has no
    such value.
    """
    from jsonargparse import ArgumentError, Namespace

    for name, hint in get_type_hints(kind).items():
        value, path = values.get(name), within + name
        if is_dataclass(hint):
            if not isinstance(value, Namespace):
                raise ArgumentError(None, f"{path} is a part with fields, got {value!r}: give it some or leave it out")
            _check_values(hint, value, f"{path}.")
        elif value is None and type(None) not in get_args(hint):
            raise ArgumentError(None, f"{path} has no value: give it one or leave it out")


def _text_of(name: str | Path) -> str:
    """Return the text of a recipe."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"recipe {path} is not UTF-8 text: expected a YAML file") from None
    packaged = resources.files("randfeat.configs")
    names = sorted(entry.name[:-5] for entry in packaged.iterdir() if entry.name.endswith(".yaml"))
    if name not in names:
        raise ValueError(f"there is no recipe {name!r}: give a path ending in .yaml or one of {', '.join(names)}")
    return (packaged / f"{name}.yaml").read_text("utf-8")


def _check_field(kind: type[Any], change: str) -> None:
    """Raise a ValueError that lists the fields, unless a change has the form FIELD=VALUE of an existing field."""
    path, equals, _ = change.partition("=")
    known = _fields_of(kind)
    if equals and path in known:
        return
    near = difflib.get_close_matches(path, known, 1) or [one for one in known if one.endswith(f".{path}")]
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    raise ValueError(f"a recipe is changed by FIELD=VALUE, and {change!r} is none: {hint}")


def _fields_of(kind: Any) -> list[str]:
    """Return the names of the fields of a dataclass, those of dataclasses in it as PART.NAME."""
    known: list[str] = []
    for name, hint in get_type_hints(kind).items():
        known += [f"{name}.{inner}" for inner in _fields_of(hint)] if is_dataclass(hint) else [name]
    return known
