"""Class labels: the one form of what tables and arrays hold; indices, names, synonyms and WordNet ids of a model's
classes, resolved to class indices.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Any, TypeAlias

Label: TypeAlias = "int | str | None"
IMAGENET = "imagenet-1k"  # stands for ImageNet's list of names, which timm holds
IMAGENET_CLASSES = 1000
GAPS = frozenset(("", "nan", "NaN", "NaT", "<NA>"))  # texts of what is no label, as pandas and others write it


def as_label(value: Any) -> int | str | None:
    """Return a label in one form: a whole number (also of 1.0, and of NumPy's and torch's), or a text without spaces
    around it. None, NaN, pandas' NA, and texts that are blank or in GAPS are no label: None.

    Raises a ValueError for several labels in one.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple, set, frozenset, dict)) or getattr(value, "ndim", False):
        raise ValueError(f"a label is {value!r}, several in one: expected one for each image")
    if isinstance(value, str):
        text = value.strip()
        return None if text in GAPS else text
    if hasattr(value, "item"):
        return as_label(value.item())
    try:
        is_gap = value is None or bool(value != value)  # NaN and NaT
    except TypeError:  # of pandas' NA
        is_gap = True
    if is_gap:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    return str(value)


def as_id(label: int | str | None) -> int | None:
    """Return the whole number that a label of `as_label` is, also as text; None for another text."""
    if isinstance(label, str):
        return int(float(label)) if re.fullmatch(r"[+-]?\d{1,15}(\.0*)?", label) else None
    return label


def as_text(value: Any) -> str | None:
    """Return a label as text: 1 and 1.0 are "1"; None where it is no label. Raises as `as_label`."""
    label = as_label(value)
    return None if label is None else str(label)


class Classes:
    """The classes of a model.

    names: one for each class, the indices as text where it is empty, or "imagenet-1k". count: how many classes.
    ImageNet's names are looked up when a name is first asked for, since timm takes seconds to import.
    """

    def __init__(self, names: str | Sequence[str], count: int) -> None:
        if isinstance(names, str):
            if names != IMAGENET:
                raise ValueError(
                    f"class_names is {names!r}: expected {IMAGENET!r} or a list with a name for each class"
                )
            size = IMAGENET_CLASSES
        else:
            if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"class names are a list of texts, got {names!r}")
            names = list(names) or [str(i) for i in range(count)]
            size = len(names)
        if size != count:
            raise ValueError(f"{size} class names for {count} classes")
        self.given, self.count = names, count

    @cached_property
    def names(self) -> list[str]:
        """Name of each class; ImageNet's are lists of synonyms, `tench, Tinca tinca`."""
        if not isinstance(self.given, str):
            return self.given
        info = _imagenet()
        return [info.index_to_description(i) for i in range(self.count)]

    def short(self, index: int) -> str:
        """Return the name of a class for a caption: the first of ImageNet's synonyms."""
        if index == self.count:
            return "no class"
        return self.names[index].split(",")[0] if isinstance(self.given, str) else self.names[index]

    def indices(self, labels: Iterable[Label]) -> list[int]:
        """Return the class index of each label; None is the null class, whose index is `count`."""
        if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) != 1:
            raise ValueError(f"labels are a list with one for each image, got {labels!r}: write [{labels!r}]")
        return [self.index(label) for label in labels]

    def index(self, label: Label) -> int:
        """Return the class index of a label.

        Names are compared without case; digits are an index unless a class has that very name. Raises a ValueError for
        an unknown label, with similar names, and for a name that several classes share.
        """
        if label is None:
            return self.count
        if not self.count:
            raise ValueError("this model has no classes: leave the class out, or use None")
        if isinstance(label, str):
            return self._named(label)
        try:
            if isinstance(label, bool) or "bool" in str(getattr(label, "dtype", "")):  # NumPy's and torch's, too
                raise TypeError
            index = operator.index(label)
        except TypeError:
            raise ValueError(f"a class is an index, a name or None, got {label!r}") from None
        if not 0 <= index < self.count:
            raise ValueError(f"class {index} is outside 0..{self.count - 1}")
        return index

    def find(self, name: str) -> int | None:
        """Return the index of the class with this name, compared without case; None where there is none, or several."""
        as_written, without_case = self._spellings
        found = as_written.get(name) or without_case.get(_plain(name)) or []
        return found[0] if len(found) == 1 else None

    def _named(self, label: str) -> int:
        digits = re.fullmatch(r"\s*[+-]?\d+\s*", label)
        if digits and isinstance(self.given, str):
            return self.index(int(label))  # no class of ImageNet has a number for a name
        as_written, without_case = self._spellings
        found = as_written.get(label) or without_case.get(_plain(label))
        if found is None:
            if digits:
                return self.index(int(label))
            raise ValueError(f"unknown class {label!r}, {self._expected(label)}")
        if len(found) > 1:
            several = ", ".join(f"{index} ({self.names[index]})" for index in found)
            raise ValueError(f"several classes are called {label!r}: give the index of one of {several}")
        return found[0]

    @cached_property
    def _spellings(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Classes by each of their spellings, as written, and as `_plain` makes them."""
        as_written: dict[str, list[int]] = {}
        without_case: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            called = {name}
            if isinstance(self.given, str):
                called |= {synonym.strip() for synonym in name.split(",")}
                called.add(_imagenet().index_to_label_name(index))
            for spelling in called:
                as_written.setdefault(spelling, []).append(index)
            for plain in {_plain(spelling) for spelling in called}:
                without_case.setdefault(plain, []).append(index)
        return as_written, without_case

    def _expected(self, label: str) -> str:
        """Return the end of an error message: similar names, or the possible labels."""
        near = difflib.get_close_matches(_plain(label), self._spellings[1], n=3, cutoff=0.7)
        if near:
            return "did you mean " + " or ".join(
                f"{name!r} ({', '.join(map(str, self._spellings[1][name]))})" for name in near
            )
        if isinstance(self.given, str):
            return f"expected a name or WordNet id of ImageNet or an index 0..{self.count - 1}"
        more = ", ..." if self.count > 10 else ""
        return f"expected one of {', '.join(self.names[:10])}{more}"


def _plain(name: str) -> str:
    """Return a name without case, with single spaces for underscores and runs of spaces."""
    return " ".join(name.casefold().replace("_", " ").split())


@cache
def _imagenet() -> Any:
    from timm.data import ImageNetInfo

    return ImageNetInfo(IMAGENET)
