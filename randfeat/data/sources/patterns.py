"""Patterns of file names: braces and wildcards."""

from __future__ import annotations

import re
from glob import glob
from itertools import product
from pathlib import Path

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(pattern: str) -> list[Path]:
    """Return the files of a pattern, `shards-{000..009}.tar` or `shards-*.tar`, in order. One that braces name must
    exist."""
    choices = [_choices(inside) for inside in _BRACES.findall(pattern)]
    frame = _BRACES.split(pattern)[::2]
    found: list[Path] = []
    for chosen in product(*choices):
        one = frame[0] + "".join(choice + rest for choice, rest in zip(chosen, frame[1:], strict=True))
        there = sorted(Path(path) for path in glob(one))  # noqa: PTH207  an absolute pattern
        if not there:
            raise FileNotFoundError(f"there is no file {one}, which {pattern} names: check the pattern")
        found += there
    return found


def _choices(inside: str) -> list[str]:
    """What braces stand for: `000..009` or `a,b`."""
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
