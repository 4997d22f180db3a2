"""Whole and finite numbers, whoever made them."""

from __future__ import annotations

import numpy as np
import pytest

from randfeat.utils import checks


@pytest.mark.parametrize("value", [0, 3, -2, 10**30, np.int64(5), np.uint8(1)])
def test_integers_are_whole_numbers(value):
    assert checks.is_whole_number(value)
    checks.check_whole_number("count", value)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float32(2), "3", None, [1]])
def test_others_are_not(value):
    assert not checks.is_whole_number(value)
    with pytest.raises(ValueError, match=r"^count must be a whole number, got "):
        checks.check_whole_number("count", value)


def test_the_message_names_the_lowest_and_what_was_given():
    assert checks.is_whole_number(1, 1)
    assert not checks.is_whole_number(0, 1)
    for value, said in ((0, "0"), (np.int64(0), "0"), (np.True_, "True"), ("2", "'2'"), (None, "None")):
        with pytest.raises(ValueError, match=rf"^count must be a whole number from 1, got {said}$"):
            checks.check_whole_number("count", value, 1)


def test_finite_numbers():
    assert all(map(checks.is_finite_number, (0, 1.5, np.float32(2), np.int64(1))))
    assert not any(map(checks.is_finite_number, (float("nan"), float("inf"), np.float64("-inf"), "1", None)))


def test_finite_rows():
    rows = np.zeros((4, 2, 3), dtype=np.float16)
    rows[1, 0, 2], rows[3, 1, 0] = np.nan, np.inf
    assert checks.finite_rows(rows).tolist() == [True, False, True, False]
    assert checks.finite_rows(np.zeros((2, 0))).tolist() == [True, True]
    assert checks.finite_rows(np.zeros((0, 3))).tolist() == []
