"""Deaths of a process at a chosen touch of a file, so that the moment of a kill does not depend on time."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
LEFT = 10  # bytes of a file whose writing is cut off


def die_at(root: Path, number: int, torn: bool = False, told: Callable[[], object] = lambda: None) -> None:
    """Make this process, not its children, die at its touch `number` (1, 2, ...) of files below `root` from now on.

    It is killed just before that touch; or, `torn`, in the middle of the first write after it, which leaves 10 bytes:
    the system ends it there by another signal. number: 0 for never. told: called at each touch.
    """
    process, prefix, touches = os.getpid(), str(root), 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python turns it into an error

    def touched(event: str, about: tuple[Any, ...]) -> None:
        nonlocal touches
        if event not in TOUCHES or os.getpid() != process or not str(about[0]).startswith(prefix):
            return
        touches += 1
        told()
        if touches == number and torn:
            resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT, resource.RLIM_INFINITY))
        elif touches == number:
            os.kill(process, signal.SIGKILL)

    sys.addaudithook(touched)


def was_killed(status: int, torn: bool) -> bool:
    """Return whether a process ended as `die_at` ends it, given its status: minus the signal, or an exit code of 0.

    A write may not have come any more. Raises an AssertionError for any other end.
    """
    assert status in (0, -(signal.SIGXFSZ if torn else signal.SIGKILL)), status
    return status < 0


def count(touches: Any) -> None:
    """Add one to a value that processes share."""
    with touches.get_lock():
        touches.value += 1
