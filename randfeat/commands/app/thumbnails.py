"""Thumbnails of the files of an index."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

from PIL import Image

from ...data.decode import as_seen
from . import html

SIDE = 176  # pixels of the longer side
KEPT = 4096  # thumbnails in memory, of some kilobytes each


def url(path: str) -> str:
    """Return the thumbnail as a data URL, "" where the file is gone or no picture."""
    try:
        changed = Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return ""
    return _url(path, changed)


@functools.lru_cache(KEPT)
def _url(path: str, changed: int) -> str:
    picture = open_reduced(path, SIDE)
    if picture is None:
        return ""
    return html.url(html.on_screen(picture, SIDE // 2, SIDE), photograph=max(picture.size) > SIDE // 2)


def open_reduced(path: str, longest: int = html.LARGE) -> Image.Image | None:
    """Return the picture in a file, reduced to about `longest` pixels on its longer side; None if there is none.

    A JPEG is decoded at a fraction of its size, which is many times as fast.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")
            picture.draft("RGB" if picture.mode != "L" else "L", (longest, longest))
            picture.load()
            return html.reduced(as_seen(picture), longest)
    except Exception:  # decoders of damaged files raise any kind
        return None
