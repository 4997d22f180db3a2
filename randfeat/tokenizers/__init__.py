"""Tokenizers, by name."""

from __future__ import annotations

from typing import Any

from .adapt import adapted
from .base import Tokenizer
from .llamagen_vq import VQ8, VQ16, LlamaGenVQ
from .maskgit_vq import MaskGITVQ
from .patch import PatchTokenizer

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "llamagen_vq": LlamaGenVQ,
    "maskgit_vq": MaskGITVQ,
    "patch": PatchTokenizer,
}

__all__ = [
    "TOKENIZERS",
    "VQ8",
    "VQ16",
    "LlamaGenVQ",
    "MaskGITVQ",
    "PatchTokenizer",
    "Tokenizer",
    "adapted",
    "create",
    "name_of",
]


def create(name: str, **config: Any) -> Tokenizer:
    """Return a tokenizer by its registered name; config: keywords of its class."""
    if name not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {name!r}, expected one of {', '.join(sorted(TOKENIZERS))}")
    return TOKENIZERS[name](**config)


def name_of(tokenizer: Tokenizer) -> str:
    """Return the registered name of a tokenizer's class."""
    return next(name for name, cls in TOKENIZERS.items() if type(tokenizer) is cls)
