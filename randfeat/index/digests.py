"""Digests of image files, by which an index knows a file that was renamed, moved, copied or touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..utils import atomic, progress

State = tuple[str, "int | None", "int | None"]  # absolute path, size and time of change of a file


def digests_of(files: Sequence[State], shown: bool = False) -> list[str | None]:
    """Return the SHA-256 of each file, in hexadecimal digits; None of one that is no file, or is not as it was.

    shown: with a progress bar.
    """
    return progress.mapped(digest_of, files, "files by their bytes", "file", shown)


def digest_of(file: State) -> str | None:
    """Return the SHA-256 of one file; None where it is none, or has another size or time of change than it had."""
    path, size, mtime_ns = file
    if size is None or mtime_ns is None:  # it lies in an archive or a data set
        return None
    try:
        digest = atomic.sha256(Path(path))
        now = os.stat(path)  # noqa: PTH116  fast
    except OSError:
        return None
    return digest if (now.st_size, now.st_mtime_ns) == (size, mtime_ns) else None
