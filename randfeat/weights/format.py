"""Format of a model directory: `config.json`, `model.safetensors` and the same for the tokenizer; nothing runs code."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FILES = CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER = "tokenizer"  # folder of a model directory with its tokenizer, in the same format
TRAINING = "training.json"  # of a tokenizer that was trained here: recipe, data and losses


def fingerprint(*modules: torch.nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and values of all parameters and buffers: 64 hexadecimal digits.

    A tokenizer's `settings` are part of it where it has some: they change its tokens and leave no trace in its weights.
    """
    digest = hashlib.sha256()
    for module in modules:
        if settings := getattr(module, "settings", None):
            digest.update(f"{json.dumps(settings, sort_keys=True)}\n".encode())
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write config and tensors into an existing directory. Raises an OSError, on a full disk for instance."""
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, directory / WEIGHTS)
    except SafetensorError as error:
        raise OSError(f"{directory / WEIGHTS} could not be written ({error}): check the space on the disk") from None


def converted(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return tensors in a floating-point type, None for the one each has; those of whole numbers stay.

    Raises a ValueError where `dtype` is no such type or where a finite value would overflow in it.
    """
    if dtype is None:
        return {**tensors}
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"weights cannot be written as {dtype!r}: give a floating-point torch.dtype")
    rounded = {
        name: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    for name, tensor in rounded.items():
        if not tensor.isfinite().all() and tensors[name].isfinite().all():
            raise ValueError(f"{name} has values beyond {dtype}: write the weights in bfloat16 or float32")
    return rounded


def read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of a directory. Raises a FileNotFoundError or a ValueError of one sentence."""
    for name in FILES:
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} is no model directory: it has no {name}")
    return read_config(directory), read_safetensors(directory / WEIGHTS)


def is_model(directory: Path) -> bool:
    """Return whether a directory holds a model written by `Pipeline.save` and nothing else."""
    names = {inside.name for inside in directory.iterdir()}
    if CONFIG not in names or names - {*FILES, TOKENIZER}:
        return False
    try:
        return {"randfeat", "generator"} <= read_config(directory).keys()
    except ValueError:
        return False


def read_config(directory: Path) -> dict[str, Any]:
    """Return the config of a model directory. Raises a ValueError where it is no JSON object."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError; deep nesting is the other
        raise ValueError(f"{directory / CONFIG} is not valid JSON: it is damaged, copy it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{directory / CONFIG} does not describe a model of randfeat: it holds no JSON object")
    return config


def fault_of(error: Exception) -> str:
    """Return why a config made no model, in words about its fields."""
    if isinstance(error, KeyError):
        return f"it has no field {error}"
    text = str(error)
    if isinstance(error, TypeError) and (names := re.findall(r"'(\w+)'", text)):
        if "unexpected keyword" in text:
            return f"it has the field {names[0]!r}, which this version does not know"
        if "missing" in text:
            return f"it has no field {', '.join(map(repr, names))}"
    return text if isinstance(error, ValueError) else "a field has a value of another type than expected"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory, so that each is read from the disk when it is used."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): copy it again") from None
