"""Training objective: the negative log-likelihood of each token given those before it in its order.

Logits exist for a few rows at a time, in single precision, and only where there is a target: those of a whole batch,
(B * N, V), would be the largest tensor in memory by far.
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

# of single-precision logits at once: so many as fit the caches of a CPU, or keep another device busy
BYTES_AT_ONCE = {"cpu": 1 << 24}
BYTES_ELSEWHERE = 1 << 28


class Objective(nn.Module):
    """Generator and loss as one module.

    DDP and FSDP wrap a module and need all of its parameters to be used in one forward.
    """

    def __init__(self, generator: Generator, in_bfloat16: bool = False) -> None:
        """in_bfloat16: compute matrix products and attention in bfloat16 instead of the weights' own type."""
        super().__init__()
        self.generator, self.in_bfloat16 = generator, in_bfloat16

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        order: Tensor,
        paired: Tensor | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss of the batch in nats, (), and that of each place in the order, (B, N).

        The second has no gradients. tokens, order: (B, N); labels: (B,). paired: of other objectives. sizes: of the
        groups that a model with such is trained on; it is read token by token where there are none.
        """
        return self.losses(self.states(tokens, labels, order, sizes), tokens, order)

    def losses(self, states: Tensor, tokens: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the result of `forward`, given the hidden states that the head reads."""
        targets, head = orders.gather(tokens, order), self.generator.head
        dtype = torch.bfloat16 if self.in_bfloat16 else head.weight.dtype
        total, losses = cross_entropy(states.flatten(0, 1), head.weight, targets.flatten(), dtype, head.bias)
        return total, losses.view_as(targets)

    def states(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, sizes: tuple[int, ...] | None = None
    ) -> Tensor:
        """Return the hidden states that the head reads: (B, N, D) in order space."""
        with self.precision(tokens.device):
            how: dict[str, Any] = {"sizes": sizes} if sizes else {}
            return self.generator.pre_logits(tokens, labels, order, **how)

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of the configured precision."""
        return torch.autocast(device.type, torch.bfloat16) if self.in_bfloat16 else nullcontext()


class ControlObjective(Objective):
    """Objective of a generator with control, with conditions computed from the images that the tokens decode to."""

    def __init__(
        self,
        generator: Generator,
        in_bfloat16: bool,
        pixels: Callable[[Tensor], Tensor],
        dropout: float,
    ) -> None:
        """pixels: decodes tokens (B, N) to images (B, C, H, W) in [0, 1]. dropout: probability with which an image is
        shown without its condition in training, for guidance.
        """
        super().__init__(generator, in_bfloat16)
        self.pixels, self.dropout = pixels, dropout

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        order: Tensor,
        paired: Tensor | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the same as `Objective`. paired: tokens (B, N) of pictures to compute conditions from instead."""
        states = self._controlled_states(tokens, labels, order, tokens if paired is None else paired, sizes)
        return self.losses(states, tokens, order)

    def _controlled_states(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        order: Tensor,
        sources: Tensor,
        sizes: tuple[int, ...] | None,
    ) -> Tensor:
        control = self.generator.control
        if control is None:
            raise ValueError("the generator has no control to train: add one with `add_control`")
        with torch.no_grad():
            images = conditions.make(self.pixels(sources), control.kind)
        with self.precision(tokens.device):
            condition = control(images)
            if self.generator.training:
                shown = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.dropout
                condition = condition * shown
            how: dict[str, Any] = {"sizes": sizes} if sizes else {}
            return self.generator.pre_logits(tokens, labels, order, condition, **how)


def cross_entropy(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    dtype: torch.dtype | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of the logits `states @ weight.T + bias`: its sum, (), and that of each row, (n,), in
    float32.

    The second has no gradients. states: (n, D). weight: (V, D). targets: (n,). dtype: of the matrix product, by default
    the weight's. bias: (V,).
    """
    dtype = dtype or weight.dtype
    rows = max(1, BYTES_AT_ONCE.get(states.device.type, BYTES_ELSEWHERE) // (4 * len(weight)))
    if torch.is_grad_enabled():
        return _CrossEntropy.apply(states, weight, targets, dtype, rows, bias)
    weight = weight.to(dtype)
    parts = zip(states.split(rows), targets.split(rows), strict=True)
    losses = torch.cat([-_of_targets(_log_p(x.to(dtype), weight, bias), wanted) for x, wanted in parts])
    return losses.sum(), losses


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy whose gradients are computed with the loss, so that no logits are stored or computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        rows: int,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        losses, to_states = states.new_empty(len(states), dtype=torch.float32), torch.empty_like(states)
        to_weight, kind = torch.zeros_like(weight, dtype=torch.float32), weight.dtype
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        weight = weight.to(dtype)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            inputs, wanted = states[part].to(dtype), targets[part]
            log_p = _log_p(inputs, weight, bias)
            losses[part] = -_of_targets(log_p, wanted)
            slopes = log_p.exp_()
            slopes[torch.arange(len(slopes), device=slopes.device), wanted] -= 1
            if to_bias is not None:
                to_bias += slopes.sum(0)
            slopes = slopes.to(dtype)
            to_states[part] = matmul(slopes, weight.T)
            to_weight += matmul(slopes.T, inputs.T)
        ctx.save_for_backward(to_states, to_weight.to(kind), None if to_bias is None else to_bias.to(kind))
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, total: Tensor, _losses: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_weight, to_bias = ctx.saved_tensors
        biased = None if to_bias is None else to_bias * total
        return to_states * total, to_weight * total, None, None, None, biased


def _log_p(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = matmul(states, weight).float()
    return (logits if bias is None else logits + bias.float()).log_softmax(-1)


def _of_targets(rows: Tensor, targets: Tensor) -> Tensor:
    return rows.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
