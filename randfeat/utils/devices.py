"""Choice of the device to compute on, and modules without values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def pick(device: str | torch.device) -> torch.device:
    """Return the device of this name; `auto` is CUDA, else Apple's MPS, else the CPU.

    Each process that torchrun started has its own GPU of several. Raises a ValueError for a device that is not there.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True, "meta": True}
    there = [kind for kind, found in here.items() if found]
    try:
        picked = torch.device(there[0] if device == "auto" else device)
    except RuntimeError:
        picked = None
    if picked is None or picked.type not in there:
        raise ValueError(f"there is no device {str(device)!r} here: choose auto or one of {', '.join(there[:-1])}")
    if picked.type == "cuda" and picked.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return picked


@contextmanager
def meta() -> Iterator[None]:
    """Build modules of the block on the meta device: with shapes and types, without values and their initialisation.

    Random initialisation does nothing there, but makes PyTorch import its compiler: two seconds of every `load`.
    """
    with torch.device("meta"), _NoRandomValues():
        yield


class _NoRandomValues(TorchFunctionMode):
    """Leaves tensors as they are where they should be filled with random values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
