"""Networks as they are read and sampled from: the same function, its weights laid out for the processor.

On a CPU most of the time goes into matrix products of few rows. oneDNN, which torch brings along, does them about twice
as fast once a weight is stored in its own blocked layout, and torch does so for nobody unasked. The packed copy belongs
to a twin of the network, so it cannot reach a state_dict; whoever keeps a twin asks `signature` whether it still holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .control import Control
from .layers import Block, CrossAttention, SelfAttention, SwiGLU

Network = TypeVar("Network", bound=nn.Module)

# of a block, kept at a time: for each model, kind of reading, and for the first, every other, and a single batch size
COMPILATIONS = 64
ROWS = 32  # a hint to oneDNN: products of any number of rows are right, and of few are as fast
_TWIN = "_is_twin"
# what generators are built from
KINDS = (
    *(Block, Control, CrossAttention, SelfAttention, SwiGLU),
    *(nn.Dropout, nn.Embedding, nn.Linear, nn.ModuleList, nn.RMSNorm),
)


def prepacked(network: Network) -> Network:
    """Return a copy in evaluation mode that shares the parameters. It computes, without gradients, what the network
    does when the twin is made: make it anew after a training step. A twin's twin is itself.

    It calls its parts directly, past modules, and on a CPU its linear layers are packed; not so where somebody has
    added to the network: a hook, a parametrization, a module of another kind.
    """
    if _TWIN in vars(network):
        return network
    made = _shallow(network)
    if _is_as_built(network):
        vars(made).update(_parts(network, can_pack(network)))
    vars(made)[_TWIN] = True
    return made


def compiled(network: Network) -> Network:
    """Return an inference copy as `prepacked` does, but run by torch's compiler, block by block.

    One compilation serves all blocks, and another one every batch size. The first calls take a minute. On a CPU
    packed float32 is faster.
    """
    made = _shallow(network)
    for name, child in made._modules.items():
        if isinstance(child, nn.ModuleList):
            vars(made)[name] = [_compiled_block(block) for block in child]
    return made


def _compiled_block(block: nn.Module) -> Callable[..., Tensor]:
    compiled = torch.compile(block)

    def call(x: Tensor, rope: Tensor, *args: Tensor, **how: Any) -> Tensor:
        with torch._dynamo.config.patch(cache_size_limit=COMPILATIONS):
            return compiled(x, torch.view_as_real(rope), *args, **how)

    return call


def _is_as_built(network: nn.Module) -> bool:
    inner = [module for module in network.modules() if module is not network]
    return all(type(m) in KINDS and not (m._forward_hooks or m._forward_pre_hooks) for m in inner)


def signature(network: nn.Module) -> list[tuple[int, ...]]:
    """What changes when a network does: its modules and their hooks, where its parameters lie, how often torch saw them
    changed, and sums over their bits.

    The sums notice what torch does not count, a change through `.data`. They take some milliseconds for 100 MB.
    """
    modules = [(id(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    parameters = [
        (p.data_ptr(), 0 if p.is_inference() else p._version, *_sums_of_bits(p.detach())) for p in network.parameters()
    ]
    return [*modules, *parameters]


def _sums_of_bits(values: Tensor) -> tuple[int, int]:
    """Over the rows and over the columns, which weigh differently, so that numbers that change places are noticed."""
    raw = values.contiguous().view(len(values), -1).view(torch.uint8)
    if raw.shape[1] % 8 or raw.data_ptr() % 8 or raw.storage_offset() % 8:
        raw = F.pad(raw, (0, -raw.shape[1] % 8)).contiguous()
    words = raw.view(torch.int64)
    rows, columns = words.sum(1), words.sum(0)
    weigh = [torch.arange(1, len(sums) + 1, device=sums.device) for sums in (rows, columns)]
    return int((rows * weigh[0]).sum()), int((columns * weigh[1]).sum())


def _shallow(module: Network) -> Network:
    """Modules of its own, in evaluation mode, with the same parameters."""
    made = object.__new__(type(module))
    vars(made).update(vars(module), training=False)
    vars(made)["_modules"] = {name: child and _shallow(child) for name, child in module._modules.items()}
    return made


def _parts(module: nn.Module, pack: bool) -> dict[str, Any]:
    """What a twin finds in its own dictionary, without nn.Module's search: children as they are called, parameters."""
    children = {name: _part(child, pack) for name, child in module._modules.items() if child is not None}
    return {**children, **module._parameters}


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
    made = _shallow(module)
    vars(made).update(_parts(module, pack))
    return made.forward


def _same(x: Tensor) -> Tensor:
    return x


def _packed(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> weight x, the weight stored as oneDNN wants it. Both operations are those that torch's compiler emits."""
    stored = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    product = torch.ops.mkldnn._linear_pointwise.default

    def linear(x: Tensor) -> Tensor:
        return product(x.to(weight.dtype), stored, None, "none", [], "")  # autocast may have changed the input's type

    return linear


def _packed_swiglu(module: SwiGLU) -> Callable[[Tensor], Tensor]:
    """Its two products of the same input as one."""
    both, out = _packed(torch.cat((module.w1.weight, module.w3.weight))), _packed(module.w2.weight)

    def swiglu(x: Tensor) -> Tensor:
        gate, value = both(x).chunk(2, -1)
        return out(F.silu(gate).mul_(value))

    return swiglu


def can_pack(network: nn.Module) -> bool:
    """On a CPU with oneDNN, in a type that it packs, and where autocast does not ask for another."""
    parameter = next(network.parameters(), None)
    return (
        parameter is not None
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
