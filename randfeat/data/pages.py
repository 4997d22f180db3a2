"""TIFF files of several pages where pictures are read: a picture is the first page, and that is said."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..utils import progress
from .sources import Source
from .sources.folder import FileSource

SUFFIXES = (".tif", ".tiff")


def has_several(path: str | Path) -> bool:
    """Return whether a TIFF holds several pages, thumbnails and overviews not counted; False for any other file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = (page for page in file.pages if not getattr(page, "is_reduced", False))
            return next(pages, None) is not None and next(pages, None) is not None
    except Exception:  # a damaged file is told where it is read
        return False


def warn_of_pages(source: Source) -> None:
    """Warn where files of a source hold pages that a picture leaves out, with their number and the first of them.

    Files in folders and lists are looked at, not those in archives.
    """
    if not isinstance(source, FileSource):
        return
    rows = [row for row, file in enumerate(source.files) if str(file).lower().endswith(SUFFIXES)]
    found = several(source, rows)
    if found:
        warnings.warn(
            f"{len(found):,} of {len(source):,} images of {source.name} are TIFFs of several pages, such as "
            f"{source.paths[found[0]]}, and of each the first page alone is read: to read pages as channels, take a "
            "model with a range of values (see the guide of values).",
            stacklevel=2,
        )


def several(source: FileSource, rows: Sequence[int]) -> list[int]:
    """Return the rows whose files hold several pages."""
    files = [source.file(row) for row in rows]
    flags = progress.mapped(has_several, files, "pages of TIFFs", "file", shown=len(files) > 1000)
    return [row for row, flag in zip(rows, flags, strict=True) if flag]
