"""Networks as they are read and sampled from: the same function, its weights laid out for the processor.

On a CPU most of the time goes into matrix products of few rows. oneDNN, which torch brings along, does them about twice
as fast once a weight is stored in its own blocked layout, and torch does so for nobody unasked. The packed copy belongs
to a twin of the network, so it cannot reach a state_dict; whoever keeps a twin asks `signature` whether it still holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import SwiGLU

Network = TypeVar("Network", bound=nn.Module)

ROWS = 32  # a hint to oneDNN: products of any number of rows are right, and of few are as fast
_TWIN = "_is_twin"


def twin(network: Network) -> Network:
    """A copy in evaluation mode that shares the parameters and calls its parts directly, past modules and hooks.

    On a CPU its linear layers are packed. It computes, without gradients, what the network does when the twin is made:
    make it anew after a training step. A twin's twin is itself.
    """
    if _TWIN in vars(network):
        return network
    made = _fast(network, can_pack(network))
    made._modules = _shallow(network)._modules  # for whoever asks it for its parameters or changes its mode
    vars(made)[_TWIN] = True
    return made


def signature(network: nn.Module) -> list[tuple[int, int, float]]:
    """What changes when parameters do: where they lie, how often torch saw them changed, and a sum over their bits,
    which takes some milliseconds for 100 MB.

    What torch does not see, a change through `.data`, is in the sum, unless it only moves numbers about in one tensor.
    """
    return [(p.data_ptr(), p._version, _sum_of_bits(p.detach().flatten())) for p in network.parameters()]


def _sum_of_bits(values: Tensor) -> float:
    if values.numel() * values.element_size() % 8 == 0:
        return values.view(torch.int64).sum().item()
    return values.double().sum().item()


def _shallow(module: Network) -> Network:
    """Modules of its own, in evaluation mode, with the same parameters."""
    made = copy.copy(module)
    made.training = False
    made._modules = {name: child and _shallow(child) for name, child in module._modules.items()}
    return made


def _fast(module: Network, pack: bool) -> Network:
    made = copy.copy(module)
    made.training = False
    # names in an object's own dictionary are found before those of nn.Module, and without its search
    vars(made).update({name: _part(child, pack) for name, child in module._modules.items() if child is not None})
    vars(made).update(module._parameters)
    return made


def _part(module: nn.Module, pack: bool) -> Any:
    """What a twin calls in place of a child."""
    if isinstance(module, nn.ModuleList):
        return [_part(child, pack) for child in module]
    if isinstance(module, nn.Embedding):
        return module  # its weight is read, too
    if isinstance(module, nn.Dropout):
        return _same
    if pack and isinstance(module, nn.Linear) and module.bias is None:
        return _packed(module.weight)
    if pack and isinstance(module, SwiGLU):
        return _packed_swiglu(module)
    return _fast(module, pack).forward


def _same(x: Tensor) -> Tensor:
    return x


def _packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> weight x, the weight stored as oneDNN wants it. Both operations are those that torch's compiler emits."""
    stored = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    product = torch.ops.mkldnn._linear_pointwise.default

    def linear(x: Tensor) -> Tensor:
        return product(x, stored, None, "none", [], "")

    return linear


def _packed_swiglu(module: SwiGLU) -> Callable[[Tensor], Tensor]:
    """Its two products of the same input as one."""
    both, out = _packed(torch.cat((module.w1.weight, module.w3.weight))), _packed(module.w2.weight)

    def swiglu(x: Tensor) -> Tensor:
        gate, value = both(x).chunk(2, -1)
        return out(F.silu(gate).mul_(value))

    return swiglu


def can_pack(network: nn.Module) -> bool:
    """On a CPU with oneDNN, in a type that it packs."""
    parameter = next(network.parameters(), None)
    return (
        parameter is not None
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
