"""One network in several processes, and torch's compiler: how the parts of a network are wrapped, and a tensor whose
parts lie in several processes made whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from randfeat.models.layers import Block
from randfeat.utils import distributed, onednn

from .config import RuntimeConfig


def group() -> AbstractContextManager[None]:
    """`processes.group` for training: NCCL between GPUs, gloo for what lies in main memory."""
    return distributed.group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def wrap(objective: nn.Module, running: RuntimeConfig) -> nn.Module:
    """Return the module to call for training; all processes get the first one's weights. One process alone needs
    nothing.

    With `fsdp` the parameters of the module itself become shares, gathered block by block as they are used.
    """
    if distributed.world() == 1:
        return objective
    for parameter in objective.parameters():
        dist.broadcast(parameter.detach(), 0)
    if running.parallel == "ddp":
        return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(next(objective.parameters()).device.type, (distributed.world(),))
    for block in blocks(objective):
        fully_shard(block, mesh=mesh)
    # or else the outermost parameters stay whole after validation, and changes to the shares would not reach them
    fully_shard(objective, mesh=mesh, reshard_after_forward=True)
    return objective


@contextmanager
def accumulating(wrapped: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of one piece of a step: the processes sum up their gradients after the last alone."""
    if isinstance(wrapped, DistributedDataParallel):
        with nullcontext() if last else wrapped.no_sync():
            yield
        return
    if distributed.world() > 1:
        wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]
    yield


@contextmanager
def as_asked(model: nn.Module, running: RuntimeConfig) -> Iterator[None]:
    """Inside, the blocks compute their activations again or go through the compiler, if the choice is so. What is not
    compiled has the fastest products that there are on a CPU.
    """
    before = {block: block.checkpointing for block in blocks(model)}
    for block in before:
        block.checkpointing = running.recompute
        if running.compile:
            block._forward = _compiled(block)  # type: ignore[method-assign]
    try:
        with nullcontext() if running.compile else onednn.linear_layers(model):
            yield
    finally:
        for block, was in before.items():
            block.checkpointing = was
            vars(block).pop("_forward", None)


def _compiled(block: Block) -> Callable[..., Tensor]:
    compiled = torch.compile(block._forward)

    def call(x: Tensor, rope: Tensor, *args: Tensor, **kwargs: Any) -> Tensor:
        return compiled(x, torch.view_as_real(rope), *args, **kwargs)  # the compiler knows no complex numbers

    return call


def blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, of which each process may hold a share: every process has to ask."""
    return tensor.full_tensor() if is_shared(tensor) else tensor  # type: ignore[attr-defined]


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of `whole`: a tensor on the device of another, and shared out as that is."""
    value = value.to(like.device)
    if not is_shared(like):
        return value.clone()
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)  # type: ignore[attr-defined]


@torch.no_grad()
def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each, for changes in place of element by element."""
    return [x.to_local() if is_shared(x) else x.detach() for x in tensors]  # type: ignore[attr-defined]


def is_shared(tensor: Tensor) -> bool:
    if distributed.world() == 1:  # where nobody needs the import
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def total(values: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor in main memory, in place."""
    if distributed.world() > 1:
        dist.all_reduce(values)
    return values
