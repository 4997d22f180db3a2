"""Writing that a crash cannot leave half done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write under a temporary name; when the block ends and the disk has it all, it takes its name. After an
    error nothing is left of it.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, waits until the disk has it, and renames it."""
    with writing(path) as file:
        file.write(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`write_bytes`, of JSON that a person can read."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path, form: str) -> dict[str, Any] | None:
    """Return an object whose `format` is this one, or None where there is no file; a ValueError if it is something
    else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == form:
            return content
        reason = f"its format is {content['format']!r}"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError:
        reason = "it is damaged or something else"
    except (ValueError, KeyError, TypeError):
        reason = "it says no format"
    raise ValueError(f"{path} was expected to hold {form!r}, but {reason}: choose another directory")


def sha256(path: Path) -> str:
    """Of a file of any size, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def new_directory(target: Path, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """An empty directory to fill; it takes the target's place when the block ends without an exception.

    is_ours: whether a directory holds what is written here and nothing else. A target that exists, is not empty and is
    not ours is left alone, and a FileExistsError says so.
    A directory that was there is moved aside first and removed last, so a kill at any moment leaves one or the other
    whole: `recover` finds it.
    """
    target = target.resolve()
    if target.exists() and not (target.is_dir() and (is_ours(target) or not any(target.iterdir()))):
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
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        made.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> Path:
    """Return the directory, or its predecessor where a writer was killed between moving that aside and putting the new
    one there."""
    old = _aside(directory.resolve())
    return old if old.exists() and not directory.exists() else directory


def _aside(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")
