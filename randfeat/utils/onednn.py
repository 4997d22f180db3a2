"""Matrix products on a CPU by oneDNN, which torch brings along; torch's own where it is missing.

torch asks oneDNN for bfloat16 alone. For float32 it asks MKL, which takes twice as long on processors that are not
Intel's. Training and fitting call `linear` and `matmul`, which rearrange a weight on each call and are faster even so;
inference keeps weights in oneDNN's blocked layout (`prepack`). The operations are those that torch's compiler emits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGE = 1 << 22  # multiplications below which the detour costs more than it saves
ROWS = 32  # a hint for the layout of a prepacked weight: few rows are as fast, any number of rows is right


def has_onednn() -> bool:
    """Return whether this torch has oneDNN, with the operations that are called here."""
    names = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`, without gradients.

    x: (..., d); weight: (m, d), of the same type and any strides. Returns (..., m).
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and has_onednn():
        bias = None if bias is None else bias.contiguous()  # oneDNN ignores the strides of a bias
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN is faster for `x @ weight.T`: for large float32 matrices on a CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LARGE
        and has_onednn()
    )


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.T`, without gradients, by oneDNN where that is faster. (..., D), (V, D) -> (..., V)."""
    return linear(x, weight) if is_faster(x, weight) else x @ weight.T


@contextmanager
def linear_layers(model: nn.Module) -> Iterator[None]:
    """Compute the linear layers without bias of a model in training by oneDNN where that is faster, in this block."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.bias is None:
            # the instance's own `forward` goes before the class's: no module is replaced, so no parameter changes place
            vars(layer)["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def can_prepack(weight: Tensor) -> bool:
    """Return whether `prepack` can rearrange a weight: it lies on a CPU, in float32 or bfloat16."""
    return weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and has_onednn()


def prepack(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function (..., d) -> (..., m) that computes `x @ weight.T + bias` with a copy of the weight (m, d).

    The copy lies in oneDNN's layout, which makes a product of few rows about twice as fast. Without gradients; an input
    of another type, as autocast makes, is cast to the weight's.
    """
    added = None if bias is None else bias.detach().clone()
    if not can_prepack(weight):
        plain = weight.detach().clone()
        return lambda x: F.linear(x.to(plain.dtype), plain, added)
    stored = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    dtype, product = weight.dtype, torch.ops.mkldnn._linear_pointwise.default

    def packed_linear(x: Tensor) -> Tensor:
        return product(x.to(dtype), stored, added, "none", [], "")

    return packed_linear


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled("cpu") or not is_faster(x, layer.weight):
        return F.linear(x, layer.weight)
    return _Linear.apply(x, layer.weight)


class _Linear(torch.autograd.Function):
    """`x @ weight.T`, forward and backward by `matmul`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = matmul(gradient, weight.T) if ctx.needs_input_grad[0] else None
        return to_x, matmul(gradient.flatten(0, -2).T, x.flatten(0, -2).T)
