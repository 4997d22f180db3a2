"""Parts of resuming long work: the settings that it was begun with, compared, and locks. See also `folder_run`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

UNFINISHED, SETTINGS = "unfinished", "settings.json"  # folder of a store that is not complete, and its settings
LOCK_TIMEOUT = 15.0  # seconds; workers of a process that was killed may outlive it, and hold its lock, for so long
LONGEST = 100  # characters of a value in a message


class OtherSettings(ValueError):
    """The error where a directory was filled with other settings.

    name: of the first that differs, with dots. before: its value then.
    """

    def __init__(self, message: str, name: str, before: Any) -> None:
        super().__init__(message)
        self.name, self.before = name, before


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
    """Raise an OtherSettings that names the first setting that differs from those with which `directory` was filled.

    what: the content of the directory, in a word. free: names that may differ, see `difference`.
    """
    if other := difference(before, now, free):
        message = f"{directory} holds {what} with {other}: choose another directory (--out), or the same settings"
        name = other.split(" ")[0]
        raise OtherSettings(message, name, _flat(before).get(name))


def is_unfinished(directory: Path) -> bool:
    """Return whether a directory is a store that was begun and is not complete yet."""
    return (directory / UNFINISHED / SETTINGS).is_file()


@contextmanager
def exclusive_lock(path: Path, message: str, timeout: float | None = None, keep: bool = True) -> Iterator[None]:
    """Hold a lock file; the end of the process, a kill too, releases it.

    timeout: seconds to wait for another process, `LOCK_TIMEOUT` by default. keep: leave the file, which is empty, where
    it is. Raises a RuntimeError with this message where another process still holds the lock, and a FileNotFoundError
    where the directory of the file is gone.
    """
    lock = FileLock(path, timeout=LOCK_TIMEOUT if timeout is None else timeout)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(message) from None
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):  # on Windows it is in use
                path.unlink()
        lock.release()


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keep other processes from writing the same file or folder while the block runs, through whatever links.

    The lock is an empty file beside it, `.NAME.lock`, which is removed at the end; one that a kill left is free, and
    the next writer's. Folders above `out` are made, and removed where nothing came to lie in them. Raises a
    RuntimeError while another process writes. Where no lock can be had there, as `out` is in no place to be written to,
    the block runs, and its own error says so.
    """
    out = out.resolve()
    lock, busy = out.with_name(f".{out.name}.lock"), f"another process is writing {out}: wait until it has ended"
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError:
        yield
        return
    try:
        with exclusive_lock(lock, f"{busy}, or choose another place (--out)", keep=False):
            yield
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
