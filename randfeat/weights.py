"""Weights on disk: our own format, and the names that official checkpoints use.

A model directory holds `config.json` and `model.safetensors` and nothing that runs code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .models import Generator
from .tokenizers import Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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
    """An official state_dict under our names. Raises a ValueError that lists missing and unexpected keys."""
    layout = _official_layout(model)
    expected = {name for names in layout.values() for name in names}
    unused = model.unused if isinstance(model, Tokenizer) else ()
    _check_keys(expected, set(state) - set(unused))
    return {ours: torch.cat([state[name] for name in names]) for ours, names in layout.items()}


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state whose names and shapes must be the module's; a ValueError lists the first that are not."""
    own = module.state_dict()
    _check_keys(set(own), set(state))
    wrong = [f"{k}: {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if state[k].shape != own[k].shape]
    if wrong:
        raise ValueError(f"{len(wrong)} weights have the wrong shape: {_first(wrong)}")
    module.load_state_dict(dict(state))


def _check_keys(expected: set[str], found: set[str]) -> None:
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        raise ValueError(
            f"these are weights of another model: {len(missing)} missing ({_first(missing)}), "
            f"{len(unexpected)} unexpected ({_first(unexpected)})"
        )


def _first(names: list[str], count: int = 3) -> str:
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
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} is no model directory: it has no {name}")
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{directory / CONFIG} is not valid JSON: {error}") from None
    try:
        return config, load_file(directory / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{directory / WEIGHTS} is damaged or cut short ({error}): copy it again") from None
