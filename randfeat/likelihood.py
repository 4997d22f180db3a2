"""The likelihood of an image, and classification by it (arXiv 2603.19122): log p averaged over K orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import orders, seeding
from .models import Generator


@torch.no_grad()
def log_prob(
    model: Generator,
    tokens: Tensor,
    labels: Tensor | None = None,
    count: int = 1,
    mode: str | None = None,
    seed: int = 0,
    batch_size: int = 512,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """log p(tokens | label) in nats, for each of `count` orders that all images share: (B, N), (B,) -> float32 (B,
    count).

    labels: class indices, None for the null class. mode: of the orders, by default random where the model can; the
    others have one order, which is read once. tick: called after each order, for a progress bar.
    """
    if count < 1:
        raise ValueError(f"a likelihood needs at least one order, got {count}")
    labels = torch.full((len(tokens),), model.num_classes) if labels is None else labels
    mode = model.check_order_mode(mode)
    columns: list[Tensor] = []
    with model.evaluating():
        for k in range(count):
            if columns and mode != "random":
                columns.append(columns[0])
                tick()
                continue
            order = orders.make(mode, model.grid, seeding.derive(seed, k).to(model.device).view(1))
            parts = []
            for rows in torch.arange(len(tokens)).split(batch_size):
                chunk, label = tokens[rows].to(model.device), labels[rows].to(model.device)
                own = order.expand(len(rows), -1)
                logits = model(chunk, label, own).float()
                picked = logits.log_softmax(-1).gather(-1, orders.gather(chunk, own).unsqueeze(-1))
                parts.append(picked.sum((1, 2)).cpu())
            columns.append(torch.cat(parts))
            tick()
    return torch.stack(columns, 1)


def class_log_prob(
    model: Generator,
    tokens: Tensor,
    classes: Sequence[int] | None = None,
    count: int = 1,
    mode: str | None = None,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """log p(tokens | class) for each class (all by default) on the same orders: (B, N) -> float32 (B, C, count).

    Its mean over the last dimension ranks the classes: the mean of log p does better than the mean of p.
    """
    classes = range(model.num_classes) if classes is None else classes
    if not len(classes):
        raise ValueError("this model was trained without labels: it cannot classify by likelihood")
    wrong = [c for c in classes if not 0 <= c < model.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} is outside 0..{model.num_classes - 1}")
    return torch.stack(
        [log_prob(model, tokens, torch.full((len(tokens),), label), count, mode, seed, tick=tick) for label in classes],
        1,
    )
