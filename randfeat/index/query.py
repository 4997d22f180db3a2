"""Filters of a query of an index, and the matches that it returns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

SOME = 5  # labels that an error names


class Match(NamedTuple):
    """Row that was found.

    score: cosine similarity or inner product, the larger the nearer; for the metric l2 the distance, the smaller the
    nearer.
    """

    id: int
    path: str
    label: str | None
    score: float


def labels_like(asked: Sequence[str], known: Sequence[str], name: str) -> list[str]:
    """Return the labels that are meant by `asked`: those written so, else those that differ in upper and lower case.

    known: labels that there are. name: of the index. Raises a ValueError that suggests one for a label that is not
    there.
    """
    found: list[str] = []
    for label in asked:
        alike = [label] if label in known else [one for one in known if one.casefold() == label.casefold()]
        if not alike:
            folded = {one.casefold(): one for one in known}
            near = [folded[one] for one in get_close_matches(label.casefold(), folded, SOME)]
            few = ", ".join([*known[:SOME], *(["..."] if len(known) > SOME else [])]) or "none"
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {few}"
            raise ValueError(f"{name} has no row of the label {label}: {hint}")
        found += alike
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Filter:
    """Filter of rows by label and path: one of these labels, if any are given, and one of these patterns.

    In a pattern `*` stands for any characters, also `/`, `?` for one, `[abc]` for one of these and `[!abc]` for one of
    the others. It matches a complete path, or the end of one after a `/`: `cats/*.jpg` finds /photos/cats/1.jpg.
    """

    labels: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __init__(self, labels: str | int | Iterable[str | int] = (), paths: str | Iterable[str] = ()) -> None:
        for name, given in (("labels", labels), ("paths", paths)):
            several = (given,) if isinstance(given, (str, int)) else given
            object.__setattr__(self, name, tuple(map(str, several)))

    def __bool__(self) -> bool:
        return bool(self.labels or self.paths)

    def mask(self, labels: pa.ChunkedArray, paths: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return for each row whether it matches, without nulls."""
        masks = []
        if self.labels:
            masks.append(pc.is_in(labels, value_set=pa.array(self.labels, pa.string())))
        if self.paths:
            masks.append(pc.match_substring_regex(paths, "|".join(map(expression, self.paths))))
        return pc.and_(*masks) if len(masks) == 2 else masks[0]


def expression(pattern: str) -> str:
    """Return a pattern of paths as a regular expression of RE2, in the syntax that pyarrow and Python share."""
    parts, at = [], 0
    while at < len(pattern):
        if (group := re.match(r"\[(!?)(]?[^]]*)]", pattern[at:])) is not None:
            negated, members = group.groups()
            escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
            parts.append(f"[{'^' if negated else ''}{escaped}]")
            at += group.end()
            continue
        parts.append({"*": ".*", "?": "."}.get(pattern[at], re.escape(pattern[at])))
        at += 1
    start = "" if pattern.startswith(("/", "*")) else "(?:.*/)?"
    return f"(?s:^{start}{''.join(parts)}$)"
