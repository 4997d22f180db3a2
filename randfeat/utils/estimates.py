"""Estimates of long work: its time, told once and measured on its first units, and the room that it takes on disk."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

SHORT = 20.0  # seconds; of work that takes less nothing is told
MEASURED, PATIENCE = 10, 10.0  # updates that are measured; where they are slow, two, and seconds
SURE = 2.0  # seconds that are measured at least
UNITS = ("bytes", "KB", "MB", "GB", "TB")


class Estimate:
    """Time of long work, told once, when enough of its first units are measured.

    The first update is not measured: until then processes start and memory is allocated.
    """

    def __init__(
        self,
        total: int,
        words: Callable[[float, int], str],
        tell: Callable[[str], None],
        done: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """total, done: units of the whole work, and those that were finished before. words: sentence for seconds a unit
        and the number of units that are left. tell: what is done with it.
        """
        self.total, self.done, self.words, self.tell, self.clock = total, done, words, tell, clock
        self.told = False
        self.updates = self.units = 0  # that were measured
        self.seconds = 0.0
        self._last: float | None = None

    @property
    def left(self) -> int:
        """Units that are left."""
        return max(0, self.total - self.done)

    @property
    def pace(self) -> float | None:
        """Seconds a unit, None while too few are measured."""
        enough = self.updates >= MEASURED and self.seconds >= SURE
        return self.seconds / self.units if enough or (self.updates >= 2 and self.seconds >= PATIENCE) else None

    def update(self, count: int = 1) -> None:
        """Take note of units that are finished, and tell the time of the others if it is known by now and long."""
        now = self.clock()
        self.done += count
        if self.told:
            return
        if self._last is not None:
            self.updates, self.units = self.updates + 1, self.units + count
            self.seconds += now - self._last
        self._last = now
        if (pace := self.pace) is not None:
            self.told = True
            if pace * self.left >= SHORT:
                self.tell(self.words(pace, self.left))

    def pause(self) -> None:
        """Leave out what happens before the next update, and that update."""
        self._last = None


def time_left(pace: float, left: int, unit: str) -> str:
    """Return a sentence about the units that are left. pace: seconds a unit. unit: its name, such as "image"."""
    return f"about {duration(pace * left)} for the other {left:,} {unit}s, {speed(pace, unit)}"


def speed(pace: float, unit: str) -> str:
    """Return a speed in words: "8.1 images a second", "1.5 seconds an image". pace: seconds a unit, above 0."""
    if pace < 1:
        each = 1 / max(pace, 1e-9)
        return f"{each:,.0f} {unit}s a second" if each >= 20 else f"{each:.1f} {unit}s a second"
    return f"{pace:,.1f} seconds a{'n' * unit.startswith(('a', 'e', 'i', 'o'))} {unit}"


def duration(seconds: float) -> str:
    """Return a duration in words: "40 seconds", "25 minutes", "3.5 hours", "2.1 days"."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole > 1)}"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def bytes_in_words(count: float) -> str:
    """Return a number of bytes in words, decimal as disks are sold: "12 bytes", "3.2 GB"."""
    power = 0
    while count >= 999.5 and power < len(UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.0f} {UNITS[power]}" if power == 0 or count >= 99.5 else f"{count:.3g} {UNITS[power]}"


def warn_of_full_disk(directory: str | Path, needed: float) -> None:
    """Warn where the disk of a directory, which need not exist yet, has fewer bytes free than are needed."""
    place = Path(directory).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        wanted, there = bytes_in_words(needed), bytes_in_words(free)
        reason = f"{directory} needs about {wanted}, and {there} are free on its disk: make room, or write elsewhere"
        warnings.warn(reason, stacklevel=3)
