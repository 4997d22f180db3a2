"""Memory that a process keeps and uses again, with the C library of Linux (glibc)."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt(3)
KEPT = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}
DEFAULTS = {TRIM_THRESHOLD: 128 << 10, MMAP_MAX: 65536}
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")  # by which users set the same


@contextmanager
def reused_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory for later tensors inside the context, and return it to the system after it.

    By default glibc returns large blocks at once and gets each new tensor's pages from the system, which clears them: a
    tenth of the processor time of a training step on a CPU. Does nothing for another device, with another C library
    and where the environment configures glibc's.
    """
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        yield
        return
    library = ctypes.CDLL(None)
    for parameter, value in KEPT.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
