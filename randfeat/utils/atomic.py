"""Atomic writing: a crash at any moment leaves the old file or directory, or the new one, and nothing in between."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

REPEATS = 100  # of two renames, until no other process is between its own


@contextmanager
def open_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name.

    It takes its name when the block has ended and the disk has all of it. After an error nothing of it is left. Where
    another thread or process writes the same file, it is waited for: the last one's is there, whole.
    """
    scratch = path.with_name(f".{path.name}.part")
    with _own(scratch) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:  # there a file that is open has to stay where it is
                file.close()
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextmanager
def _own(scratch: Path) -> Iterator[BinaryIO]:
    """Open a file, empty, that nobody else has open by this function; what a kill left is taken over.

    The lock is the file's own and ends with the process, so that none is left behind.
    """
    while True:
        with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o666)) as file:
            if fcntl is not None:
                with suppress(OSError):  # of file systems that lock nothing
                    fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    if not os.path.samestat(os.fstat(file.fileno()), scratch.stat()):
                        continue
                except FileNotFoundError:  # whoever had it has finished: the file has its name by now
                    continue
            file.truncate()
            yield file
            return


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `open_write` does."""
    with open_write(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, indented by two spaces, as `open_write` does."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path, form: str) -> dict[str, Any] | None:
    """Return the JSON object in a file, whose `format` must be `form`, or None where there is no file.

    Raises a ValueError for anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == form:
            return content
        reason = f"its format is {content['format']!r}"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, RecursionError):  # of JSON that is nested too deep
        reason = "it is damaged or something else"
    except (ValueError, KeyError, TypeError):
        reason = "it says no format"
    raise ValueError(f"{path} was expected to hold {form!r}, but {reason}: choose another directory")


@contextmanager
def fields_of(path: Path) -> Iterator[None]:
    """Raise a ValueError where the block does not find a field of a JSON file, or finds one of another type."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        fault: Exception = error
    except ValueError as error:
        if " to unpack" not in str(error):  # such as a grid of three numbers
            raise
        fault = error
    else:
        return
    raise ValueError(f"{path} is damaged: a field is missing or of another type, copy the directory again") from fault


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replace_directory(target: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty directory to fill, which takes the target's place when the block ends without an exception.

    may_replace: called with a target that exists; returns whether it holds what is written here and nothing else.
    Raises a FileExistsError for a target that is neither absent nor empty and may not be replaced.
    A directory that was there is moved aside first and removed last. So a kill at any moment leaves the old or the new
    one complete, and `recover` returns it.
    """
    target = target.resolve()
    if target.exists() and not (target.is_dir() and (may_replace(target) or not any(target.iterdir()))):
        raise FileExistsError(f"{target} exists and holds something else, so it is not replaced: choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    old = _aside(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        made.mkdir()
        yield made
        for file in made.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
        for again in range(REPEATS):
            try:
                if target.exists():
                    shutil.rmtree(old, ignore_errors=True)
                    target.rename(old)
                made.rename(target)
                break
            except OSError:  # of another process, which has put its own there, or moved it aside, at the same moment
                if again == REPEATS - 1:
                    raise
        shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> Path:
    """Return the directory, or its predecessor where a writer was killed between its two renames."""
    old = _aside(directory.resolve())
    return old if old.exists() and not directory.exists() else directory


def _aside(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")
