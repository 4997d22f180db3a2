"""Training in several processes and through torch's compiler: DDP, FSDP and tensors sharded over processes."""

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
    """Return `distributed.group` for training: NCCL between GPUs, gloo for tensors in main memory."""
    return distributed.group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def wrap(objective: nn.Module, runtime: RuntimeConfig) -> nn.Module:
    """Return the module to call in training, after all processes have got the first one's weights.

    One process needs no wrapping. With `fsdp` the parameters of the module itself become shards, gathered block by
    block as they are used.
    """
    if distributed.world_size() == 1:
        return objective
    for parameter in objective.parameters():
        dist.broadcast(parameter.detach(), 0)
    if runtime.parallel == "ddp":
        return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(next(objective.parameters()).device.type, (distributed.world_size(),))
    for block in blocks(objective):
        fully_shard(block, mesh=mesh)
    # else the outermost parameters stay gathered after validation, and changes to their shards would not reach them
    fully_shard(objective, mesh=mesh, reshard_after_forward=True)
    return objective


@contextmanager
def accumulating(wrapped: nn.Module, last: bool) -> Iterator[None]:
    """Surround forward and backward of one piece of a step, so that gradients are summed over processes once a step.

    last: this is the step's last piece, after which they are summed.
    """
    if isinstance(wrapped, DistributedDataParallel):
        with nullcontext() if last else wrapped.no_sync():
            yield
        return
    if distributed.world_size() > 1:
        wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]
    yield


@contextmanager
def configured_blocks(model: nn.Module, runtime: RuntimeConfig) -> Iterator[None]:
    """Let the blocks recompute activations or run compiled inside the context, as the config says.

    Blocks that are not compiled use oneDNN's linear layers on a CPU, which are faster.
    """
    before = {block: block.checkpointing for block in blocks(model)}
    for block in before:
        block.checkpointing = runtime.recompute
        if runtime.compile:
            block._forward = _compiled(block)  # type: ignore[method-assign]
    try:
        with nullcontext() if runtime.compile else onednn.linear_layers(model):
            yield
    finally:
        for block, was in before.items():
            block.checkpointing = was
            vars(block).pop("_forward", None)


def _compiled(block: Block) -> Callable[..., Tensor]:
    compiled = torch.compile(block._forward)

    def call(x: Tensor, rope: Tensor, *args: Tensor, **kwargs: Any) -> Tensor:
        real = None if rope is None else torch.view_as_real(rope)  # the compiler knows no complex numbers
        return compiled(x, real, *args, **kwargs)

    return call


def blocks(model: nn.Module) -> list[Block]:
    """Return the transformer blocks of a model."""
    return [module for module in model.modules() if isinstance(module, Block)]


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from its shards, or itself where it has none. All processes have to call."""
    return tensor.full_tensor() if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def distribute_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of a tensor on the device of another, sharded as that is: the inverse of `full_tensor`.

    It has the strides of the other, too, which the fused optimizer takes for granted.
    """
    value = value.to(like.device)
    if not is_distributed(like):
        return torch.empty_like(like, dtype=value.dtype).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)  # type: ignore[attr-defined]


@torch.no_grad()
def to_local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return this process's shard of each tensor, detached, for element-wise changes in place."""
    return [x.to_local() if is_distributed(x) else x.detach() for x in tensors]  # type: ignore[attr-defined]


def is_distributed(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, sharded over processes."""
    if distributed.world_size() == 1:  # saves the import, which is slow
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def all_reduce(values: Tensor) -> Tensor:
    """Sum a tensor in main memory over all processes, in place, and return it."""
    if distributed.world_size() > 1:
        dist.all_reduce(values)
    return values
