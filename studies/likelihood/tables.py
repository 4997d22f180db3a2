"""Table of log p of every token of test images under every class in 20 orders, kept in a file.

The library's own code of successive halving runs on such a table, which replaces the generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from randfeat import Pipeline
from randfeat.inference import likelihood, successive_halving

ORDERS = 20


def table(model: Pipeline, images: Tensor, file: Path) -> Tensor:
    """Return log p, float32 (K, B, C, N), in order space; K is 1 for a raster model. file: where it is kept."""
    if file.exists():
        return torch.load(file)
    tokens, orders = model.encode(images), likelihood.orders_of(model.generator, ORDERS)
    count = len(orders), len(tokens), model.generator.num_classes
    order, image, label = (part.flatten() for part in torch.meshgrid(*map(torch.arange, count), indexing="ij"))
    read = likelihood.token_log_prob(model.inference_generator(), tokens, orders, (image, label, order))
    found = torch.cat(list(read)).view(*count, -1)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, file)
    return found


@contextmanager
def looked_up(model: Pipeline, found: Tensor) -> Iterator[None]:
    """Let successive halving read log p from a table inside the context."""
    orders = likelihood.orders_of(model.generator, ORDERS)

    def token_log_prob(
        generator: object, tokens: Tensor, part: Tensor, rows: tuple[Tensor, Tensor, Tensor], tick: object
    ) -> Iterator[Tensor]:
        image, label, place = rows
        first = int((orders[:, : part.shape[1]] == part[0]).all(1).nonzero()[0])
        yield found[first + place, image, label, : part.shape[1]]

    original = successive_halving.token_log_prob
    successive_halving.token_log_prob = token_log_prob  # type: ignore[assignment]
    try:
        yield
    finally:
        successive_halving.token_log_prob = original
