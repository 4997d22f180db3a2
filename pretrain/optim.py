"""The optimiser, its schedule and the averaged weights, as functions of the step where they can be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .config import Training
from .parallel import local, whole


def make_optimiser(model: nn.Module, config: Training) -> torch.optim.Optimizer:
    """AdamW that decays every parameter of two or more dimensions, embeddings too, as both papers' code does. What asks
    for no gradient stays as it is.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    plain = [p for p in trained if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def learning_rate(step: int, config: Training) -> float:
    """Of step 0, 1, ...: linear warm-up, then the recipe's schedule."""
    return config.learning_rate * min((step + 1) / max(1, config.warmup), _after_warmup(step, config))


def _after_warmup(step: int, config: Training) -> float:
    first = config.warmup if config.decay_steps is None else config.steps - config.decay_steps
    if config.schedule == "constant" or step <= first:
        return 1.0
    share = min((step - first) / max(1, config.steps - first), 1)
    falling = (1 + math.cos(math.pi * share)) / 2 if config.schedule == "cosine" else 1 - share
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * falling


def update(optimiser: torch.optim.Optimizer, model: nn.Module, step: int, config: Training) -> float:
    """Clip the gradients and takes step 0, 1, ...; returns the norm that they had.

    With a norm that is not finite nothing is changed. It is the norm of what all processes found, so they agree.
    """
    norm = float(whole(nn.utils.clip_grad_norm_(model.parameters(), config.clip)))
    if math.isfinite(norm):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        optimiser.step()
    return norm


class EMA:
    """The weights' exponential moving average in float32, from the first update on."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters, self.decay = list(model.parameters()), decay
        self.values: list[Tensor] = []

    def update(self) -> None:
        """Move the average towards the weights; the first call copies them."""
        if self.values:
            torch._foreach_lerp_(local(self.values), local(self.parameters), 1 - self.decay)
        else:
            self.values = [p.detach().clone() for p in self.parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        weights = local(self.parameters)
        own = [x.clone() for x in weights]
        torch._foreach_copy_(weights, local(self.values) or own)
        try:
            yield
        finally:
            torch._foreach_copy_(weights, own)
