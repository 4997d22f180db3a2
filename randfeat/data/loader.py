"""Loader of images in batches, which worker processes decode."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..utils.parallel import end_with_parent
from ..utils.uris import is_remote
from .crop import AnyImage, naming, row_of
from .errors import UnfitImage, UnreadableImage
from .sources import Source, TokenSource

MAX_WORKERS = 16
AHEAD = 2  # batches that each worker prepares at most


@dataclass(frozen=True)
class Batch:
    """A batch of images.

    numbers: of the images that could be read. arrays: those that a reader makes of each, stacked; None if no image
    could be read. unread: numbers of the other images, and the reasons.
    """

    numbers: list[int]
    arrays: tuple[Tensor, ...] | None
    unread: list[tuple[int, str]]


class Reader(Protocol):
    """Function of the number of an image that returns arrays, of the same shapes and types for all. It is pickled."""

    @property
    def source(self) -> Source | TokenSource: ...

    def __call__(self, number: int) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Prepared:
    """Reader of the array that an encoder's `prepare` makes of an image. Fields are those of the encoder."""

    source: Source
    prepare: Callable[[Any], np.ndarray]
    example: AnyImage
    value_range: tuple[float, float] | None = None

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        with naming(self.source.paths[number]):
            return (self.prepare(row_of(self.source, number, self.value_range)),)

    def blank(self) -> np.ndarray:
        """Return the array of the example; all have its shape and type."""
        return self.prepare(self.example)


@dataclass(frozen=True)
class FirstCrop:
    """Reader of the tokens of an image's first crop, int64 (N,), of a vocabulary of this size."""

    source: TokenSource
    vocab_size: int

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        tokens = self.source.tokens(number)[0].astype(np.int64)
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(f"it has tokens {tokens.min()} to {tokens.max()}, of a vocabulary of {self.vocab_size}")
        return (tokens,)

    def blank(self) -> np.ndarray:
        """Return an array of zeros; all have its shape and type."""
        return np.zeros(self.source.grid[0] * self.source.grid[1], dtype=np.int64)


def batches(reader: Reader, parts: Sequence[Sequence[int]], workers: int) -> Generator[Batch, None, None]:
    """Yield one batch for each part, a sequence of numbers of images, in this order.

    workers: processes that decode; 0 decodes in this one. Closing the generator ends them. An image that cannot be read
    is no error, it is in its batch's `unread`. Raises an UnfitImage as the reader does, a RuntimeError that names the
    image for any other failure, and one where a worker has ended.
    """
    if not parts:
        return
    more: dict[str, Any] = {"prefetch_factor": AHEAD, "worker_init_fn": _begin_worker} if workers else {}
    if workers and is_remote(reader.source.name):  # the client's threads do not outlive a fork
        more["multiprocessing_context"] = "spawn"
    workers = min(workers, len(parts))
    numbers = (list(part) for part in parts)
    loader = DataLoader(_Attempts(reader), batch_sampler=numbers, num_workers=workers, collate_fn=_collate, **more)
    following = iter(loader)
    try:
        while True:
            try:
                batch = next(following)
            except StopIteration:
                return
            except RuntimeError as error:  # the failure of an image comes as a value
                reason = str(error).splitlines()[0]
                raise RuntimeError(f"a process that decodes images has ended ({reason}): try fewer workers") from error
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del following  # ends the workers now; a traceback would hold them


def default_workers() -> int:
    """Return the number of processors, shared among the processes that torchrun started here: 1 to MAX_WORKERS."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, there // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class _Attempts(Dataset):
    """Data set of the arrays of each image, or of its exception: raised in a worker, that would come as a traceback."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, number: int) -> tuple[int, tuple[np.ndarray, ...] | Exception]:
        try:
            return number, self.reader(number)
        except UnreadableImage as error:
            return number, UnreadableImage(str(error))
        except UnfitImage as error:
            return number, error
        except Exception as error:
            path = self.reader.source.paths[number]
            return number, RuntimeError(f"{path} could not be read: {type(error).__name__}: {error}")


def _collate(attempts: Sequence[tuple[int, tuple[np.ndarray, ...] | Exception]]) -> Batch | Exception:
    read = [(number, arrays) for number, arrays in attempts if isinstance(arrays, tuple)]
    unread = [(number, str(error)) for number, error in attempts if isinstance(error, UnreadableImage)]
    for _, error in attempts:
        if isinstance(error, (RuntimeError, UnfitImage)):
            return error
    columns = zip(*(arrays for _, arrays in read), strict=True)
    stacked = tuple(torch.from_numpy(np.stack(column)) for column in columns) if read else None
    return Batch([number for number, _ in read], stacked, unread)


def _begin_worker(number: int) -> None:
    """Set up a worker: it ignores SIGINT and SIGTERM, and ends with its parent.

    A terminal sends Ctrl-C to all of its processes and a scheduler SIGTERM to all of a job, but the parent ends its
    workers. torch's own watch reads the parent's process id later than here: if the parent was killed before that, the
    worker would stay for ever and hold its locks and pipes.
    """
    end_with_parent()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    sys.excepthook = _excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception, unless it only means that the parent has closed its pipe.

    A thread of multiprocessing hands over batches, and would print a long traceback for that.
    """
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)
