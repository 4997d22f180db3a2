"""Warnings as a command says them: a line each, once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def printed() -> Iterator[None]:
    """Inside, a UserWarning is a line on standard error, without the code that it came from, and none is said twice."""
    said: set[str] = set()

    def say(message: Warning | str, *where: Any, **more: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = say
        yield
