"""Weights on disk and on the hub: model directories, official checkpoints, and the tables of published ones."""

from __future__ import annotations

from .format import (
    CONFIG,
    FILES,
    TOKENIZER,
    TRAINING,
    WEIGHTS,
    converted,
    fault_of,
    fingerprint,
    is_model,
    read,
    read_config,
    read_safetensors,
    write,
)
from .official import first_few, from_official, load_strict, to_official

__all__ = [
    "CONFIG",
    "FILES",
    "TOKENIZER",
    "TRAINING",
    "WEIGHTS",
    "converted",
    "fault_of",
    "fingerprint",
    "first_few",
    "from_official",
    "is_model",
    "load_strict",
    "read",
    "read_config",
    "read_safetensors",
    "to_official",
    "write",
]
