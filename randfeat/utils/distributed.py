"""Processes that `torchrun` starts: their group, number and barrier, and objects gathered from all of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(days=30)  # one process may take long; where one has failed torchrun ends the others


@contextmanager
def group(backend: str = "gloo") -> Iterator[None]:
    """Form the process group of torch.distributed in this block; with one process nothing happens.

    backend: of torch.distributed; gloo serves for barriers between GPUs, too, and for objects in main memory.
    The first process to fail raises its exception; the others, which fail because of it, exit without a message.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield
    except BaseException:
        if store.add("randfeat_failed", 1) > 1:
            raise SystemExit(1) from None
        raise
    dist.destroy_process_group()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM, with which schedulers end a job, into a KeyboardInterrupt in this block, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def rank() -> int:
    """Return the number of this process: 0, 1, ..."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() == 1:
        return
    try:
        dist.barrier()
    except RuntimeError:
        # the process that has ended has printed why
        raise SystemExit(1) from None


def all_gather_object(value: T) -> list[T]:
    """Return the values of all processes, in the order of their numbers. They are pickled."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    try:
        dist.all_gather_object(values, value)
    except RuntimeError:
        raise SystemExit(1) from None
    return values


def first_process_first(make: Callable[[], T]) -> T:
    """Return what `make` returns, called in the first process and, when it has returned there, in the others."""
    made = [make()] if rank() == 0 else []
    barrier()
    return made[0] if made else make()
