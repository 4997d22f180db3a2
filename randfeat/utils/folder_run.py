"""Runs that fill a folder for long: begun with settings, resumed with the same ones, finished.

A store is complete or it is not. While it is filled, its settings, a lock and all that is done lie in its folder
`unfinished`, which goes when the store is complete. A folder of images may grow at any time: its settings stay beside
the images.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from . import atomic, distributed, resume
from .resume import SETTINGS, UNFINISHED

LOCK = "lock"


class FolderRun:
    """Run that fills a folder, by one process or by a process group.

    directory: the folder. settings: all that decides its content, as JSON with a `format`; NumPy's numbers become
    Python's. content: a word for the content in messages. free: names of settings that may differ between the run that
    began the folder and one that resumes it, see `resume.difference`. finished_by: name of the file that is written
    last and makes a store complete; None for a folder that may grow. results: names that this file has and the settings
    have not.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        content: str,
        free: Collection[str] = (),
        finished_by: str | None = None,
        results: Collection[str] = (),
    ) -> None:
        self.directory, self.content, self.free = directory, content, free
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=lambda of_numpy: of_numpy.item()))
        self.finished_by, self.results = finished_by, results
        self.work = directory if finished_by is None else directory / UNFINISHED  # folder of the settings

    def is_complete(self) -> bool:
        """Return whether the folder is a complete store.

        Raises a ValueError where its settings are others, a FileExistsError where the last file is something else.
        """
        if self.finished_by is None:
            return False
        return self._read(self.directory / self.finished_by, (*self.free, *self.results)) is not None

    def previous(self) -> dict[str, Any] | None:
        """Return the settings with which the folder was begun, None for a folder that was not. Raises as `begin`."""
        return self._read(self.work / SETTINGS, self.free)

    def begin(self, **more: Any) -> dict[str, Any]:
        """Begin the folder or resume it; return the settings with which it was begun.

        more: settings that a complete store does not keep. A folder that may grow keeps the settings of the last run.
        Raises before anything is written a ValueError that names the setting that differs, and a FileExistsError for a
        folder of something else.
        """
        before = self.previous()
        if before is None and not self._is_new():
            raise FileExistsError(f"{self.directory} exists and holds something else: choose another directory (--out)")
        if before is not None and self.finished_by is not None:
            return before
        now = self.settings | more
        self.work.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.work / SETTINGS, now)
        return now

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Keep other runs from filling the folder while the block runs; wait for all processes before and after it.

        Raises a RuntimeError while another run fills the folder, or where one has just completed the store.
        """
        with ExitStack() as stack:
            if distributed.rank() == 0:
                stack.enter_context(self._lock())
            distributed.barrier()
            yield
        distributed.barrier()

    def missing(self, paths: Sequence[Path]) -> list[int]:
        """Return the numbers of those of this process's files, see `share`, that are not there or empty."""
        folders = {path.parent for path in paths}
        there = {file.path for folder in folders for file in os.scandir(folder) if file.stat().st_size}
        return [number for number in share(len(paths)) if str(paths[number]) not in there]

    def finish(self) -> None:
        """Remove the folder `unfinished` of a complete store."""
        if self.finished_by is not None:
            shutil.rmtree(self.work, ignore_errors=True)

    def _read(self, path: Path, free: Collection[str]) -> dict[str, Any] | None:
        """Return settings on disk, None where there are none. Raises where they are others or no settings."""
        try:
            before = atomic.read_json(path, self.settings["format"])
        except ValueError as error:
            raise FileExistsError(str(error)) from None
        if before is not None:
            resume.check_same_settings(self.directory, before, self.settings, self.content, free)
        return before

    def _is_new(self) -> bool:
        """Return whether the folder holds nothing visible, but for the rest of a `begin` that was killed."""
        if not self.directory.exists():
            return True
        return self.directory.is_dir() and all(
            inside.name.startswith(".")
            or (inside == self.work and inside.is_dir() and all(left.name.startswith(".") for left in inside.iterdir()))
            for inside in self.directory.iterdir()
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        grows = self.finished_by is None
        lock = self.directory / f".{LOCK}" if grows else self.work / LOCK
        busy = "another process is filling {}: wait until it has ended, or choose another directory (--out)"
        completed = RuntimeError(f"another process has just filled {self.directory}: run the same command again")
        with ExitStack() as stack:
            try:
                stack.enter_context(resume.exclusive_lock(lock, busy.format(self.directory), keep=not grows))
            except FileNotFoundError:
                raise completed from None
            if self.finished_by is not None and (self.directory / self.finished_by).exists():
                raise completed
            yield


def share(count: int) -> range:
    """Return the numbers below `count` of this process's share of the work."""
    return range(distributed.rank(), count, distributed.world_size())
