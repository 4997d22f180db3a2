"""Resuming of long work: the settings that it was begun with, a folder for what is done, and a lock.

A directory that takes long to fill keeps what is done in `FOLDER`, beside the settings, until it is complete. Another
run resumes it only with the same settings, and only while no other process fills it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import atomic

FOLDER, SETTINGS, LOCK = "unfinished", "settings.json", "lock"
LOCK_TIMEOUT = 15.0  # seconds; workers of a process that was killed may outlive it, and hold its lock, for so long
LONGEST = 100  # characters of a value in a message


def difference(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> str | None:
    """Return the first setting that differs, as `name value, not value`; None if all are the same.

    Nested settings have dotted names. free: names that may differ, with all that is below them.
    """
    was, wanted = _flat(before), _flat(now)
    for name in dict.fromkeys([*wanted, *was]):
        is_free = any(name == other or name.startswith(f"{other}.") for other in free)
        if not is_free and was.get(name) != wanted.get(name):
            return f"{name} {_short(was.get(name))}, not {_short(wanted.get(name))}"
    return None


def check_same_settings(
    directory: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str, free: Collection[str] = ()
) -> None:
    """Raise a ValueError that names the first setting that differs from those with which `directory` was filled.

    what: the content of the directory, in a word. free: names that may differ, see `difference`.
    """
    if other := difference(before, now, free):
        raise ValueError(
            f"{directory} holds {what} with {other}: choose another directory (--out), or the same settings"
        )


def is_unfinished(directory: Path) -> bool:
    """Return whether `begin` was called for a directory that is not complete yet."""
    return (directory / FOLDER / SETTINGS).is_file()


def begin(directory: Path, settings: Mapping[str, Any], what: str, free: Collection[str] = ()) -> dict[str, Any]:
    """Begin to fill a directory, or resume one begun with the same settings; returns the settings it was begun with.

    settings: JSON with a `format`. what: the content of the directory, in a word. free: names that may differ, see
    `difference`. Raises a ValueError that names the setting that differs, and a FileExistsError for a directory of
    something else.
    """
    now: dict[str, Any] = json.loads(json.dumps(settings))
    folder = directory / FOLDER
    before = atomic.read_json(folder / SETTINGS, now["format"])
    if before is not None:
        check_same_settings(directory, before, now, what, free)
        return before
    if directory.exists() and not (directory.is_dir() and _is_empty(directory)):
        raise FileExistsError(f"{directory} holds something else: choose another directory (--out)")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / SETTINGS, now)
    return now


@contextmanager
def exclusive_lock(path: Path, message: str, timeout: float | None = None) -> Iterator[None]:
    """Hold a lock file; the end of the process, a kill too, releases it.

    timeout: seconds to wait for another process, `LOCK_TIMEOUT` by default. Raises a RuntimeError with this message
    where that still holds the lock, and a FileNotFoundError where the directory of the file is gone.
    """
    lock = FileLock(path, timeout=LOCK_TIMEOUT if timeout is None else timeout)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(message) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def lock_unfinished(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory that was begun; a RuntimeError while another process fills it, or has just done."""
    busy = f"another process is filling {directory}: wait until it has ended, or choose another directory (--out)"
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(directory / FOLDER / LOCK, busy))
        except FileNotFoundError:
            raise RuntimeError(f"another process has just filled {directory}: run the same command again") from None
        yield


def _is_empty(directory: Path) -> bool:
    """Return whether a directory holds nothing but the rest of a `begin` that was killed."""
    names = {inside.name for inside in directory.iterdir()}
    left = directory / FOLDER
    return not names or (
        names == {FOLDER} and left.is_dir() and {file.name for file in left.iterdir()} <= {f".{SETTINGS}.part"}
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
