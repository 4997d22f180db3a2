"""Matrix products of training on a CPU, by oneDNN.

`randfeat.utils.onednn` says why: oneDNN is faster even if it has to rearrange a weight on each call.
(Reading and sampling, where weights stay the same, keep them rearranged: see `randfeat.models.packed`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from randfeat.utils.onednn import has_onednn, linear

LARGE = 1 << 22  # multiplications below which the detour costs more than it saves


@contextmanager
def by_onednn(model: nn.Module) -> Iterator[None]:
    """Inside, linear layers without bias use it where that pays."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.bias is None:
            vars(layer)["forward"] = partial(_linear, layer)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether x @ weight.T is a product for oneDNN: of large float32 matrices on a CPU that torch has it for."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LARGE
        and has_onednn()
    )


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T, without gradients. (..., D), (V, D) -> (..., V)."""
    return linear(x, weight) if pays(x, weight) else x @ weight.T


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled("cpu") or not pays(x, layer.weight):
        return F.linear(x, layer.weight)
    return _Linear.apply(x, layer.weight)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = product(slopes, weight.T) if ctx.needs_input_grad[0] else None
        return to_x, product(slopes.flatten(0, -2).T, x.flatten(0, -2).T)
