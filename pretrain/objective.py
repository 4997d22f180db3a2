"""What training minimises: the negative log-likelihood of each token given those before it in its order.

Logits exist for a few rows at a time, in single precision, and only where there is a target: all of a batch,
(B * N, V), would be the largest thing in memory by far.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from randfeat.data import conditions
from randfeat.models import Generator, orders
from randfeat.utils.onednn import matmul

# of single-precision logits that exist at once: what stays in the caches of a CPU, what keeps another device busy
BYTES_AT_ONCE = {"cpu": 1 << 24}
BYTES_ELSEWHERE = 1 << 28


class Objective(nn.Module):
    """A generator with its loss as one module, so that what wraps a module for many processes sees all its parameters
    used inside one forward.
    """

    def __init__(self, generator: Generator, in_bfloat16: bool = False) -> None:
        """in_bfloat16: the type of matrix products and attention, instead of the weights' own."""
        super().__init__()
        self.generator, self.in_bfloat16 = generator, in_bfloat16

    def forward(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over the batch in nats, and what each place in the order adds to it, without gradients: (),
        (B, N).

        tokens, order: (B, N); labels: (B,).
        """
        return self.losses(self.states(tokens, labels, order), tokens, order)

    def losses(self, states: Tensor, tokens: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` returns, of what the head reads."""
        targets, weight = orders.gather(tokens, order), self.generator.head.weight
        dtype = torch.bfloat16 if self.in_bfloat16 else weight.dtype
        total, losses = cross_entropy(states.flatten(0, 1), weight, targets.flatten(), dtype)
        return total, losses.view_as(targets)

    def states(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> Tensor:
        """What the head reads: (B, N, D) in order space."""
        with self.precision(tokens.device):
            return self.generator.pre_logits(tokens, labels, order)

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside, products have the type that was asked for."""
        return torch.autocast(device.type, torch.bfloat16) if self.in_bfloat16 else nullcontext()


class ControlObjective(Objective):
    """The same for a generator with control, which is shown the conditions of the images that the tokens stand for."""

    def __init__(
        self,
        generator: Generator,
        in_bfloat16: bool,
        pixels: Callable[[Tensor], Tensor],
        dropout: float,
    ) -> None:
        """pixels: tokens (B, N) -> images (B, C, H, W) in [0, 1]. dropout: share of the images that are shown without a
        condition in training, for guidance.
        """
        super().__init__(generator, in_bfloat16)
        self.pixels, self.dropout = pixels, dropout

    def forward(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of `Objective`. paired: tokens (B, N) of pictures that conditions are made of instead of the images."""
        states = self._steered(tokens, labels, order, tokens if paired is None else paired)
        return self.losses(states, tokens, order)

    def _steered(self, tokens: Tensor, labels: Tensor | None, order: Tensor, pictured: Tensor) -> Tensor:
        control = self.generator.control
        if control is None:
            raise ValueError("the generator has no control that could be trained: add one, see `add_control`")
        with torch.no_grad():
            images = conditions.make(self.pixels(pictured), control.kind)
        with self.precision(tokens.device):
            condition = control(images)
            if self.generator.training:
                shown = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.dropout
                condition = condition * shown
            return self.generator.pre_logits(tokens, labels, order, condition)


def cross_entropy(
    states: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Of the logits `states @ weight.T`, a product in `dtype`: its sum in float32, and each row's without gradients.

    states: (n, D); weight: (V, D); targets: (n,) -> (), (n,).
    """
    dtype = dtype or weight.dtype
    rows = max(1, BYTES_AT_ONCE.get(states.device.type, BYTES_ELSEWHERE) // (4 * len(weight)))
    if torch.is_grad_enabled():
        return _CrossEntropy.apply(states, weight, targets, dtype, rows)
    weight = weight.to(dtype)
    parts = zip(states.split(rows), targets.split(rows), strict=True)
    losses = torch.cat([-_of_targets(_log_p(x.to(dtype), weight), wanted) for x, wanted in parts])
    return losses.sum(), losses


class _CrossEntropy(torch.autograd.Function):
    """The gradients are made beside the loss, while a part's logits are at hand: nothing is computed again later."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, rows: int
    ) -> tuple[Tensor, Tensor]:
        losses, to_states = states.new_empty(len(states), dtype=torch.float32), torch.empty_like(states)
        to_weight, kind = torch.zeros_like(weight, dtype=torch.float32), weight.dtype
        weight = weight.to(dtype)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            inputs, wanted = states[part].to(dtype), targets[part]
            log_p = _log_p(inputs, weight)
            losses[part] = -_of_targets(log_p, wanted)
            slopes = log_p.exp_()
            slopes[torch.arange(len(slopes), device=slopes.device), wanted] -= 1
            slopes = slopes.to(dtype)
            to_states[part] = matmul(slopes, weight.T)
            to_weight += matmul(slopes.T, inputs.T)
        ctx.save_for_backward(to_states, to_weight.to(kind))
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: Tensor, _losses: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_weight = ctx.saved_tensors
        return to_states * total, to_weight * total, None, None, None


def _log_p(states: Tensor, weight: Tensor) -> Tensor:
    return matmul(states, weight).float().log_softmax(-1)


def _of_targets(rows: Tensor, targets: Tensor) -> Tensor:
    return rows.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
