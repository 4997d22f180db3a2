"""Object stores: folders of images, tar files and parquet files that are read where they lie, by pyarrow's filesystems.

A place is written as a URI, `s3://bucket/photos`, `gs://bucket/shards-{000..009}.tar`. Credentials, region and endpoint
are found as by the tools of the store, for S3 in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION,
AWS_ENDPOINT_URL and ~/.aws. A file that is gone is an unreadable image; a store that does not answer ends the job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from pyarrow import fs

from ..decode import File
from ..errors import UnreadableImage
from .base import NO_FILE, EncodedSource, Labels, State, check_unique, printable, state_of

SCHEMES = ("s3", "gs")


@dataclass(frozen=True)
class RemotePath:
    """File or folder on an object store, with the methods of `Path` that reading needs. It can be pickled.

    scheme: of the URI. path: bucket and name.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.scheme, f"{self.path}/{name}")

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.scheme, str(PurePosixPath(self.path).parent))

    def open(self, mode: str = "rb") -> Any:
        """Return the file, open for reading bytes from any place. Raises an OSError."""
        return _filesystem(self.scheme, self.path.partition("/")[0], os.getpid()).open_input_file(self.path)

    def stat(self) -> os.stat_result:
        """Return size and time of change as `os.stat` does; other fields are 0. Raises a FileNotFoundError."""
        info = _filesystem(self.scheme, self.path.partition("/")[0], os.getpid()).get_file_info(self.path)
        if info.type != fs.FileType.File:
            raise FileNotFoundError(f"there is no {self}")
        return os.stat_result((0, 0, 0, 0, 0, 0, info.size, 0, 0, 0), {"st_mtime_ns": info.mtime_ns or 0})


AnyPath: TypeAlias = "Path | RemotePath"


@dataclass(frozen=True)
class Found:
    """Files below a place: its root, the path of each relative to that, and the state of each."""

    root: RemotePath
    states: Mapping[str, State]


class RemoteFiles(EncodedSource):
    """Image files on an object store, one row each."""

    def __init__(
        self, name: str, found: Found, files: Sequence[str], labels: Labels, classes: list[str] | None
    ) -> None:
        super().__init__(name, [printable(file) for file in files], labels, classes)
        check_unique(name, self.paths)
        self.root, self.files = found.root, files
        self._states = [found.states[file] for file in files]

    def file(self, i: int) -> File:
        try:
            return (self.root / self.files[i]).open()
        except FileNotFoundError:
            raise UnreadableImage("no such file or directory") from None

    def sizes(self) -> Iterable[int]:
        return (size for size, *_ in self._states)

    def states(self) -> Iterable[State]:
        return self._states

    def content(self, i: int) -> bytes | None:
        return None  # one more download of each; the time of change alone tells


def find(name: str) -> Found:
    """Return the files of a URI, a file, a folder or a pattern, without hidden ones.

    Raises a FileNotFoundError for a place without any, and an OSError of one sentence where the store gives no answer.
    """
    match = re.match(r"([^:]+):/+(.*)", name)
    if match is None or (scheme := match.group(1).lower()) not in SCHEMES:
        raise ValueError(
            f"{name} is on no object store that can be read: expected {' or '.join(SCHEMES)}://bucket/name"
        )
    path = match.group(2).rstrip("/")
    fixed = re.split(r"[*?{\[]", path)[0]
    root = RemotePath(scheme, path if fixed == path else fixed.rpartition("/")[0])
    try:
        filesystem = _filesystem(scheme, root.path.partition("/")[0], os.getpid())
        info = filesystem.get_file_info(root.path)
        if info.type == fs.FileType.File:
            return Found(root.parent, {PurePosixPath(path).name: _state(info)})
        listed = filesystem.get_file_info(fs.FileSelector(root.path, allow_not_found=True, recursive=True))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{name} cannot be opened: {reason}") from None
    start = len(root.path) + 1
    files = {one.path[start:]: _state(one) for one in listed if one.type == fs.FileType.File}
    files = {file: files[file] for file in sorted(files) if not any(part[0] == "." for part in file.split("/"))}
    if not files:
        raise FileNotFoundError(f"there is no file in {name}: check the bucket and the name")
    return Found(root, files)


def matching(found: Found, pattern: str) -> list[str]:
    """Return the files that a pattern without braces names, as a URI; * matches in one folder."""
    there = [file for file in found.states if _matches(str(found.root / file), pattern)]
    if not there:
        raise FileNotFoundError(f"there is no file {pattern}: check the pattern")
    return there


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def of_arrow(path: AnyPath) -> Any:
    """Return what pyarrow's readers of files take for a path."""
    return path if isinstance(path, Path) else path.open()


def state(path: AnyPath) -> State:
    """Return the state of a file, on a disk or on an object store."""
    if isinstance(path, Path):
        return state_of(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        return NO_FILE
    return found.st_size, found.st_mtime_ns, found.st_mtime_ns


def _state(info: fs.FileInfo) -> State:
    return info.size, info.mtime_ns or 0, info.mtime_ns or 0


@cache
def _filesystem(scheme: str, bucket: str, process: int) -> fs.FileSystem:
    """Return the filesystem of a bucket; one for each process, since connections do not outlive a fork."""
    return fs.FileSystem.from_uri(f"{scheme}://{bucket}")[0]
