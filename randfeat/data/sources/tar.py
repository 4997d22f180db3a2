"""Images in tar files, read without unpacking: WebDataset shards, and ImageNet's tars of class tars."""

from __future__ import annotations

import io
import json
import re
import tarfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ..decode import UnreadableImage
from ..labels import as_label
from .base import EncodedSource, Labels, State, check_unique, indexed, numbered, printable
from .folder import SUFFIXES, is_image
from .remote import AnyPath, state

BLOCK = 512  # bytes of a block, the unit of tar files
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
LABEL, LABEL_KEYS = ".cls", ("label", "cls", "class", "target")  # a file's suffix, and keys in a sample's JSON
MISSING = object()  # stands for a label that no file holds


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
    def suffix(self) -> str:
        """End of its name from the last dot on."""
        return PurePosixPath(self.file).suffix

    @property
    def stem(self) -> str:
        """Name without the suffix."""
        return self.name[: len(self.name) - len(self.suffix)]

    @property
    def key(self) -> str:
        """Key of the sample in WebDataset: everything up to the first dot of the file name."""
        return self.name[: len(self.name) - len(self.file)] + self.file.partition(".")[0]


class TarRows:
    """Rows in tar files, by their offsets. A tar file is opened for each row, so any process can read it.

    paths: names of the rows, tar/member.
    """

    def __init__(self, name: str, tars: Mapping[str, AnyPath], members: Sequence[Sequence[Member]]) -> None:
        self.tars = [*tars.values()]
        self.paths = [
            printable(f"{tar}/{member.name}") for tar, inside in zip(tars, members, strict=True) for member in inside
        ]
        check_unique(name, self.paths)
        places = [(tar, member.offset, member.size) for tar, inside in enumerate(members) for member in inside]
        self.places = np.array(places, dtype=np.int64).reshape(-1, 3)

    def read(self, i: int) -> bytes:
        tar, offset, size = self.places[i].tolist()
        try:
            with self.tars[tar].open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except FileNotFoundError:
            raise UnreadableImage(f"no such file: {self.tars[tar]}") from None
        if len(content) < size:
            raise UnreadableImage("truncated")
        return content

    def sizes(self) -> Iterable[int]:
        return self.places[:, 2].tolist()

    def states(self) -> Iterable[State]:
        """Return of each row its size, and the times of its tar file."""
        times = [state(tar)[1:] for tar in self.tars]
        return ((size, *times[tar]) for tar, _, size in self.places.tolist())


class TarSource(EncodedSource):
    """Images in tar files."""

    def __init__(self, name: str, rows: TarRows, labels: Labels = None, classes: list[str] | None = None) -> None:
        super().__init__(name, rows.paths, labels, classes)
        self.rows = rows

    def file(self, i: int) -> io.BytesIO:
        return io.BytesIO(self.rows.read(i))

    def sizes(self) -> Iterable[int]:
        return self.rows.sizes()

    def states(self) -> Iterable[State]:
        return self.rows.states()


def open_tars(
    name: str, tars: Mapping[str, AnyPath], members: Sequence[Sequence[Member]], suffixes: Set[str] = SUFFIXES
) -> TarSource:
    """Return the images among the members of tar files, in their order.

    tars: path of each tar file by its name in the data set. suffixes: of images. A label is the content of a sample's
    `.cls`, else the value in its `.json` under one of LABEL_KEYS, else the name of its folder, or of its tar where each
    tar is a class of ImageNet; text labels become classes in sorted order. A file that is called like the image goes
    before that of the sample, whose name ends at the first dot; a warning says where these differ.
    """
    images: list[list[Member]] = []
    written: list[Any] = []
    folders: list[str] = []
    notes = _Notes(name)
    class_tars = all(re.fullmatch(r"n\d{8}", tar.stem) for tar in tars.values())
    for (short, tar), inside in zip(tars.items(), members, strict=True):
        images.append([member for member in inside if is_image(member.file, suffixes)])
        label_of = _written_labels(tar, inside, images[-1])
        written += [label_of.get(image.stem, label_of.get(image.key, MISSING)) for image in images[-1]]
        notes.add(short, inside, images[-1], label_of)
        folders += [tar.stem if class_tars else _folder_of(member) for member in images[-1]]
    notes.warn()
    rows = TarRows(name, tars, images)
    unlabelled = [path for path, label in zip(rows.paths, written, strict=True) if label is MISSING]
    labels: Labels = None
    classes: list[str] | None = None
    if not unlabelled:
        labels, classes = numbered(written)
    elif len(unlabelled) < len(written):
        raise ValueError(f"{name} has no label for {unlabelled[0]}, but for others: expected one for each, or for none")
    elif all(folders):
        classes = sorted(set(folders))
        labels = indexed(folders, classes)
    return TarSource(name, rows, labels, classes)


