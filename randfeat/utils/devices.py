"""Choice of the device to compute on."""

from __future__ import annotations

import os

import torch


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
