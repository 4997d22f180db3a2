"""Files of an index on disk.

    meta.json          what the index is, and the names and SHA-256 of the files that are it
    000001.faiss       vectors of a segment; faiss.read_index opens it
    000001.parquet     id, path, label, size, mtime_ns, sha256 and ctime_ns of each of them
    000002.npz         mean and directions of a whitening
    000004.npy         numbers of the rows of a segment that were removed since, int64, sorted
    000004.csv         images that could not be read: path, reason, size, mtime_ns, ctime_ns
    lock               held by the one process that writes

A file, once meta.json names it, never changes, and its number is never used again. A change writes new files, waits
until the disk has them, and then puts a new meta.json in the place of the old one: until then readers see
the index before the change, from then on the one after it. Files that no meta.json names are left from a change that
was killed, or were replaced; the next writer removes them. A reader that opened the index before keeps what it has.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa

from ..data.store import as_csv
from ..utils import atomic, resume
from ..utils.faiss import faiss
from . import rows
from .rows import Rows
from .segment import Segment
from .vectors import Whitening

if TYPE_CHECKING:
    from ..utils.faiss import FaissIndex

META, LOCK, UNFINISHED = "meta.json", "lock", "unfinished"
FORMAT = "index of randfeat, version 1"
WRITTEN = 1 << 20  # bytes of vectors at once
OURS = re.compile(r"\d{6,}\.(faiss|parquet|npy|npz|csv)|\.meta\.json\.part")
SKIPPED = ("path", "reason", "size", "mtime_ns", "ctime_ns")

Skipped = tuple[str, str, "int | None", "int | None", "int | None"]


class Directory:
    """Files of one index."""

    def __init__(self, path: Path) -> None:
        self.path, self._number = path, 1

    def meta(self) -> dict[str, Any] | None:
        """Return the content of meta.json, None where there is none. Raises a ValueError for one of something else."""
        return atomic.read_json(self.path / META, FORMAT)

    def read(self) -> tuple[dict[str, Any], list[Segment], list[Skipped], Whitening | None]:
        """Return the index as it is at one moment, mapped. Raises a FileNotFoundError where none is, and a ValueError
        where it is damaged.
        """
        meta = self.meta()
        while meta is not None:
            try:
                with atomic.fields_of(self.path / META):
                    segments = [self._opened(entry) for entry in meta["segments"]]
                    return meta, segments, self._read_skipped(meta), self._read_whitening(meta)
            except FileNotFoundError as error:
                before, meta = meta, self.meta()
                if meta == before:  # else a writer has replaced it
                    raise ValueError(f"{error.filename} is missing: copy the index again, or build it anew") from None
        begun = (self.path / UNFINISHED).is_dir()
        why = "its building is unfinished: run the same command again" if begun else f"it has no {META}"
        raise FileNotFoundError(f"{self.path} is no index: {why}")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Make the directory, keep other writers out, and remove what a killed one left.

        Raises a RuntimeError while another process writes, a FileExistsError for a directory of something else.
        """
        if self.path.exists() and self.meta() is None and not self._is_empty():
            raise FileExistsError(f"{self.path} holds something else: choose another directory for the index")
        self.path.mkdir(parents=True, exist_ok=True)
        busy = f"another process is writing {self.path}: wait until it has ended"
        with resume.exclusive_lock(self.path / LOCK, busy):
            try:
                meta = self.meta()
                self._number = 1 if meta is None else meta["next_number"]
                self._sweep(meta)
                yield
            except BaseException:  # leave nothing unfinished, but for features in UNFINISHED
                self._sweep(meta := self.meta())
                if meta is None and [file.name for file in self.path.iterdir()] == [LOCK]:
                    with suppress(OSError):  # on Windows it is in use
                        (self.path / LOCK).unlink()
                        self.path.rmdir()
                raise

    def write(self, segment: Segment) -> Segment:
        """Write what is not on disk yet of a segment, and open it from there. Readers do not see it before `commit`."""
        entry = segment.entry
        if entry is None:
            name = self._next()
            digests = {f"{name}.faiss": self._write_vectors(f"{name}.faiss", segment.index)}
            rows.write(self.path / f"{name}.parquet", segment.rows.table())
            digests[f"{name}.parquet"] = self._settle(f"{name}.parquet")
            entry = {"name": name, "rows": len(segment.rows), "sha256": digests, "removed": None}
        if len(segment.removed) and entry["removed"] is None:
            name = f"{self._next()}.npy"
            np.save(self.path / name, segment.removed)
            entry = entry | {"removed": {"name": name, "rows": len(segment.removed), "sha256": self._settle(name)}}
        return segment if entry is segment.entry else self._opened(entry)

    def write_skipped(self, skipped: Sequence[Skipped]) -> dict[str, Any]:
        """Write the list of images that could not be read; return its entry in the manifest."""
        name = f"{self._next()}.csv"
        (self.path / name).write_bytes(as_csv([SKIPPED, *skipped]))
        return {"name": name, "images": len(skipped), "sha256": self._settle(name)}

    def _read_skipped(self, meta: dict[str, Any]) -> list[Skipped]:
        if meta["skipped"] is None:
            return []
        with (self.path / meta["skipped"]["name"]).open(encoding="utf-8", newline="") as file:
            listed = list(csv.reader(file))[1:]
        states = [[int(number) if number else None for number in row[2:]] for row in listed]
        # those written before have two numbers
        return [(*row[:2], *state, *[None] * (3 - len(state))) for row, state in zip(listed, states, strict=True)]  # type: ignore[misc]

    def write_whitening(self, whitening: Whitening) -> dict[str, Any]:
        """Write a whitening; return its entry in the manifest."""
        name = f"{self._next()}.npz"
        whitening.save(self.path / name)
        return {"name": name, "sha256": self._settle(name)}

    def _read_whitening(self, meta: dict[str, Any]) -> Whitening | None:
        if meta["whitening"] is None:
            return None
        path = self.path / meta["whitening"]["name"]
        try:
            return Whitening.open(path)
        except (ValueError, EOFError, KeyError, BadZipFile) as error:
            raise ValueError(f"{path} is damaged: copy the index again, or build it anew") from error

    def commit(self, meta: dict[str, Any], segments: Sequence[Segment]) -> dict[str, Any]:
        """Make these segments, which were written here, the index: put its manifest in place, and return it."""
        entries = [segment.entry for segment in segments]
        meta = meta | {"next_number": self._number, "segments": entries}
        self._settle_names()
        atomic.write_json(self.path / META, meta)
        self._settle_names()
        self._sweep(meta)
        return meta

    def names(self, meta: dict[str, Any]) -> dict[str, str]:
        """Return the SHA-256 of each file of an index."""
        listed: dict[str, str] = {}
        for entry in meta["segments"]:
            listed |= entry["sha256"]
        for other in (meta["skipped"], meta["whitening"], *(entry["removed"] for entry in meta["segments"])):
            if other is not None:
                listed[other["name"]] = other["sha256"]
        return listed

    def size(self, meta: dict[str, Any]) -> int:
        """Return the bytes of the files of an index."""
        files_ = (self.path / name for name in self.names(meta))
        return sum(file.stat().st_size for file in files_ if file.is_file())

    def verify(self, meta: dict[str, Any]) -> None:
        """Raise a ValueError that names the first file that is not what was written."""
        self._compare(self.names(meta))

    def check(self, segment: Segment) -> Segment:
        """Return a segment whose files are what was written, else raise a ValueError: a copy of damaged rows would look
        sound.
        """
        if segment.entry is not None:
            self._compare(self.names({"segments": [segment.entry], "skipped": None, "whitening": None}))
        return segment

    def _compare(self, digests: dict[str, str]) -> None:
        for name, digest in digests.items():
            file = self.path / name
            if not file.is_file() or atomic.sha256(file) != digest:
                raise ValueError(f"{file} is missing or not what was written: copy the index again, or build it anew")

    def _opened(self, entry: dict[str, Any]) -> Segment:
        vectors = self.path / f"{entry['name']}.faiss"
        names = [*entry["sha256"], *([entry["removed"]["name"]] if entry["removed"] else [])]
        try:
            removed = entry["removed"] and np.load(self.path / entry["removed"]["name"], allow_pickle=False)
            segment = Segment(_mapped(vectors), Rows(vectors.with_suffix(".parquet")), removed, entry)
        except (ValueError, OSError, RuntimeError, EOFError, pa.ArrowException) as error:
            for name in names:
                if not (self.path / name).exists():
                    raise FileNotFoundError(2, "No such file", str(self.path / name)) from None
            reason = f"a file of {self.path} is damaged, one of {', '.join(names)}"
            raise ValueError(f"{reason}: copy the index again, or build it anew") from error
        if not segment.index.ntotal == len(segment.rows) == entry["rows"]:
            raise ValueError(
                f"{vectors} has {segment.index.ntotal} vectors, and {len(segment.rows)} rows beside it, not "
                f"{entry['rows']}: copy the index again, or build it anew"
            )
        return segment

    def _next(self) -> str:
        name = f"{self._number:06}"
        self._number += 1
        return name

    def _write_vectors(self, name: str, index: FaissIndex) -> str:
        """Write an index of faiss, and wait until the disk has it; return its SHA-256."""
        digest = hashlib.sha256()
        with (self.path / name).open("wb") as file:

            def write(content: bytes) -> None:
                file.write(content)
                digest.update(content)

            faiss.write_index(index, faiss.PyCallbackIOWriter(write, WRITTEN))
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _settle(self, name: str) -> str:
        """Wait until the disk has a file; returns its SHA-256."""
        digest = atomic.sha256(self.path / name)
        with (self.path / name).open("rb+") as file:
            os.fsync(file.fileno())
        return digest

    def _settle_names(self) -> None:
        """Wait until the disk has the names of the files, where the system can wait for a directory."""
        if os.name == "posix":
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _sweep(self, meta: dict[str, Any] | None) -> None:
        kept = set() if meta is None else {*self.names(meta)}
        for file in self.path.iterdir():
            if OURS.fullmatch(file.name) and file.name not in kept:
                with suppress(OSError):  # on Windows a reader may still map it; the next writer tries again
                    file.unlink()

    def _is_empty(self) -> bool:
        """Return whether there is nothing in the directory but the rest of a build that was killed."""
        if not self.path.is_dir():
            return False
        names = {file.name for file in self.path.iterdir()}
        ours = all(name in (LOCK, UNFINISHED) or OURS.fullmatch(name) for name in names)
        return not names or (ours and LOCK in names)


def _mapped(path: Path) -> FaissIndex:
    """Return an index of faiss, mapped where this version of faiss and the system can: vectors are read when used."""
    return faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
