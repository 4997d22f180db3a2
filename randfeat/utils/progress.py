"""Progress of long work: a bar on a terminal, a line now and then in a log, warnings as lines between them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


def bar(total: int | None, what: str, unit: str = "it", line: int = 0, done: int = 0, shown: bool = True) -> Any:
    """Return a tqdm bar on standard error.

    what: its title. line: its place below other bars, from 0. done: units finished before it begins. shown: False
    prints nothing.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
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
