"""States of the files that a result was made of, by which one sees whether it is still that of the files.

A file is the same while its size and its times of change are what they were, that of its entry too, which stays when a
program sets the other one back; where one differs, its bytes decide. So a data set that was copied or touched is the
same one, and a picture that was painted over in as many bytes is not. An index keeps the same of each row.

    inputs.npy    size, times of change and SHA-256 of the file of each image, in the order of the source; -1 and zeros
                  where they are not known
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..utils import arrays, atomic, distributed, progress
from ..utils.resume import UNFINISHED, OtherSettings
from .sources.base import Rows
from .sources.folder import FileSource

INPUTS = "inputs.npy"
TIMES = ("size", "mtime_ns", "ctime_ns")
STATE = np.dtype([*((name, "<i8") for name in TIMES), ("sha256", "u1", (32,))])
SHOWN = 1000  # files whose bytes are compared under a progress bar


class StaleResult(ValueError):
    """The error where files have changed since a result was made of them. rows: their numbers in the source."""

    def __init__(self, directory: Path, content: str, source: Rows, rows: Sequence[int]) -> None:
        self.rows = list(rows)
        super().__init__(
            f"{directory} holds {content} of {source.name}, of whose {len(source):,} files {len(rows):,} have changed "
            f"since, such as {source.paths[rows[0]]}: delete it to begin anew, or choose another directory (--out)"
        )


class Inputs:
    """States of the files of a source, kept in a folder. A source without times of change has none, and no file."""

    def __init__(self, source: Rows, folder: Path, name: str = INPUTS) -> None:
        self.source, self.path = source, folder / name

    def begin(self, now: np.ndarray | None = None) -> list[int]:
        """Record the states; return the rows whose files have changed since an earlier call recorded theirs.

        They are to be read again, which is told. now: of `now`, where that was asked before the files were read.
        """
        before, now = self._recorded(), self.now() if now is None else now
        if now is None:
            return []
        changed = [] if before is None else changed_rows(self.source, before, now)
        if before is not None:
            now["sha256"] = before["sha256"]
            now["sha256"][changed] = 0
        if changed:
            count, first = f"{len(changed):,} of {len(now):,}", self.source.paths[changed[0]]
            progress.tell(f"{count} images have changed since they were read, such as {first}: they are read again")
        self._write(now)
        return changed

    def add_digests(self, rows: Sequence[int]) -> None:
        """Record the SHA-256 of the files of these rows; processes that have rows of their own may do so at once."""
        if not len(rows) or not self.path.exists():
            return
        found = digests(self.source, rows)
        start = len(arrays.header((len(self.source),), STATE)) + STATE.fields["sha256"][1]  # type: ignore[index]
        # not by mapping the file, where a full disk would be a signal that kills the process
        with self.path.open("r+b") as file:
            for row, digest in zip(rows, found, strict=True):
                file.seek(start + row * STATE.itemsize)
                file.write(digest.tobytes())

    def copy_to(self, folder: Path) -> None:
        """Copy the record, if there is one, to the folder of the result."""
        if self.path.exists():
            atomic.write_bytes(folder / self.path.name, self.path.read_bytes())

    def changed(self) -> list[int] | None:
        """Return the rows whose files are not what they were; None where that was not recorded.

        Files that were merely touched are recorded as they are now, so that their bytes are read once.
        """
        now = self.now()
        if now is None:
            return []
        before = self._recorded()
        if before is None:
            return None
        changed = changed_rows(self.source, before, now)
        if not changed and bool((_times(before) != _times(now)).any()) and distributed.rank() == 0:
            now["sha256"] = before["sha256"]
            with suppress(OSError):  # of a folder that may not be written to
                self._write(now)
        return changed

    def fingerprint(self) -> str | None:
        """Return the fingerprint of the source with the sizes that were recorded; None where none were."""
        before = self._recorded()
        return None if before is None else self.source.fingerprint_of(before["size"].tolist())

    def check(self, content: str) -> None:
        """Raise a StaleResult where files have changed since, and warn where that cannot be told.

        content: of the folder, in a word or two.
        """
        changed = self.changed()
        if changed:
            raise StaleResult(self.path.parent, content, self.source, changed)
        if changed is None and distributed.rank() == 0:
            warnings.warn(
                f"{self.path.parent} keeps no times of change of the files that it was made of, as those written "
                "before did not: their names, labels and sizes are the same; whether their bytes are cannot be told.",
                stacklevel=3,
            )

    def now(self) -> np.ndarray | None:
        """Return the states of now, None for a source without."""
        return states_of(self.source)

    def _recorded(self) -> np.ndarray | None:
        """Return the states that were recorded, None for none or those of something else."""
        return recorded(self.path, len(self.source))

    def _write(self, record: np.ndarray) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays.write(self.path, record.shape, STATE, [record])


def states_of(source: Rows) -> np.ndarray | None:
    """Return the states of the files of a source now, (n,) of `STATE` without digests; None for one without."""
    states = source.states()
    if states is None:
        return None
    record = np.zeros(len(source), STATE)
    for name, column in zip(TIMES, np.array([*states], np.int64).reshape(-1, 3).T, strict=True):
        record[name] = column
    return record


def recorded(path: Path, count: int) -> np.ndarray | None:
    """Return the states of so many rows that a file holds; None where it is not there or of something else."""
    try:
        return np.array(arrays.read(path, (count,), STATE))
    except (OSError, ValueError):
        return None


def changed_rows(source: Rows, before: np.ndarray, now: np.ndarray) -> list[int]:
    """Return the rows of a source whose files have changed between two states of all, (n,) of `STATE` each."""
    rows = np.flatnonzero(_times(before) != _times(now))
    has_digest, alike = before["sha256"][rows].any(axis=1), now["size"][rows] == before["size"][rows]
    known = has_digest & alike
    # the time of an entry alone, which a change of rights sets, is no reason to doubt bytes that are not known
    same = ~has_digest & alike & (now["mtime_ns"][rows] == before["mtime_ns"][rows])
    if known.any():
        same[known] = (digests(source, rows[known].tolist()) == before["sha256"][rows[known]]).all(axis=1)
    return rows[~same].tolist()


@contextmanager
def naming_changes(source: Rows, directory: Path, content: str) -> Iterator[None]:
    """Raise a StaleResult that names a file, in place of the error that a fingerprint differs which follows from files.

    That is the source's, where some have other sizes than when `directory` was filled, or begun to be, and all else is
    the same; and that of a tokenizer, which may have been fitted to them. content: as of `Inputs.check`.
    """
    try:
        yield
    except OtherSettings as error:
        of_source = error.name.endswith("source.fingerprint")
        if of_source or error.name == "tokenizer":
            for folder in (directory, directory / UNFINISHED):
                inputs = Inputs(source, folder)
                if (not of_source or inputs.fingerprint() == error.before) and (changed := inputs.changed()):
                    raise StaleResult(directory, content, source, changed) from None
        raise


def digests(source: Rows, rows: Sequence[int]) -> np.ndarray:
    """Return the SHA-256 of the bytes of these rows, uint8 (n, 32); zeros where there are none."""

    def of(row: int) -> bytes:
        content = source.content(row)
        return bytes(32) if content is None else hashlib.sha256(content).digest()

    if isinstance(source, FileSource):
        found = progress.mapped(of, rows, "files by their bytes", "file", shown=len(rows) > SHOWN)
    else:  # those that hold a part of an archive in memory are not to be read by several threads
        found = [of(row) for row in rows]
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(rows), 32)


def _times(record: np.ndarray) -> np.ndarray:
    """Return what is compared first: size and times of change."""
    return record[[*TIMES]]
