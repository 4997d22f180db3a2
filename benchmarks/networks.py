"""Networks of random weights that jobs share: time does not depend on weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from randfeat import Guidance, Sampling, models
from randfeat.models import Generator, packed

LARGE = {"grid": (16, 16), "vocab_size": 16384, "num_classes": 1000}
TINY = {"grid": (8, 8), "vocab_size": 64, "num_classes": 10, "embed_dim": 32, "num_heads": 2, "depth": 2}
SMALL = {"embed_dim": 384, "num_heads": 6}
GUIDANCE = Guidance(4.0)
RASTER = Sampling(None, "one-by-one", GUIDANCE)


def keywords(name: str, size: str) -> dict[str, Any]:
    """Return the size of a network; L and XL are published. ARPG's blocks are half of them in each half."""
    if size == "tiny":
        return dict(TINY)
    if size == "XS":
        return {**LARGE, "vocab_size": 1024, "embed_dim": 128, "num_heads": 4, "depth": 3 if name == "arpg" else 6}
    if size == "S":
        return {**LARGE, **SMALL, "depth": 6 if name == "arpg" else 12}
    return {**LARGE, **models.SIZES[f"{name}_{size.lower()}"][1]}


def fresh(name: str, size: str, dtype: str = "float32", **changed: Any) -> Generator:
    torch.manual_seed(0)
    model = models.create(name, **{**keywords(name, size), **changed})
    nn.init.normal_(model.head.weight, std=0.04)  # a head of zeros decodes nothing but ties
    return model.to(getattr(torch, dtype)).eval()


@lru_cache(1)
def plain(name: str, size: str, dtype: str = "float32") -> Generator:
    return fresh(name, size, dtype)


@lru_cache(3)
def prepacked(name: str, size: str, dtype: str = "float32") -> Generator:
    """Return the inference copy that a pipeline keeps."""
    return packed.inference_copy(fresh(name, size, dtype))


def tokens_of(model: Generator, images: int) -> Tensor:
    """Return random tokens (images, N)."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(model.vocab_size, (images, model.num_tokens), generator=draw)
