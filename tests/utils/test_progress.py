"""Calls in threads under a bar."""

import threading
import time

import pytest

from randfeat.utils import progress


def test_results_are_in_order_and_the_bar_counts_them(capsys):
    def slow(number):
        time.sleep(0.02 * (number == 0))  # the first ends last
        return number * number

    assert progress.mapped(slow, range(20), "squares", "number") == [number * number for number in range(20)]
    shown = capsys.readouterr().err
    assert "squares: 100%" in shown
    assert "20/20" in shown


def test_calls_share_threads_and_nothing_is_printed_where_it_is_not_shown(capsys, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    both = threading.Barrier(2)
    assert progress.mapped(lambda one: both.wait(10) >= 0, range(2), "pairs", shown=False) == [True, True]
    assert progress.mapped(str, [], "none", shown=False) == []
    assert capsys.readouterr().err == ""


def test_an_exception_of_a_call_is_raised():
    with pytest.raises(ZeroDivisionError):
        progress.mapped(lambda number: 1 // number, [1, 0, 2], "parts", shown=False)