class _Notes:
    """Names with dots, of which a label can be read in two ways, and labels that belong to no image.

    In WebDataset the key of a sample ends at the first dot of a file name: `a 1.5.png` belongs to the sample `a 1`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.own: list[str] = []  # images that take the label of the file that is called like them
        self.shared: list[str] = []  # images that take the label of a sample, in which another image is called like it
        self.lost: list[str] = []  # files of labels

    def add(self, tar: str, members: Sequence[Member], images: Sequence[Member], label_of: Mapping[str, Any]) -> None:
        """Take those of a tar file. label_of: the labels that were found."""
        stems, keys = {image.stem for image in images}, {image.key for image in images}
        for image in images:
            if image.stem == image.key:
                continue
            if image.stem in label_of:
                self.own.append(f"{tar}/{image.name}")
            elif image.key in label_of and image.key in stems:
                self.shared.append(f"{tar}/{image.name}")
        labels = [member for member in members if member.suffix == LABEL]
        self.lost += [f"{tar}/{member.name}" for member in labels if member.stem not in stems | keys]

    def warn(self) -> None:
        """Warn of each kind, with the number and the first of them."""
        for found, what in (
            (self.own, "images have dots in their names and a label file called like them, which is taken, such as {}"),
            (
                self.shared,
                "images have dots in their names and take the label of the sample before the dot, such as {}",
            ),
            (self.lost, "label files belong to no image, such as {}"),
        ):
            if found:
                warnings.warn(f"{len(found):,} {what.format(found[0])}, in {self.name}.", stacklevel=4)


def _folder_of(member: Member) -> str:
    return PurePosixPath(member.name).parent.name.removesuffix(".tar")


def index(tar: AnyPath) -> list[Member]:
    """Return the regular files in a tar file and in tar files in it, without hidden ones. Reads headers only.

    Raises a ValueError for a file that is no tar file, damaged or compressed.
    """
    with tar.open("rb") as file:
        return list(_index(file, str(tar), 0, tar.stat().st_size, ""))


def head(tar: AnyPath, member: Member, size: int) -> bytes:
    """Return the first bytes of a member, at most `size`."""
    with tar.open("rb") as file:
        file.seek(member.offset)
        return file.read(min(size, member.size))


def _index(file: BinaryIO, name: str, start: int, size: int, prefix: str) -> Iterator[Member]:
    """Yield the members of the tar file that lies in `file` from byte `start` on, `size` bytes long."""
    try:
        file.seek(start)
        archive: Any = tarfile.TarFile(fileobj=file)  # reads the first header
        empty = archive.firstmember is None  # after which Python 3.10 would seek to before the file
        while not empty and (found := archive.next()) is not None:
            archive.members.clear()  # the list would grow with every file
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


def _written_labels(tar: AnyPath, members: Sequence[Member], images: Sequence[Member]) -> dict[str, Any]:
    """Return the label in each .cls or .json of images, by its name without the suffix; None of an empty one."""
    wanted = {name for image in images for name in (image.stem, image.key)}
    labels: dict[str, Any] = {}
    with tar.open("rb") as file:
        for suffix in (".json", LABEL):  # .cls comes second, so it overrules .json
            for member in members:
                if member.suffix == suffix and member.stem in wanted:
                    file.seek(member.offset)
                    label = _label(file.read(member.size), suffix, f"{tar}/{member.name}")
                    if label is not MISSING:
                        labels[member.stem] = label
    return labels


def _label(content: bytes, suffix: str, name: str) -> Any:
    """Return the label in a .cls or .json file, see `labels.as_label`; MISSING where JSON has none."""
    try:
        written = content.decode() if suffix == LABEL else json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} holds no label: expected {'text' if suffix == LABEL else 'JSON'}") from None
    if suffix != LABEL:
        found = [written[key] for key in LABEL_KEYS if isinstance(written, dict) and key in written]
        written = next((value for value in found if _is_label(value)), MISSING)
    try:
        return written if written is MISSING else as_label(written)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _is_label(value: Any) -> bool:
    """Return whether a value of JSON is a label, none, or a list of labels, rather than boxes or a record."""
    several = value if isinstance(value, list) and value else [value]
    return all(one is None or isinstance(one, (str, int, float)) for one in several)
