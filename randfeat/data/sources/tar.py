"""Images in tar files, read without unpacking: WebDataset shards, and ImageNet's tars of class tars."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ..decode import UnreadableImage
from .base import EncodedSource, Labels, check_unique, numbered, printable
from .folder import SUFFIXES, is_image

BLOCK = 512  # bytes of a block, the unit of tar files
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
LABEL_KEYS = ("label", "cls", "class", "target")  # in a sample's JSON


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file.

    name: its path, behind the names of inner tar files that hold it. offset, size: of its bytes in the outer file.
    """

    name: str
    offset: int
    size: int

    @property
    def file(self) -> str:
        """Name without folders."""
        return self.name.rpartition("/")[2]

    @property
    def key(self) -> str:
        """Key of the sample in WebDataset: everything up to the first dot of the file name."""
        return self.name[: len(self.name) - len(self.file)] + self.file.partition(".")[0]


class TarRows:
    """Rows in tar files, by their offsets. A tar file is opened for each row, so any process can read it.

    paths: names of the rows, tar/member.
    """

    def __init__(self, name: str, tars: Mapping[str, Path], members: Sequence[Sequence[Member]]) -> None:
        self.tars = [str(tar) for tar in tars.values()]
        self.paths = [
            printable(f"{tar}/{member.name}") for tar, inside in zip(tars, members, strict=True) for member in inside
        ]
        check_unique(name, self.paths)
        places = [(tar, member.offset, member.size) for tar, inside in enumerate(members) for member in inside]
        self.places = np.array(places, dtype=np.int64).reshape(-1, 3)

    def read(self, i: int) -> bytes:
        tar, offset, size = self.places[i].tolist()
        try:
            with open(self.tars[tar], "rb") as file:  # noqa: PTH123
                file.seek(offset)
                content = file.read(size)
        except FileNotFoundError:
            raise UnreadableImage(f"no such file: {self.tars[tar]}") from None
        if len(content) < size:
            raise UnreadableImage("truncated")
        return content

    def sizes(self) -> Iterable[int]:
        return self.places[:, 2].tolist()


class TarSource(EncodedSource):
    """Images in tar files."""

    def __init__(self, name: str, rows: TarRows, labels: Labels = None, classes: list[str] | None = None) -> None:
        super().__init__(name, rows.paths, labels, classes)
        self.rows = rows

    def file(self, i: int) -> io.BytesIO:
        return io.BytesIO(self.rows.read(i))

    def sizes(self) -> Iterable[int]:
        return self.rows.sizes()


def open_tars(
    name: str, tars: Mapping[str, Path], members: Sequence[Sequence[Member]], suffixes: Set[str] = SUFFIXES
) -> TarSource:
    """Return the images among the members of tar files, in their order.

    tars: path of each tar file by its name in the data set. suffixes: of images. A label is the content of a sample's
    `.cls`, else the value in its `.json` under one of LABEL_KEYS, else the name of its folder, or of its tar where each
    tar is a class of ImageNet; text labels become classes in sorted order.
    """
    images: list[list[Member]] = []
    written: list[str | int | None] = []
    folders: list[str] = []
    class_tars = all(re.fullmatch(r"n\d{8}", tar.stem) for tar in tars.values())
    for tar, inside in zip(tars.values(), members, strict=True):
        images.append([member for member in inside if is_image(member.file, suffixes)])
        label_of = _written_labels(tar, inside)
        written += [label_of.get(member.key) for member in images[-1]]
        folders += [tar.stem if class_tars else _folder_of(member) for member in images[-1]]
    rows = TarRows(name, tars, images)
    unlabelled = [path for path, label in zip(rows.paths, written, strict=True) if label is None]
    labels: Labels = None
    classes: list[str] | None = None
    if not unlabelled:
        labels, classes = numbered(written)
    elif len(unlabelled) < len(written):
        raise ValueError(f"{name} has no label for {unlabelled[0]}, but for others: expected one for each, or for none")
    elif all(folders):
        labels, classes = numbered(folders, sorted(set(folders)))
    return TarSource(name, rows, labels, classes)


def _folder_of(member: Member) -> str:
    return PurePosixPath(member.name).parent.name.removesuffix(".tar")


def index(tar: Path) -> list[Member]:
    """Return the regular files in a tar file and in tar files in it, without hidden ones. Reads headers only.

    Raises a ValueError for a file that is no tar file, damaged or compressed.
    """
    with tar.open("rb") as file:
        return list(_index(file, str(tar), 0, tar.stat().st_size, ""))


def head(tar: Path, member: Member, size: int) -> bytes:
    """Return the first bytes of a member, at most `size`."""
    with tar.open("rb") as file:
        file.seek(member.offset)
        return file.read(min(size, member.size))


def _index(file: BinaryIO, name: str, start: int, size: int, prefix: str) -> Iterator[Member]:
    """Yield the members of the tar file that lies in `file` from byte `start` on, `size` bytes long."""
    try:
        file.seek(start)
        archive = tarfile.TarFile(fileobj=file)
        while (found := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # the list would grow with every file
            if found.offset_data + found.size > start + size:
                raise tarfile.ReadError(f"it ends inside {found.name}")
            inside = prefix + found.name.removeprefix("./")
            if not found.isreg() or PurePosixPath(inside).name.startswith("."):
                continue
            if inside.endswith(".tar"):
                yield from _index(file, f"{name}/{inside}", found.offset_data, found.size, inside + "/")
            else:
                yield Member(inside, found.offset_data, found.size)
        end = archive.offset
        file.seek(end)
        if end < start + size and file.read(BLOCK).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {end}")
    except tarfile.TarError as error:
        file.seek(start)
        if file.read(6).startswith(COMPRESSED):
            raise ValueError(f"{name} is compressed, so single images cannot be read: decompress it first") from None
        raise ValueError(f"{name} is no tar file, or damaged ({error}): get it again") from None


def _written_labels(tar: Path, members: Sequence[Member]) -> dict[str, str | int]:
    """Return the label in the .cls or .json of each sample that has one, by its key."""
    labels: dict[str, str | int] = {}
    with tar.open("rb") as file:
        for suffix in (".json", ".cls"):  # .cls comes second, so it overrules .json
            for member in members:
                if member.name == member.key + suffix:
                    file.seek(member.offset)
                    label = _label(file.read(member.size), suffix, f"{tar}/{member.name}")
                    if label is not None:
                        labels[member.key] = label
    return labels


def _label(content: bytes, suffix: str, name: str) -> str | int | None:
    """Return the label in a .cls or .json file; None where JSON has none."""
    try:
        if suffix == ".cls":
            return content.decode().strip()
        written = json.loads(content)
    except ValueError:
        raise ValueError(f"{name} holds no label: expected {'text' if suffix == '.cls' else 'JSON'}") from None
    found = [
        written[key] for key in LABEL_KEYS if isinstance(written, dict) and isinstance(written.get(key), (str, int))
    ]
    return found[0] if found else None
