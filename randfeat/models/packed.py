"""Inference copies of a network: the same function and the same parameters, laid out for speed.

On a CPU most of the time goes into matrix products of few rows, which are about twice as fast with prepacked weights
(see `randfeat.utils.onednn`). Prepacked weights belong to a copy of the network, so they cannot reach a state_dict. The
copy does not follow later changes: compare `signature` before and after, or make a new one after an optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils import onednn
from .control import Control
from .layers import MLP, Block, CrossAttention, SelfAttention, SwiGLU
from .rar import AdaLNBlock

Network = TypeVar("Network", bound=nn.Module)

# compilations of a block that are kept: one for each model, kind of forward pass, and batch size (the first, any other,
# and one)
COMPILATIONS = 64
OPTIONS: dict[str, Any] = {}  # of torch.compile
_ORIGINAL = "_original_of_inference_copy"
# the modules that generators are built from; others are called as they are
KNOWN_MODULES = (
    *(AdaLNBlock, Block, Control, CrossAttention, MLP, SelfAttention, SwiGLU),
    *(nn.Dropout, nn.Embedding, nn.LayerNorm, nn.Linear, nn.ModuleList, nn.RMSNorm),
)


def inference_copy(network: Network) -> Network:
    """Return a copy in evaluation mode, for use without gradients, that shares the parameters.

    It calls its parts directly, without `nn.Module.__call__`, and on a CPU its linear layers are prepacked. A network
    with a hook, a parametrization or a module of another kind is copied without either. Make a new copy after an
    optimizer step. The copy of a copy is itself.
    """
    if _ORIGINAL in vars(network):
        return network
    made = _shallow(network)
    if _is_unmodified(network):
        vars(made).update(_parts(network, can_prepack(network)))
    vars(made)[_ORIGINAL] = network
    return made


def original(network: Network) -> Network:
    """Return the network that an `inference_copy` was made of; another network is its own."""
    return vars(network).get(_ORIGINAL, network)


def plain_copy(network: Network) -> Network:
    """Return a copy in evaluation mode that shares the parameters and has plain modules, which a compiler can read."""
    return _shallow(original(network))


def compiled_copy(network: Network) -> Network:
    """Return a copy in evaluation mode, as `inference_copy` does, whose blocks run through `torch.compile`.

    One compilation serves all blocks, a second one every batch size. The first calls take a minute. On a CPU prepacked
    float32 is faster.
    """
    made = _shallow(network)
    for name, child in made._modules.items():
        if isinstance(child, nn.ModuleList):
            vars(made)[name] = [_compiled_block(block) for block in child]
    return made


def can_prepack(network: nn.Module) -> bool:
    """Return whether an `inference_copy` has prepacked weights: on a CPU with oneDNN, in float32 or bfloat16, and
    where autocast does not ask for another type.
    """
    parameter = next(network.parameters(), None)
    return parameter is not None and onednn.can_prepack(parameter) and not torch.is_autocast_enabled("cpu")


def signature(network: nn.Module) -> list[tuple[int, ...]]:
    """Return numbers that change when a network does.

    They are of its modules and their hooks; of each parameter its address, torch's count of changes, and sums over its
    bits. The sums notice a change through `.data`, which torch does not count. They take milliseconds for 100 MB.
    """
    modules = [(id(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    parameters = [
        (p.data_ptr(), 0 if p.is_inference() else p._version, *_sums_of_bits(p.detach())) for p in network.parameters()
    ]
    return [*modules, *parameters]


def _sums_of_bits(values: Tensor) -> tuple[int, int]:
    """Return sums over the rows and over the columns, each with its own weight, so that a permutation changes them."""
    raw = values.contiguous().view(len(values), -1).view(torch.uint8)
    if raw.shape[1] % 8 or raw.data_ptr() % 8 or raw.storage_offset() % 8:
        raw = F.pad(raw, (0, -raw.shape[1] % 8)).contiguous()
    words = raw.view(torch.int64)
    rows, columns = words.sum(1), words.sum(0)
    weigh = [torch.arange(1, len(sums) + 1, device=sums.device) for sums in (rows, columns)]
    return int((rows * weigh[0]).sum()), int((columns * weigh[1]).sum())


def _is_unmodified(network: nn.Module) -> bool:
    """Return whether a network has only the modules that generators are built from, without hooks."""
    inner = [module for module in network.modules() if module is not network]
    return all(type(m) in KNOWN_MODULES and not (m._forward_hooks or m._forward_pre_hooks) for m in inner)


def _compiled_block(block: nn.Module) -> Callable[..., Tensor]:
    compiled = torch.compile(block, fullgraph=True, **OPTIONS)

    def call(x: Tensor, rope: Tensor | None, *args: Tensor, **how: Any) -> Tensor:
        with torch._dynamo.config.patch(cache_size_limit=COMPILATIONS):
            return compiled(x, None if rope is None else torch.view_as_real(rope), *args, **how)

    return call


def _shallow(module: Network) -> Network:
    """Return a copy in evaluation mode with modules of its own and the same parameters."""
    made = object.__new__(type(module))
    vars(made).update(vars(module), training=False)
    vars(made)["_modules"] = {name: child and _shallow(child) for name, child in module._modules.items()}
    return made


def _parts(module: nn.Module, prepacked: bool) -> dict[str, Any]:
    """Return children, as they are called, and parameters, for a copy's own dictionary: attributes there are found
    without the search of `nn.Module.__getattr__`.
    """
    children = {name: _callable(child, prepacked) for name, child in module._modules.items() if child is not None}
    return {**children, **module._parameters}


def _callable(module: nn.Module, prepacked: bool) -> Any:
    """Return the function that a copy calls in place of a child, or a list of them for a ModuleList."""
    if isinstance(module, nn.ModuleList):
        return [_callable(child, prepacked) for child in module]
    if isinstance(module, nn.Embedding):
        return module  # generators read its weight, too
    if isinstance(module, nn.Dropout):
        return _identity
    if prepacked and isinstance(module, nn.Linear):
        return onednn.prepack(module.weight, module.bias)
    if prepacked and isinstance(module, SwiGLU):
        return _prepacked_swiglu(module)
    made = _shallow(module)
    vars(made).update(_parts(module, prepacked))
    return made.forward


def _identity(x: Tensor) -> Tensor:
    return x


def _prepacked_swiglu(module: SwiGLU) -> Callable[[Tensor], Tensor]:
    """Return the function of a SwiGLU, its two products of the same input as one."""
    both = onednn.prepack(torch.cat((module.w1.weight, module.w3.weight)))
    out = onednn.prepack(module.w2.weight)

    def swiglu(x: Tensor) -> Tensor:
        gate, value = both(x).chunk(2, -1)
        return out(F.silu(gate).mul_(value))

    return swiglu
