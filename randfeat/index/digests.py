"""Digests of image files, by which an index knows a file that was renamed, moved, copied or touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..utils import atomic, progress

# absolute path of a file, its size, and its times of change: of its content, and of its entry too
State = tuple[str, "int | None", "int | None", "int | None"]


def digests_of(files: Sequence[State], shown: bool = False) -> list[str | None]:
    """Return the SHA-256 of each file, in hexadecimal digits; None of one that is no file, or is not as it was.

    shown: with a progress bar.
    """
    return progress.mapped(digest_of, files, "files by their bytes", "file", shown)


def digest_of(file: State) -> str | None:
    """Return the SHA-256 of one file; None where it is none, or has another size or times of change than it had."""
    path, size, *times = file
    if size is None or None in times:  # it lies in an archive or a data set
        return None
    try:
        digest = atomic.sha256(Path(path))
        now = os.stat(path)  # noqa: PTH116  fast
    except OSError:
        return None
    return digest if [now.st_size, now.st_mtime_ns, now.st_ctime_ns] == [size, *times] else None
