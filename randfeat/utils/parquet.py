"""Errors of damaged parquet files, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

DAMAGED = (OSError, pa.ArrowException, UnicodeDecodeError)  # what pyarrow raises where bytes make no sense


@contextmanager
def damage_told(path: object) -> Iterator[None]:
    """Raise a ValueError that names the file where pyarrow finds it damaged; errors of the system stay as they are."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{path} is no parquet file, or damaged: get it again") from error
