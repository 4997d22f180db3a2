"""Generators small enough to be tested exhaustively, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randfeat import orders
from randfeat.models import MODELS, Generator, create

# a newly registered model is tested by being registered
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MODELS),
    ("randar", {"num_kv_heads": 1}),
]
EVERY = [(name, grid, config) for name, config in VARIANTS for grid in ((3, 3), (2, 4))]


def name(variant: tuple) -> str:
    model, *grid, config = variant
    parts = [model, *("x".join(map(str, g)) for g in grid), *(f"{k}={v}" for k, v in config.items())]
    return "-".join(parts)


def model(name: str, grid: tuple[int, int] = (2, 3), seed: int = 0, **config: Any) -> Generator:
    """In evaluation mode, with weights re-drawn: a fresh one's zero head and small matrices tell nothing."""
    small = dict(vocab_size=7, num_classes=3, embed_dim=16, depth=2, num_heads=2, ffn_dim=24)
    made = create(name, grid=grid, **(small | config))
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 0.3 * noise if parameter.ndim > 1 else 1 + 0.3 * noise
    return made.eval()


def batch(model: Generator, images: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, labels and an order for each image."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.vocab_size, (images, model.num_tokens), generator=generator)
    label = torch.arange(images) % (model.num_classes + 1)
    return tokens, label, orders.random(model.grid, torch.arange(images) + seed)


def changed(model: Generator, tokens: Tensor, positions: Tensor) -> Tensor:
    """The tokens with another value at one raster position of each image. positions: (B, 1)."""
    return tokens.scatter(1, positions, (tokens.gather(1, positions) + 1) % model.vocab_size)
