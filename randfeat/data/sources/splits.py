"""Splits of a data set by their usual names. Names that differ in case or in spaces around them are one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_WORD = re.compile(r"(?<![a-z])(" + "|".join(sorted(sum(SPLITS.values(), ()), key=len, reverse=True)) + r")(?![a-z])")


ALL = "all"  # stands for every split


class SeveralSplits(ValueError):
    """The error where a data set has several splits and none was named. splits: their names."""

    def __init__(self, name: str, splits: list[str]) -> None:
        self.splits = splits
        super().__init__(
            f"{name} has the splits {', '.join(splits)}: say which one, several with commas, or all (--split NAME)"
        )


def named(split: str | Sequence[str]) -> list[str]:
    """Return the splits that a text with commas, or a list, names, each once."""
    given = split.split(",") if isinstance(split, str) else split
    return list(dict.fromkeys(one.strip() for one in given))


def plain(name: str) -> str:
    """Return the name of a split without case and without spaces around it."""
    return name.strip().casefold()


def canonical(name: str) -> str:
    """Return the one name for all spellings of a split: "Validation" is "val"."""
    return next((split for split, names in SPLITS.items() if plain(name) in names), plain(name))


def same(name: str, other: str | None) -> bool:
    """Return whether two names are of one split, but for other words for it; nothing is the same as None."""
    return other is not None and plain(name) == plain(other)


def is_split(name: str) -> bool:
    """Return whether a folder of this name is a split rather than a class."""
    return canonical(name) in SPLITS


def in_file_name(name: str) -> str | None:
    """Return the split in a file name such as `train-00000-of-00294.parquet`; None without one."""
    found = _WORD.search(name.lower())
    return canonical(found[1]) if found else None


def choose(name: str, there: Iterable[str], split: str | None) -> str:
    """Return the split among those `there`, as it is spelled there; for None the only one.

    name: of the data, for the ValueError that lists the splits, or tells two spellings of one.
    """
    names = sorted(set(there))
    spelled: dict[str, str] = {}
    for one in names:
        if plain(one) in spelled:
            raise ValueError(f"{name} has the splits {spelled[plain(one)]!r} and {one!r}, which are one: rename one")
        spelled[plain(one)] = one
    if split is None:
        if len(names) == 1:
            return names[0]
        raise SeveralSplits(name, names)
    for found in sorted(names, key=lambda one: not same(one, split)):  # the very name goes before another word for it
        if canonical(found) == canonical(split):
            return found
    if not names:
        raise ValueError(f"{name} has no splits, so there is no {split!r}: leave --split out")
    raise ValueError(f"{name} has the splits {', '.join(names)}, not {split!r}: choose another, or leave --split out")
