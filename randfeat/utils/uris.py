"""URIs of places on an object store, `s3://bucket/photos`, told from paths."""

from __future__ import annotations

import re
from pathlib import Path

URI = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}[^/]", re.IGNORECASE)  # pathlib leaves one slash


def is_remote(name: str | Path) -> bool:
    """Return whether a name is the URI of a place on an object store."""
    return URI.match(str(name)) is not None


def check_on_disk(out: str | Path) -> None:
    """Raise a ValueError where a result is to be written to an object store."""
    if is_remote(out):
        raise ValueError(f"{out}: results are written to a disk: name a place there, and copy them afterwards")
