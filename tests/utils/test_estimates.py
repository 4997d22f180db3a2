"""Estimates of long work, and the words for durations, speeds and sizes."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from randfeat.utils import estimates, progress
from randfeat.utils.estimates import Estimate, bytes_in_words, duration, speed, time_left, warn_of_full_disk


class Clock:
    """Clock that a test advances."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(total, seconds, count=1, done=0, first=0.0):
    """Return what is told of work with updates of `count` units that take these seconds, and after how many units."""
    clock, told = Clock(), []
    made = Estimate(total, lambda pace, left: f"{pace:.3f} {left}", told.append, done, clock)
    clock.now += first
    finished = done
    while finished < total and not made.told:
        made.update(min(count, total - finished))
        finished += count
        clock.now += seconds
    return told, finished


def test_the_time_is_told_after_ten_updates_that_are_measured():
    assert run(1000, 0.5) == (["0.500 989"], 11)


def test_the_start_is_not_measured():
    assert run(1000, 0.5, first=300) == (["0.500 989"], 11)


def test_short_updates_are_measured_for_two_seconds():
    told, after = run(100_000, 0.01, count=4)
    assert told == [f"0.003 {100_000 - after}"]
    assert after == 4 * 201


def test_slow_updates_are_told_after_two():
    assert run(50, 90) == (["90.000 47"], 3)


def test_what_was_done_before_is_not_measured():
    told, after = run(5000, 1.0, count=32, done=1000)
    assert after == 1000 + 11 * 32
    assert told == [f"0.031 {5000 - after}"]


def test_short_work_is_not_told():
    assert run(49, 0.5)[0] == []
    assert run(51, 0.5)[0] == ["0.500 40"]


def test_it_is_told_once():
    clock, told = Clock(), []
    made = Estimate(10_000, lambda pace, left: f"{left}", told.append, clock=clock)
    for _ in range(100):
        made.update()
        clock.now += 1
    assert told == ["9989"]


def test_a_pause_is_left_out():
    clock, told = Clock(), []
    made = Estimate(1000, lambda pace, left: f"{pace:g} {left}", told.append, clock=clock)
    for number in range(14):
        clock.now += 1
        made.update()
        if number == 5:
            made.pause()
            clock.now += 500
    assert told == ["1 988"]


def test_durations_read_well():
    said = [duration(x) for x in (0.2, 40, 89, 91, 600, 5399)]
    assert said == ["1 second", "40 seconds", "89 seconds", "2 minutes", "10 minutes", "90 minutes"]
    assert [duration(x) for x in (20_000, 400_000)] == ["5.6 hours", "4.6 days"]


def test_speeds_read_well():
    assert [speed(x, "image") for x in (0.0005, 1 / 8.12, 0.049, 1.5, 2000)] == [
        "2,000 images a second",
        "8.1 images a second",
        "20 images a second",
        "1.5 seconds an image",
        "2,000.0 seconds an image",
    ]
    assert speed(2, "step") == "2.0 seconds a step"


def test_sizes_read_well():
    said = [bytes_in_words(x) for x in (0, 12, 999, 1000, 1234, 99_600, 9_830_400_000, 999_600_000, 3e15)]
    assert said == ["0 bytes", "12 bytes", "999 bytes", "1 KB", "1.23 KB", "100 KB", "9.83 GB", "1 GB", "3000 TB"]


def test_the_sentence():
    assert time_left(0.125, 12_000, "image") == "about 25 minutes for the other 12,000 images, 8.0 images a second"


def test_a_full_disk_is_warned_of(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=5_000_000))
    warn_of_full_disk(tmp_path / "not" / "there", 5_000_000)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"there needs about 7.2 GB, and 5 MB are free on its disk: make room"):
        warn_of_full_disk(tmp_path / "not" / "there", 7_200_000_000)


def test_a_bar_tells_it_beside_itself(monkeypatch, capsys):
    monkeypatch.setattr(estimates, "SURE", 0.0)
    monkeypatch.setattr(estimates, "SHORT", 0.0)
    with progress.bar(100, "reading", "image", told="; the store takes 3 GB") as bar:
        for _ in range(20):
            bar.update(1)
    assert capsys.readouterr().err.count("for the other 89 images") == 1
    with progress.bar(100, "reading", "image") as bar:
        bar.update(100)
    with progress.bar(100, "reading", "image", shown=False, told="") as bar:
        for _ in range(100):
            bar.update(1)
    assert "for the other" not in capsys.readouterr().err
