"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int | None, what: str, unit: str = "it", line: int = 0, done: int = 0, shown: bool = True) -> Any:
    """Return a tqdm bar on standard error; `line` counts bars that stand below each other, `done` is what was there
    before."""
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
