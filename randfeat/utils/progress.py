"""Progress of long work: a bar on a terminal, a line now and then in a log, warnings as lines between them."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from .estimates import Estimate, time_left

MOST_THREADS = 8  # that read files: more of them wait for the same disk
One = TypeVar("One")
Made = TypeVar("Made")


class Bar(tqdm):
    """Bar that tells once, beside itself, how long the work takes."""

    estimate: Estimate | None = None

    def update(self, n: float | None = 1) -> bool | None:
        """Advance by n units."""
        shown = super().update(n)
        if self.estimate is not None:
            self.estimate.update(int(n or 0))
        return shown


def bar(
    total: int | None,
    what: str,
    unit: str = "it",
    line: int = 0,
    done: int = 0,
    shown: bool = True,
    told: str | None = None,
) -> Any:
    """Return a tqdm bar on standard error.

    what: its title. line: its place below other bars, from 0. done: units finished before it begins. shown: False
    prints nothing. told: tell once how long the work takes, unless it is short, and this beside it, "" for nothing.
    """
    terminal = sys.stderr.isatty()
    made = Bar(
        total=total,
        desc=what,
        unit=unit,
        position=line,
        mininterval=0.2 if terminal else 20.0,
        dynamic_ncols=terminal,
        ascii=not terminal,
        initial=done,
        disable=not shown,
    )
    if told is not None and total is not None and shown:
        made.estimate = Estimate(total, lambda pace, left: time_left(pace, left, unit) + told, tell, done)
    return made


def mapped(
    call: Callable[[One], Made], given: Sequence[One], what: str, unit: str = "it", shown: bool = True
) -> list[Made]:
    """Return `call` of each one, in their order, called in up to eight threads under a bar. See `bar` for the rest.

    An exception of a call is raised here.
    """
    with (
        bar(len(given), what, unit, shown=shown) as steps,
        ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool,
    ):
        made = []
        for one in pool.map(call, given):
            made.append(one)
            steps.update()
    return made


@contextmanager
def waiting(what: str, every: float = 10.0) -> Iterator[None]:
    """Tell now and then how long the block has taken so far, where it is a call that tells nothing itself.

    every: seconds between two lines.
    """
    ended, began = Event(), time.monotonic()

    def say() -> None:
        while not ended.wait(every):
            tell(f"{what}: {time.monotonic() - began:.0f} s so far")

    thread = Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tell(text: str) -> None:
    """Print a line on standard error, above the bars."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each UserWarning raised in the block as one line on standard error, without its place in the code, once."""
    printed: set[str] = set()

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        if str(message) not in printed:
            printed.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
