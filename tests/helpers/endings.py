"""Endings of commands with bad inputs: exit code, sentence, and what they left."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from battery import Place

from randfeat.cli import main

# words of Python and of libraries that say nothing to a user
RAW = re.compile(
    r"Traceback|KeyError|NoneType|TypeError|IndexError|islice|unpack|subscriptable|has no attribute|invalid literal|"
    r"out of range|unsupported operand|positional argument|unexpected keyword|<class |\[Errno|split_size|pop from|"
    r"Dimension size|not iterable|broadcast|could not convert|codec can't|shape mismatch|must be real number|"
    r"ArrowInvalid|object at 0x|size of tensor|dtype\('|Expecting value|NotImplemented"
)


@dataclass(frozen=True)
class Ending:
    """The end of a command: exit code, last sentence on standard error, all of that, what was printed, and an exception
    that escaped."""

    code: int | None
    sentence: str
    errors: str
    printed: str
    escaped: str


def end_of(command: str, place: Place, capture: Any) -> Ending:
    """Run a command, a line with names of things of the place in braces, and return how it ends."""
    argv = shlex.split(command.format_map(place))
    capture.readouterr()
    try:
        code: int | None = main(argv)
        escaped = ""
    except SystemExit as error:
        code, escaped = (error.code if isinstance(error.code, int) else 1), ""
    except Exception as error:
        code, escaped = None, f"{type(error).__name__}: {error}"
    out, errors = capture.readouterr()
    told = [line for line in errors.splitlines() if line.startswith("randfeat")]
    return Ending(code, told[-1] if told else "", errors, out, escaped)


def clear(place: Place) -> None:
    """Remove what commands have written."""
    for path in place.root.glob("out*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def left_over(out: Path) -> list[str]:
    """Return the files below an output that have their final name: neither hidden nor in a hidden folder."""
    if out.is_file():
        return [out.name]
    files = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if not any(part.startswith(".") for part in path.parts))
