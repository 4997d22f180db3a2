"""Processes side by side, as `torchrun` starts them: each does its share, and they wait for each other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(days=30)  # a share may take long; torchrun itself ends those whose fellow failed


@contextmanager
def group(backend: str = "gloo") -> Iterator[None]:
    """Inside, the processes that torchrun started know each other; one process alone is none the wiser.

    backend: of torch.distributed; gloo does for barriers between GPUs, too, and for all that lies in main memory.
    The first to fail raises and says why; the others, which it takes with it, end in silence.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield
    except BaseException:
        if store.add("randfeat_failed", 1) > 1:
            raise SystemExit(1) from None
        raise
    dist.destroy_process_group()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM, with which schedulers end a job, is what Ctrl-C is: a KeyboardInterrupt."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def rank() -> int:
    """Number of this process: 0, 1, ..."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Until every process has come here."""
    if world() == 1:
        return
    try:
        dist.barrier()
    except RuntimeError:
        # a process that is gone has said why
        raise SystemExit(1) from None


def all_gather_object(value: T) -> list[T]:
    """What each process gives here, in every process. What is given can be pickled."""
    if world() == 1:
        return [value]
    values: list[T] = [value] * world()
    try:
        dist.all_gather_object(values, value)
    except RuntimeError:
        raise SystemExit(1) from None
    return values
