"""Parts of a data set, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_WORD = re.compile(r"(?<![a-z])(" + "|".join(sorted(sum(SPLITS.values(), ()), key=len, reverse=True)) + r")(?![a-z])")


def same(name: str) -> str:
    """Return one word for all that people call a part: "validation" is "val"."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), name)


def is_split(name: str) -> bool:
    """Return whether a folder of this name is a part rather than a class."""
    return same(name) in SPLITS


def in_file_name(name: str) -> str | None:
    """Return the part that a file belongs to by its name, as `train-00000-of-00294.parquet` does; None if it does not
    say."""
    found = _WORD.search(name.lower())
    return same(found[1]) if found else None


def choose(name: str, there: Iterable[str], split: str | None) -> str:
    """Return the one of the parts `there`, as it is spelled there, that `split` names; the only one, where it names
    none.

    name: of the data, for the error that names what is there.
    """
    names = sorted(set(there))
    if split is None:
        if len(names) == 1:
            return names[0]
        raise ValueError(f"{name} has the splits {', '.join(names)}: say which one (split)")
    for found in names:
        if found == split or same(found) == same(split):
            return found
    if not names:
        raise ValueError(f"{name} has no splits, so there is no {split!r}: leave the split out")
    raise ValueError(f"{name} has the splits {', '.join(names)}, not {split!r}: choose another, or leave the split out")
