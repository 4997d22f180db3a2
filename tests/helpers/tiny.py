"""Generators small enough to be tested exhaustively, and inputs for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from randfeat.models import MODELS, Generator, base, create, orders

CONTROL: dict[str, Any] = {"kind": "edges", "patch": 2, "width": 8, "depth": 1}
# a newly registered model is tested by being registered
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MODELS),
    ("llamagen", {"num_kv_heads": 1}),
    ("randar", {"num_kv_heads": 1}),
    ("arpg", {"control": CONTROL}),
    ("randar", {"control": CONTROL}),
    ("lpd", {"control": CONTROL}),
]
OFFICIAL = [variant for variant in VARIANTS if MODELS[variant[0]].official_names]
EVERY = [(name, grid, config) for name, config in VARIANTS for grid in ((3, 3), (2, 4))]
ANY_ORDER = [variant for variant in EVERY if "random" in MODELS[variant[0]].order_modes]
# those whose states say nothing of the order where nothing is masked
ORDERLESS = [variant for variant in ANY_ORDER if not MODELS[variant[0]].target_aware]


def readings(variants: list[tuple], *but: str) -> list[Any]:
    """(variant, context, stream) for all that each can read, without the contexts in `but`."""
    return [
        pytest.param(variant, context, stream, id=f"{name(variant)}-{context}-{stream}")
        for variant in variants
        for context in MODELS[variant[0]].contexts
        for stream in MODELS[variant[0]].streams
        if context not in but and not (context in base.ASKED_BEHIND and stream == "token")
    ]


def name(variant: tuple) -> str:
    model, *grid, config = variant
    parts = [
        model,
        *("x".join(map(str, g)) for g in grid),
        *(k if k == "control" else f"{k}={v}" for k, v in config.items()),
    ]
    return "-".join(parts)


def model(name: str, grid: tuple[int, int] = (2, 3), seed: int = 0, **config: Any) -> Generator:
    """In evaluation mode, with weights re-drawn: a fresh one's zero head and small matrices tell nothing."""
    small = dict(vocab_size=7, num_classes=3, embed_dim=16, depth=2, num_heads=2, ffn_dim=24)
    made = create(name, grid=grid, **(small | config))
    generator = torch.Generator().manual_seed(seed)
    for name_of, parameter in made.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter.ndim == 1 and name_of.endswith("weight")  # of a norm
        parameter.data = 1 + 0.3 * noise if scale else 0.3 * noise
    return made.eval()


def condition_image(model: Generator, images: int = 1, seed: int = 0) -> Tensor:
    """(B, 1, H, W), as CONTROL asks for."""
    h, w = (side * CONTROL["patch"] for side in model.grid)
    return torch.rand(images, 1, h, w, generator=torch.Generator().manual_seed(seed))


def steer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steer each generator with control by one image from now on, where a call on its own grid gives no condition."""
    check = Generator.check_condition

    def steered(self: Generator, condition: Tensor | None, batch: int, positions: int | None = None) -> Tensor | None:
        if condition is None and self.control is not None and positions in (None, self.num_tokens):
            condition = self.control(condition_image(self)).expand(batch, -1, -1)
        return check(self, condition, batch, positions)

    monkeypatch.setattr(Generator, "check_condition", steered)


def batch(model: Generator, images: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, labels and an order for each image: a random one where the model can."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.vocab_size, (images, model.num_tokens), generator=generator)
    label = torch.arange(images) % (model.num_classes + 1)
    return tokens, label, orders.make(model.order_modes[0], model.grid, torch.arange(images) + seed)


def steps(model: Generator, count: int) -> int | None:
    """Return a number of sampling steps, where one step of the model can decode several tokens."""
    return None if model.one_token_a_step else count


def changed(model: Generator, tokens: Tensor, positions: Tensor) -> Tensor:
    """The tokens with another value at one raster position of each image. positions: (B, 1)."""
    return tokens.scatter(1, positions, (tokens.gather(1, positions) + 1) % model.vocab_size)
