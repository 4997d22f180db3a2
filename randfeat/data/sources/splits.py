"""Splits of a data set by their usual names."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_WORD = re.compile(r"(?<![a-z])(" + "|".join(sorted(sum(SPLITS.values(), ()), key=len, reverse=True)) + r")(?![a-z])")


def canonical(name: str) -> str:
    """Return the one name for all spellings of a split: "validation" is "val"."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), name)


def is_split(name: str) -> bool:
    """Return whether a folder of this name is a split rather than a class."""
    return canonical(name) in SPLITS


def in_file_name(name: str) -> str | None:
    """Return the split in a file name such as `train-00000-of-00294.parquet`; None without one."""
    found = _WORD.search(name.lower())
    return canonical(found[1]) if found else None


def choose(name: str, there: Iterable[str], split: str | None) -> str:
    """Return the split among those `there`, as it is spelled there; for None the only one.

    name: of the data, for the ValueError that lists the splits.
    """
    names = sorted(set(there))
    if split is None:
        if len(names) == 1:
            return names[0]
        raise ValueError(f"{name} has the splits {', '.join(names)}: say which one (split)")
    for found in names:
        if found == split or canonical(found) == canonical(split):
            return found
    if not names:
        raise ValueError(f"{name} has no splits, so there is no {split!r}: leave the split out")
    raise ValueError(f"{name} has the splits {', '.join(names)}, not {split!r}: choose another, or leave the split out")
