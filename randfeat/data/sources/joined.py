"""Several splits of a data set as one source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate, chain
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from .base import NO_FILE, Labels, Rows, Source, State, TokenSource, indexed
from .folder import FileSource

AnyRows = TypeVar("AnyRows", bound=Rows)


class _Joined(Rows, Generic[AnyRows]):
    """Rows of several splits, one after the other; paths that several have are named by their split as well."""

    def __init__(self, name: str, parts: Mapping[str, AnyRows]) -> None:
        paths = [path for part in parts.values() for path in part.paths]
        if len(set(paths)) < len(paths):
            paths = [f"{split}/{path}" for split, part in parts.items() for path in part.paths]
        super().__init__(name, paths, *joined_labels(name, list(parts.values())))
        self.parts = list(parts.values())
        self._ends = list(accumulate(map(len, self.parts)))

    def sizes(self) -> Iterable[int]:
        return chain.from_iterable(part.sizes() for part in self.parts)

    def states(self) -> Iterable[State] | None:
        states = [part.states() for part in self.parts]
        if all(some is None for some in states):
            return None
        unknown = [[NO_FILE] * len(part) for part in self.parts]
        return chain.from_iterable(none if some is None else some for some, none in zip(states, unknown, strict=True))

    def content(self, i: int) -> bytes | None:
        part, row = self._place(i)
        return part.content(row)

    def _place(self, i: int) -> tuple[AnyRows, int]:
        """Return the part of row i, and its row there."""
        number = int(np.searchsorted(self._ends, i, side="right"))
        return self.parts[number], i - (self._ends[number - 1] if number else 0)


class JoinedSource(_Joined[Source], Source):
    """Images of several splits."""

    def read(self, i: int) -> Image.Image:
        part, row = self._place(i)
        return part.read(row)

    def values(self, i: int) -> np.ndarray:
        part, row = self._place(i)
        return part.values(row)


class JoinedTokens(_Joined[TokenSource], TokenSource):
    """Tokens of several splits, of one grid, vocabulary and tokenizer."""

    def __init__(self, name: str, parts: Mapping[str, TokenSource]) -> None:
        super().__init__(name, parts)
        first, *others = self.parts
        for other in others:
            if (other.grid, other.vocab_size, other.tokenizer) != (first.grid, first.vocab_size, first.tokenizer):
                raise ValueError(f"the splits of {name} hold tokens of several kinds: give one of them")
        self.grid, self.vocab_size, self.tokenizer = first.grid, first.vocab_size, first.tokenizer

    def tokens(self, i: int) -> np.ndarray:
        part, row = self._place(i)
        return part.tokens(row)


def join(name: str, parts: Mapping[str, Source | TokenSource]) -> Source | TokenSource:
    """Return the rows of several splits as one source; image files stay files. parts: by the names of the splits."""
    several = list(parts.values())
    if len(several) == 1:
        return several[0]
    files = [part for part in several if isinstance(part, FileSource)]
    if len(files) == len(several) and len({part.root for part in files}) == 1:
        labels, classes = joined_labels(name, files)
        return FileSource(name, Path(files[0].root), [file for part in files for file in part.files], labels, classes)
    images = {split: part for split, part in parts.items() if isinstance(part, Source)}
    tokens = {split: part for split, part in parts.items() if isinstance(part, TokenSource)}
    if images and tokens:
        raise ValueError(f"{name} has splits of images and of tokens: give one of them")
    return JoinedSource(name, images) if images else JoinedTokens(name, tokens)


def joined_labels(name: str, parts: Iterable[Rows]) -> tuple[Labels, list[str] | None]:
    """Return the labels of all rows, and the names of the classes: those of all parts where these differ."""
    parts = list(parts)
    labels = [label for part in parts for label in part.labels or [None] * len(part)]
    known = [part for part in parts if part.labels is not None]
    if not known:
        return None, parts[0].classes
    named = [part for part in known if part.classes is not None]
    if not named or all(part.classes == known[0].classes for part in known):
        return labels, known[0].classes
    if len(named) < len(known):
        raise ValueError(f"some splits of {name} name their classes and others number them: give one of them")
    texts = [
        None if label is None or part.classes is None else part.classes[label]
        for part in parts
        for label in part.labels or [None] * len(part)
    ]
    classes = sorted({text for text in texts if text is not None})
    return indexed(texts, classes), classes
