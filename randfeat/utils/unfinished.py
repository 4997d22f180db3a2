"""Directories that take long to fill: what is done lies in a folder inside, with the settings it was done with, until
the directory is whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import atomic
from .resume import refuse_other

FOLDER, SETTINGS, LOCK = "unfinished", "settings.json", "lock"
PATIENCE = 15  # seconds: so long the workers of a process that was killed may outlive it, and hold its lock


def is_begun(directory: Path) -> bool:
    """Return whether something is being made there."""
    return (directory / FOLDER / SETTINGS).is_file()


def begin(directory: Path, settings: Mapping[str, Any], what: str, free: Collection[str] = ()) -> dict[str, Any]:
    """Make the directory with its folder, or goes on with what was begun with the same settings, which are returned.

    settings: JSON with a `format`. what: is made there, in a word. free: those that may differ, see
    `settings.difference`.
    Raises a ValueError that names the setting that differs, and a FileExistsError for a directory of something else.
    """
    now: dict[str, Any] = json.loads(json.dumps(settings))
    folder = directory / FOLDER
    before = atomic.read_json(folder / SETTINGS, now["format"])
    if before is not None:
        refuse_other(directory, before, now, what, free)
        return before
    if directory.exists() and not (directory.is_dir() and _is_empty(directory)):
        raise FileExistsError(f"{directory} holds something else: choose another directory (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / SETTINGS, now)
    return now


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Inside, nobody else fills the directory; a RuntimeError if somebody does. A kill ends that, too."""
    lock = FileLock(directory / FOLDER / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except FileNotFoundError:
        raise RuntimeError(f"another process has just filled {directory}: run the same command again") from None
    except Timeout:
        raise RuntimeError(
            f"another process is filling {directory}: wait until it has ended, or choose another directory (--out)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _is_empty(directory: Path) -> bool:
    """But for what is left of a `begin` that was killed."""
    names = {inside.name for inside in directory.iterdir()}
    left = directory / FOLDER
    return not names or (
        names == {FOLDER} and left.is_dir() and {file.name for file in left.iterdir()} <= {f".{SETTINGS}.part"}
    )
