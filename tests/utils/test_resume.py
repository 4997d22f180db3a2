"""Messages about settings that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from randfeat.utils import resume


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"a": 1, "b": {"c": [2], "d": None}}, {"b": {"d": None, "c": [2]}, "a": 1}, None),
        ({"a": 1}, {"a": 2}, "a 1, not 2"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c 1, not 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b None, not 2"),
        ({"a": 1, "b": 2}, {"a": 1}, "b 2, not None"),
        ({"a": 1, "b": 2}, {"a": 3, "b": 4}, "a 1, not 3"),
        ({"free": 1, "freedom": 1}, {"free": 2, "freedom": 2}, "freedom 1, not 2"),
        ({"part": {"free": {"x": 1}}}, {"part": {"free": {"x": 2}}}, None),
        ({"a": "x" * 300}, {"a": 0}, f"a {'x' * 99}…, not 0"),
    ],
)
def test_the_first_difference_is_named(before, now, message):
    assert resume.difference(before, now, ("free", "part.free")) == message


def test_it_is_refused_in_one_sentence():
    resume.check_same_settings(Path("out"), {"a": 1}, {"a": 1}, "features")
    with pytest.raises(ValueError, match=r"^out holds features with a 1, not 2: choose another directory"):
        resume.check_same_settings(Path("out"), {"a": 1}, {"a": 2}, "features")
