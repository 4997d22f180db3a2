"""Images in batches, decoded by processes beside the one that computes."""

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
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..utils.parallel import end_with_parent
from .decode import UnreadableImage
from .sources import Source, TokenSource

MAX_WORKERS = 16
AHEAD = 2  # batches that each process has ready at most


@dataclass(frozen=True)
class Batch:
    """Some images: the numbers of those that could be read and the arrays that a reader makes of each, stacked (None if
    there are none), the numbers and reasons of the others."""

    numbers: list[int]
    arrays: tuple[Tensor, ...] | None
    unread: list[tuple[int, str]]


class Reader(Protocol):
    """Number of an image -> arrays, of the same shapes and types for all images. It can be pickled."""

    @property
    def source(self) -> Source | TokenSource: ...

    def __call__(self, number: int) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Prepared:
    """Number of an image -> what an encoder's `prepare` makes of it."""

    source: Source
    prepare: Callable[[Image.Image], np.ndarray]

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        return (self.prepare(self.source.read(number)),)

    def blank(self) -> np.ndarray:
        """Of some picture: its shape and type are those of all."""
        return self.prepare(Image.new("RGB", (64, 64)))


@dataclass(frozen=True)
class FirstCrop:
    """Number of an image -> tokens of its first crop, int64 (N,), of a vocabulary of this size."""

    source: TokenSource
    vocab_size: int

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        tokens = self.source.tokens(number)[0].astype(np.int64)
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(f"it has tokens {tokens.min()} to {tokens.max()}, of a vocabulary of {self.vocab_size}")
        return (tokens,)

    def blank(self) -> np.ndarray:
        """Of some image: its shape and type are those of all."""
        return np.zeros(self.source.grid[0] * self.source.grid[1], dtype=np.int64)


def batches(reader: Reader, parts: Sequence[Sequence[int]], workers: int) -> Generator[Batch, None, None]:
    """Yield one batch for each part, numbers of images, in this order.

    workers: processes that decode; 0 decodes in this one. An image that cannot be read is no error, it is in its
    batch's `unread`; any other failure is a RuntimeError that names the image. To close the generator ends them.
    """
    if not parts:
        return
    more: dict[str, Any] = {"prefetch_factor": AHEAD, "worker_init_fn": _begin_worker} if workers else {}
    workers = min(workers, len(parts))
    numbers = (list(part) for part in parts)
    loader = DataLoader(_Attempts(reader), batch_sampler=numbers, num_workers=workers, collate_fn=_batch, **more)
    following = iter(loader)
    try:
        while True:
            try:
                batch = next(following)
            except StopIteration:
                return
            except RuntimeError as error:  # failures of images come as values
                reason = str(error).splitlines()[0]
                raise RuntimeError(f"a process that decodes images has ended ({reason}): try fewer workers") from error
            if isinstance(batch, RuntimeError):
                raise batch
            yield batch
    finally:
        del following  # ends the workers now; a traceback would hold it, and them


def default_workers() -> int:
    """As many as this process has processors of its own, beside the others that torchrun started here."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, there // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


class _Attempts(Dataset):
    """Of each image its arrays, or the exception that says why there is none: raised in a worker, it would come with
    the traceback as its text.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, number: int) -> tuple[int, tuple[np.ndarray, ...] | Exception]:
        try:
            return number, self.reader(number)
        except UnreadableImage as error:
            return number, UnreadableImage(str(error))
        except Exception as error:
            path = self.reader.source.paths[number]
            return number, RuntimeError(f"{path} could not be read: {type(error).__name__}: {error}")


def _batch(attempts: Sequence[tuple[int, tuple[np.ndarray, ...] | Exception]]) -> Batch | Exception:
    read = [(number, arrays) for number, arrays in attempts if isinstance(arrays, tuple)]
    unread = [(number, str(error)) for number, error in attempts if isinstance(error, UnreadableImage)]
    for _, error in attempts:
        if isinstance(error, RuntimeError):
            return error
    columns = zip(*(arrays for _, arrays in read), strict=True)
    stacked = tuple(torch.from_numpy(np.stack(column)) for column in columns) if read else None
    return Batch([number for number, _ in read], stacked, unread)


def _begin_worker(number: int) -> None:
    """Ctrl-C goes to all processes of a terminal, a scheduler's SIGTERM to all of a job: the process that started this
    one ends it, or has been killed. (torch's own watch asks for the parent's number later than here, and a worker whose
    parent was killed before that would stay for ever, and hold its locks and pipes.)
    """
    end_with_parent()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    sys.excepthook = _unless_left


def _unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception in a thread is printed, unless it says that the process that started this one has stopped listening
    (a batch is handed over by a thread of multiprocessing, which would say so at length).
    """
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)
