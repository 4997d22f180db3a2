"""Signals that end a run: recorded on arrival, handled between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# exit codes of a process that a signal ended; 75 is "try again later" in sysexits.h
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # not on Windows
    CODES[signal.SIGUSR1] = 75


class Stopped(KeyboardInterrupt):
    """End of a run by a signal, after it was saved. code: exit code for the process; that of USR1 asks a scheduler to
    start the job again.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved: the same command goes on from there")
        self.code = CODES[signal.Signals(number)]


class Signals:
    """Context in which TERM, INT and USR1 set `caught`; the same signal once more gets its former handler."""

    def __init__(self, enabled: bool) -> None:
        """enabled: False leaves the handlers alone; so does any thread but the main one, which cannot set them."""
        self.enabled, self.caught = enabled and threading.current_thread() is threading.main_thread(), 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if self.enabled:
            self._before = {number: signal.signal(number, self._record) for number in CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        signal.signal(number, self._before[number])
