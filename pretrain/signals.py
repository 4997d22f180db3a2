"""Signals that end a run: noted when they come, obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# what a process that one of them ended returns; 75 is what sysexits.h has for "try again later"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    CODES[signal.SIGUSR1] = 75


class Stopped(KeyboardInterrupt):
    """A signal ended the run, which was saved. code: for the process to return; that of USR1 asks a scheduler to start
    the job again.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved: the same command goes on from there")
        self.code = CODES[signal.Signals(number)]


class Signals:
    """Inside, TERM, INT and USR1 set `caught`; the same signal once more does what it did before."""

    def __init__(self, heeded: bool) -> None:
        """heeded: False leaves all as it is, and so does any thread but the main one, which alone can change it."""
        self.heeded, self.caught = heeded and threading.current_thread() is threading.main_thread(), 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if self.heeded:
            self._before = {number: signal.signal(number, self._note) for number in CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        signal.signal(number, self._before[number])
