"""Dynamic batching: images of many requests wait in one queue, and one thread computes those of a kind together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

Work: TypeAlias = "Callable[[list[Any]], Sequence[Any]]"  # a result for each item; equal works share a batch


class QueueFull(Exception):
    """More items than the queue holds."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An item that waits to be computed."""

    work: Work
    item: Any
    answer: asyncio.Future[Any]


class Batcher:
    """Queue in front of a thread that computes: whatever waits when it is free is one batch, so nothing waits for more.

    thread: executor of one thread. largest: items of a batch. longest: items that wait. observe: called with the size
    of each batch. `run` is a task of the event loop that serves.
    """

    def __init__(
        self, thread: Executor, largest: int, longest: int, observe: Callable[[int], object] = lambda size: None
    ) -> None:
        self._thread, self._largest, self._longest, self._observe = thread, largest, longest, observe
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def submit(self, work: Work, items: Sequence[Any]) -> list[Any]:
        """Return the results of `work` for items, computed together with those of other callers.

        Raises a QueueFull at once, and what `work` raises for the batch that an item was in.
        """
        if len(self._queue) + len(items) > self._longest:
            raise QueueFull
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in items]
        self._queue.extend(_Waiting(work, item, answer) for item, answer in zip(items, answers, strict=True))
        self._arrived.set()
        try:
            results = await asyncio.gather(*answers, return_exceptions=True)
        finally:
            for answer in answers:
                answer.cancel()  # those of a request that was given up are not computed
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def run(self) -> None:
        """Compute what waits until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next()
            if not batch:
                self._arrived.clear()
                continue
            self._observe(len(batch))
            try:
                results = await loop.run_in_executor(self._thread, batch[0].work, [one.item for one in batch])
            except Exception as error:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
            else:
                for one, result in zip(batch, results, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(result)

    def _next(self) -> list[_Waiting]:
        """Take the oldest item and others of its work off the queue, at most `largest`, and drop those given up."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        while self._queue and len(batch) < self._largest:
            one = self._queue.popleft()
            if one.answer.done():
                continue
            (batch if not batch or one.work == batch[0].work else others).append(one)
        self._queue.extendleft(reversed(others))
        return batch
