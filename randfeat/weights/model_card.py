"""Model card of a model directory: the README.md that the Hugging Face hub shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .. import tokenizers
from ..data.values import described
from ..utils import devices
from . import format, zoo

CARD, TEMPLATE = "README.md", "model_card.md"
CURVE_ROWS = 10  # of the validation losses that a card shows

_FAMILIES = {
    "arpg": ("ARPG", "2503.10568"),
    "arpg_positioned": ("ARPG with queries that begin with their position", "2503.10568"),
    "llamagen": ("LlamaGen", "2406.06525"),
    "lpd": ("LPD", "2507.01957"),
    "randar": ("RandAR", "2412.01827"),
    "rar": ("RAR", "2411.00776"),
}


@dataclass(frozen=True)
class Measured:
    """A number on a card: what it is, text with its unit, its interval as text, and the number of images."""

    what: str
    value: str
    interval: str
    images: int


@dataclass(frozen=True)
class About:
    """Facts of a card that a model directory does not hold.

    data: what the model learnt from, in sentences, and `datasets`, its ids on the hub. training: more lines, name and
    text. measured: numbers, with `measured_by`, sentences that say on what and by which command. licence: identifier of
    SPDX, and `licence_text`, sentences. limits: more of them, a sentence each.
    """

    data: str
    datasets: Sequence[str]
    training: Sequence[tuple[str, str]]
    measured: Sequence[Measured]
    measured_by: str
    licence: str
    licence_text: str
    limits: Sequence[str]


def write(directory: Path, repository: str, about: About | None = None) -> None:
    """Write the card of a model directory into it. repository: owner/name on the hub, or a name of the zoo."""
    import huggingface_hub

    data = huggingface_hub.ModelCardData(
        library_name="randfeat",
        pipeline_tag="image-feature-extraction",
        tags=["autoregressive", "image-generation"],
        license=None if about is None else about.licence,
        datasets=None if about is None else [*about.datasets],
    )
    template = resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    fields = describe(directory)
    if about is not None:
        fields["training"] += about.training
    card = huggingface_hub.ModelCard.from_template(
        data, template_str=template, repository=repository, about=about, **fields
    )
    card.save(directory / CARD)


def read(directory: Path) -> str:
    """Return the card of a model directory without its YAML header, or raise a FileNotFoundError."""
    import huggingface_hub

    return huggingface_hub.ModelCard((directory / CARD).read_text(encoding="utf-8")).text.strip()


def describe(directory: Path) -> dict[str, Any]:
    """Return the fields of the template for a model directory."""
    config = format.read_config(directory)
    generator, tokenizer_config = config["generator"], format.read_config(zoo.tokenizer_folder(directory))
    with devices.meta():
        tokenizer = tokenizers.create(**tokenizer_config)
    title, paper = _FAMILIES.get(generator["name"], (generator["name"], ""))
    classes = generator["num_classes"]
    control = generator.get("control")
    height, width = (side * tokenizer.stride for side in generator["grid"])
    return {
        "title": title,
        "paper": paper,
        "parameters": f"{_parameters(directory / format.WEIGHTS):,}",
        "height": height,
        "width": width,
        "channels": _kind(tokenizer),
        "stride": tokenizer.stride,
        "tokenizer": tokenizer_config["name"],
        "classes": f"{classes:,}" if classes else "none, trained without labels",
        "labels": "[0]" if classes else "[None]",
        "control": control["kind"] if control else "none",
        "version": config["randfeat"],
        **{name: generator[name] for name in ("grid", "vocab_size", "num_classes", "embed_dim", "depth", "num_heads")},
        **_training(config["training"]),
    }


def _kind(tokenizer: tokenizers.Tokenizer) -> str:
    """Return what images a tokenizer takes, in words."""
    if tokenizer.value_range is not None:
        return described(tokenizer.channels, tokenizer.value_range)
    return "grey" if tokenizer.channels == 1 else "RGB"


def _parameters(weights: Path) -> int:
    with safe_open(weights, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training's hyperparameters and validation losses; empty without a record of `randfeat.pretrain`."""
    how, history = record.get("recipe", {}).get("training", {}), record.get("history", {})
    lines = [
        (name.replace("_", " "), how[name])
        for name in ("steps", "batch_size", "learning_rate", "weight_decay", "schedule", "label_dropout", "ema", "seed")
        if name in how
    ]
    if history.get("seconds"):
        lines.append(("time", f"{history['seconds'] / 3600:.2g} hours"))
    if "kept_step" in history:
        lines.append(("step of the kept weights", history["kept_step"]))
    curve = history.get("validation", [])
    shown = curve[:: max(1, math.ceil(len(curve) / CURVE_ROWS))]
    return {"training": lines, "curve": [(step, f"{loss:.4f}") for step, loss in shown]}
