"""Optimizer, learning rate and exponential moving average (EMA) of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from randfeat.utils.learning_rates import Decay, warmup_decay

from .config import OptimConfig
from .parallel import full_tensor, to_local

_DECAYS: dict[str, Decay] = {"cosine": "cosine", "constant": "constant", "linear-end": "linear", "cosine-end": "cosine"}


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return AdamW over the parameters that require gradients."""
    return adamw(parameter_groups(model, config), config)


def parameter_groups(model: nn.Module, config: OptimConfig, **own: Any) -> list[dict[str, Any]]:
    """Return the parameters that require gradients, with and without weight decay. own: further entries of a group.

    Weight decay applies to all parameters of two or more dimensions, embeddings included, as in the code of RandAR and
    ARPG, except for those that the model names as `not_decayed`.
    """
    exempt = getattr(model, "not_decayed", ())
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim > 1 and name not in exempt]
    plain = [p for name, p in trained if p.ndim <= 1 or name in exempt]
    return [
        {"params": decayed, "weight_decay": config.weight_decay, **own},
        {"params": plain, "weight_decay": 0.0, **own},
    ]


def adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """Return AdamW over groups of parameters."""
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(step: int, config: OptimConfig) -> float:
    """Return the learning rate of step 0, 1, ...: a linear warm-up, then the schedule of the config."""
    decay_from = None if config.decay_steps is None else config.steps - config.decay_steps
    return config.learning_rate * warmup_decay(
        step,
        config.steps,
        config.warmup,
        first=1,
        decay=_DECAYS[config.schedule],
        decay_from=decay_from,
        end=config.final_lr_ratio,
    )


def update(optimizer: torch.optim.Optimizer, modules: Sequence[nn.Module], step: int, config: OptimConfig) -> float:
    """Clip the gradients, take step 0, 1, ... and return the gradient norm of the first module before clipping.

    modules: each is clipped by the norm of its own gradients. A norm that is not finite changes nothing, and is
    returned. The norm is that of the gradients summed over all processes, so all of them decide the same.
    A group of the optimizer may have a `rate_factor` of the learning rate, and a `first_step` before which it rests.
    """
    norms = [float(full_tensor(nn.utils.clip_grad_norm_(one.parameters(), config.clip))) for one in modules]
    wrong = next((norm for norm in norms if not math.isfinite(norm)), None)
    if wrong is not None:
        return wrong
    rate = learning_rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0) if step >= group.get("first_step", 0) else 0.0
    optimizer.step()
    return norms[0]


class EMA:
    """Exponential moving average of the weights, in their own type, from the first update on.

    The arithmetic is torch's (`get_ema_multi_avg_fn`). `torch.optim.swa_utils.AveragedModel` around it cannot be used:
    it deep-copies the model, which `fully_shard` refuses ("FSDP does not support deepcopy"), and it holds a second
    network where a list of tensors is enough.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """decay: weight of the old average in each update, from 0 to 1."""
        self.parameters, self._average = list(model.parameters()), get_ema_multi_avg_fn(decay)
        self.values: list[Tensor] = []

    def update(self) -> None:
        """Move the average towards the weights; the first call copies them."""
        if self.values:
            self._average(tuple(to_local(self.values)), tuple(to_local(self.parameters)), 0)  # the count is not used
        else:
            self.values = [p.detach().clone() for p in self.parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights inside the context, and its own ones after it."""
        weights = to_local(self.parameters)
        own = [x.clone() for x in weights]
        torch._foreach_copy_(weights, to_local(self.values) or own)
        try:
            yield
        finally:
            torch._foreach_copy_(weights, own)
