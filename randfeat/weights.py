"""Weights on disk: our own format, and the names that official checkpoints use.

A model directory holds `config.json` and `model.safetensors` and nothing that runs code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .models import Generator
from .tokenizers import Tokenizer

FILES = CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER = "tokenizer"  # the folder of a model directory that holds its tokenizer, in the same form


def _official_layout(model: Generator | Tokenizer) -> dict[str, tuple[str, ...]]:
    """Each of our parameter names with the official names that make it up, stacked along dimension 0."""
    if isinstance(model, Tokenizer):  # tokenizers are written with the official names
        return {name: (name,) for name in model.state_dict()}
    layout = {}
    for ours in model.state_dict():
        parts = ours.split(".")
        number = next((part for part in parts if part.isdigit()), "*")
        pattern = ".".join("*" if part.isdigit() else part for part in parts)
        layout[ours] = tuple(name.replace("*", number) for name in model.official_names[pattern])
    return layout


def to_official(model: Generator | Tokenizer, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state (by default the model's own) under the names and shapes of the official code's state_dict, without
    what nothing here reads (`Tokenizer.unused`).
    """
    state = model.state_dict() if state is None else state
    official: dict[str, Tensor] = {}
    for ours, names in _official_layout(model).items():
        official.update(zip(names, state[ours].chunk(len(names)), strict=True))
    return official


def from_official(model: Generator | Tokenizer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state_dict under our names, less what nothing here reads. Raises as `load_strict` does.

    The model may lie on the meta device; tensors that have one official name are not copied.
    """
    state = {name: value for name, value in state.items() if name not in model.unused}
    _check(to_official(model), state)
    stacked = {ours: [state[name] for name in names] for ours, names in _official_layout(model).items()}
    return {ours: parts[0] if len(parts) == 1 else torch.cat(parts) for ours, parts in stacked.items()}


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], assign: bool = False) -> None:
    """Loads a state whose names and shapes must be the module's; a ValueError lists the first that are not.

    assign: take the tensors themselves, whatever their type and device, instead of copying their values.
    """
    _check(module.state_dict(), state)
    module.load_state_dict(dict(state), assign=assign)


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"these are weights of another model: {len(missing)} missing ({first_few(missing)}), "
            f"{len(unexpected)} unexpected ({first_few(unexpected)})"
        )
    shapes = {name: (tuple(found[name].shape), tuple(value.shape)) for name, value in expected.items()}
    wrong = [f"{name}: {actual} for {wanted}" for name, (actual, wanted) in shapes.items() if actual != wanted]
    if wrong:
        raise ValueError(f"{len(wrong)} weights have the wrong shape: {first_few(wrong)}")


def first_few(names: Sequence[str], count: int = 3) -> str:
    """For an error: the first names, or `none`."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "") if names else "none"


def fingerprint(*modules: torch.nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes config and tensors into a directory that exists."""
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, directory / WEIGHTS)
    except SafetensorError as error:  # a full disk, for instance
        raise OSError(f"{directory / WEIGHTS} could not be written: {error}") from None


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write` wrote. Raises FileNotFoundError or ValueError with one sentence."""
    for name in FILES:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} is no model directory: it has no {name}")
    return read_config(directory), read_safetensors(directory / WEIGHTS)


def read_config(directory: Path) -> dict[str, Any]:
    """The config of a model directory."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ValueError(f"{directory / CONFIG} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{directory / CONFIG} does not describe a model of randfeat: it holds no JSON object")
    return config


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped into memory: nothing is read from the disk before it is used."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): copy it again") from None
