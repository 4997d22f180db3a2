"""The queue: what waits is computed together, kinds apart, and a fault stays with its batch."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from randfeat.serve.batching import Batcher, QueueFull


class Doubling:
    """A work that notes its batches, and can be held up."""

    def __init__(self):
        self.batches, self.free = [], threading.Event()

    def __call__(self, items):
        assert self.free.wait(10)
        self.batches.append(list(items))
        return [2 * item for item in items]


def batched(use, largest=4, longest=100):
    """Run a function of a batcher in an event loop, in a thread that has none, as that of the browser's tests."""

    async def main():
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(thread, largest, longest)
            task = asyncio.create_task(batcher.run())
            try:
                return await asyncio.wait_for(use(batcher), 20)
            finally:
                task.cancel()

    with ThreadPoolExecutor(1) as runner:
        return runner.submit(lambda: asyncio.run(main())).result()


def test_what_waits_is_computed_together():
    work = Doubling()

    async def use(batcher):
        first = asyncio.create_task(batcher.submit(work, [0]))
        while len(batcher) or first.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # the first item is being computed
        others = [asyncio.create_task(batcher.submit(work, [i, i + 10])) for i in range(1, 4)]
        await asyncio.sleep(0.05)
        assert len(batcher) == 6
        work.free.set()
        return await asyncio.gather(first, *others)

    assert batched(use) == [[0], [2, 22], [4, 24], [6, 26]]
    assert work.batches == [[0], [1, 11, 2, 12], [3, 13]]


def test_kinds_are_computed_apart_and_in_turn():
    one, two = Doubling(), Doubling()
    one.free.set()
    two.free.set()

    async def use(batcher):
        return await asyncio.gather(*(batcher.submit(work, [i]) for i, work in enumerate((one, two, one, two, one))))

    assert batched(use) == [[0], [2], [4], [6], [8]]
    assert one.batches == [[0, 2, 4]]
    assert two.batches == [[1, 3]]


def test_a_full_queue_refuses_at_once():
    work = Doubling()
    work.free.set()

    async def use(batcher):
        with pytest.raises(QueueFull):
            await batcher.submit(work, [*range(6)])
        return await batcher.submit(work, [*range(5)])

    assert batched(use, longest=5) == [0, 2, 4, 6, 8]


def test_a_fault_stays_with_its_batch():
    work = Doubling()
    work.free.set()

    def fails(items):
        raise ValueError(f"no {items}")

    async def use(batcher):
        failing, working = batcher.submit(fails, [1, 2]), batcher.submit(work, [3])
        return await asyncio.gather(failing, working, return_exceptions=True)

    error, right = batched(use)
    assert str(error) == "no [1, 2]"
    assert right == [6]


def test_what_was_given_up_is_not_computed():
    work = Doubling()

    async def use(batcher):
        first = asyncio.create_task(batcher.submit(work, [0]))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(batcher.submit(work, [1, 2]))
        last = asyncio.create_task(batcher.submit(work, [3]))
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.sleep(0.05)
        work.free.set()
        return await asyncio.gather(first, last)

    assert batched(use) == [[0], [6]]
    assert work.batches == [[0], [3]]
