"""Images as commands are given them: files, and folders of files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..data.sources.folder import SUFFIXES


def listed(given: Iterable[Path]) -> list[Path]:
    """Return the files, and of each folder the images below it, sorted.

    Raises a FileNotFoundError for what is not there, and a ValueError for a folder without images.
    """
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}: give image files, or folders of them")
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not below:
            raise ValueError(f"{path} holds no image: give image files, or folders of them")
        found += below
    return found
