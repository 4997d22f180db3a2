"""Faults of images, and the one rule for those that cannot be read.

A file that cannot be read is skipped, counted and listed with its path and the reason. Commands do so and end with exit
code 3; functions of Python raise by default, and do so with `on_error="skip"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

REASONS = 5  # listed in a summary
NAMED = 5  # images that a warning names, of all that it holds


class UnreadableImage(ValueError):
    """A file that holds no picture, or not all of one. Its text is the reason, in a few words, or a sentence with it.

    reason: in a few words.
    """

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text)
        self.reason = text if reason is None else reason


class UnfitImage(ValueError):
    """An image that was read, of other channels or values than those that were asked for. Its text is a sentence.

    It is not left out as a damaged file is: most often all images of a data set are so, and a setting is wrong.
    """


class SkippedImage(NamedTuple):
    """An image that could not be read: its path, or "image 7" for one without, and the reason in a few words."""

    path: str
    reason: str


# "raise": an UnreadableImage ends the call. "skip": images that cannot be read are left out, and a `SkippedImages`
# tells which. A function is called with each `SkippedImage` in place of that warning.
OnError: TypeAlias = "Literal['raise', 'skip'] | Callable[[SkippedImage], object]"


class SkippedImages(UserWarning):
    """Warning that images were skipped. skipped: path and reason of each."""

    def __init__(self, skipped: Sequence[SkippedImage], total: int) -> None:
        self.skipped = list(skipped)
        count = f"{len(self.skipped):,} of {total:,} images"
        super().__init__(f"{count} skipped, since they cannot be read ({reasons(skipped)}): {_named(skipped)}")


class NoneReadable(ValueError):
    """The error where images were to be skipped and none is left. skipped: path and reason of each."""

    def __init__(self, skipped: Sequence[SkippedImage]) -> None:
        self.skipped = list(skipped)
        count = f"none of the {len(self.skipped):,} images"
        super().__init__(f"{count} could be read ({reasons(skipped)}): {_named(skipped)}")


def check_on_error(on_error: OnError) -> None:
    """Raise a ValueError for what says nothing of images that cannot be read."""
    if on_error not in ("raise", "skip") and not callable(on_error):
        raise ValueError(f"on_error must be 'raise', 'skip' or a function of each skipped image, got {on_error!r}")


def reasons(skipped: Sequence[tuple[str, str]]) -> str:
    """Return the reasons why images were skipped, the commonest first: "31 truncated, 2 an empty file"."""
    counts = Counter(reason for _, reason in skipped).most_common()
    said = [f"{count:,} {reason}" for reason, count in counts[:REASONS]]
    rest = sum(count for _, count in counts[REASONS:])
    return ", ".join([*said, f"{rest:,} for other reasons"] if rest else said)


def _named(skipped: Sequence[SkippedImage]) -> str:
    """Return the paths of the first skipped images."""
    return ", ".join([*(one.path for one in skipped[:NAMED]), *(["..."] if len(skipped) > NAMED else [])])
