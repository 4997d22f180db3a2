"""IDX files, the form of MNIST, Fashion-MNIST, KMNIST and EMNIST: all images of a split in one file, labels in another.

The format is that of Y. LeCun's page of MNIST: two zero bytes, a code of the type, the number of dimensions, each of
these as 4 bytes, then the values; all numbers are big-endian.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from ...utils import atomic
from ..decode import UnreadableImage
from . import splits
from .base import Labels, Source

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
BELOW = ("", "raw", "gzip")  # folders that hold the files: the one named, torchvision's, and that of EMNIST's archive
NAME = re.compile(r"(?P<stem>[\w.-]*?)[-._]?(?P<kind>images|labels)[-.]idx\d[-.](ubyte|int)(\.gz|\.xz)?")
EMNIST = "emnist-"  # names of its files begin so; its images are stored transposed
CLASSES = "classes.txt"  # beside the files: names of the classes, one a line
PACKED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}  # by first bytes
TEST = re.compile(r"(^|[-._])t10k$")

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_LABELS = {  # SHA-256 of its files of labels, decompressed
    "train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_held: WeakValueDictionary[tuple[str, int, int], np.ndarray] = WeakValueDictionary()  # what sources of this process use


@dataclass(frozen=True)
class Part:
    """Files of one split.

    name: of the split, `train` or `test` with what stands before these in the files' names. images, labels: the files;
    labels are None where there is no such file.
    """

    name: str
    images: Path
    labels: Path | None = None


class IDXSource(Source):
    """Images of one IDX file. A plain file is mapped; a compressed one is decompressed once in each process."""

    def __init__(self, name: str, part: Part, labels: Labels = None, classes: list[str] | None = None) -> None:
        self.file, self.transposed = part.images, part.images.name.lower().startswith(EMNIST)
        self._images: np.ndarray | None = read_idx(part.images, "images")
        count, width = len(self._images), max(5, len(str(len(self._images) - 1)))
        super().__init__(name, [f"{part.name}/{row:0{width}}" for row in range(count)], labels, classes)

    @property
    def images(self) -> np.ndarray:
        """Images as the file holds them, uint8 (n, H, W); an UnreadableImage where it is no longer as it was."""
        if self._images is None:
            try:
                self._images = read_idx(self.file, "images")
            except (ValueError, OSError) as error:
                raise UnreadableImage(str(error)) from None
        return self._images

    def read(self, i: int) -> Image.Image:
        return Image.fromarray(self.values(i)[..., 0])

    def values(self, i: int) -> np.ndarray:
        """Return row i as uint8 (H, W, 1), a copy."""
        try:
            image = self.images[i]
        except IndexError:
            raise UnreadableImage(f"{self.file.name} has {len(self.images)} images now") from None
        return np.array(image.T if self.transposed else image, order="C")[..., None]

    def sizes(self) -> Iterable[int]:
        """Return of each row the bytes of all images, so that a compressed file is the same data set as a plain one."""
        return [self.images.nbytes] * len(self)

    def fingerprint(self) -> str:
        """Return a SHA-256 over the rows and over the pixels, since all files of a shape have the same sizes."""
        pixels = hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()
        return hashlib.sha256(f"{super().fingerprint()} {pixels}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None}  # another process maps or decompresses the file itself


def is_idx(name: str) -> bool:
    """Return whether a file of images or labels is IDX by its name."""
    return NAME.fullmatch(name.lower()) is not None


def find_parts(root: Path) -> dict[str, Part]:
    """Return the splits whose files of images lie in a folder, or in its `raw` or `gzip`, by name; {} if there is none.

    Names are `train` and `test`, with what stands before these in the files' names where the folder holds several sets.
    A file is preferred to the same file compressed. Raises a ValueError for two files of one split.
    """
    for folder in (root / below for below in BELOW):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if parts := _parts(folder, [name for name in names if is_idx(name)]):
            return parts
    return {}


def open_folder(name: str, parts: Mapping[str, Part], split: str | None) -> IDXSource:
    """Return the source of a split among `parts`, those that `find_parts` found. Raises a ValueError as `open_file`."""
    ends = [_end(stem) for stem in parts]
    several = len(set(ends)) < len(ends)  # EMNIST has six sets
    by_name = {stem if several else end: part for (stem, part), end in zip(parts.items(), ends, strict=True)}
    chosen = by_name[splits.choose(name, by_name, split)]
    return _open(name, chosen, [part for part in parts.values() if _set(part.name) == _set(chosen.name)])


def open_file(path: Path, split: str | None = None) -> IDXSource:
    """Return the source of a file of images, with the labels that lie beside it under a name of the same beginning.

    Raises a ValueError for a file of labels, or one that `read_idx` does not read.
    """
    parts = find_parts(path.parent)
    found = NAME.fullmatch(path.name.lower())
    if found is None or found["kind"] != "images":
        raise ValueError(f"{path} is a file of labels: give the file of images beside it, or the folder of both")
    stem = _stem(found["stem"])
    if split is not None:
        splits.choose(str(path), [_end(stem)] if splits.is_split(_end(stem)) else [], split)
    part = Part(stem, path, parts[stem].labels if stem in parts else None)
    return _open(str(path), part, [one for one in parts.values() if _set(one.name) == _set(stem)])


def read_idx(path: Path, kind: str) -> np.ndarray:
    """Return what an IDX file holds: images, uint8 (n, H, W), or labels, integers (n,). It is read-only.

    kind: `images` or `labels`. A plain file is mapped, a compressed one decompressed, unless this process has it in
    use. Labels may be a table as QMNIST's, (n, columns), whose first column is the class. Raises a ValueError for a
    file that is not complete, or holds something else.
    """
    stat = path.stat()
    key = str(path.resolve()), stat.st_mtime_ns, stat.st_size
    held = _held.get(key)
    if held is None:
        held = _held[key] = _read(path)
    are_images, are_labels = held.ndim == 3 and held.dtype == np.uint8, held.ndim < 3 and held.dtype.kind in "ui"
    if 0 in held.shape or not (are_images if kind == "images" else are_labels):
        wanted = "unsigned bytes (n, height, width)" if kind == "images" else "integers (n,)"
        raise ValueError(f"{path} holds {held.dtype.name} of shape {held.shape}: expected {kind}, {wanted}")
    return held[:, 0] if kind == "labels" and held.ndim == 2 else held


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array of one of the six types of IDX, compressed where the name ends in .gz or .xz, the smaller one."""
    content = _content(values)
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    elif path.suffix == ".xz":
        content = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
    atomic.write_bytes(path, content)


def digest(values: np.ndarray) -> str:
    """Return the SHA-256, in hex, of the plain file that `write_idx` writes."""
    return hashlib.sha256(_content(values)).hexdigest()


def _content(values: np.ndarray) -> bytes:
    """Return the content of the IDX file of an array."""
    code = next((code for code, kind in TYPES.items() if np.dtype(kind) == values.dtype.newbyteorder(">")), None)
    if code is None:
        raise ValueError(f"IDX has no type {values.dtype}: give uint8, int8, int16, int32, float32 or float64")
    head = bytes([0, 0, code, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + np.ascontiguousarray(values, TYPES[code]).tobytes()


def _read(path: Path) -> np.ndarray:
    """Return the array in an IDX file, mapped or decompressed."""
    with path.open("rb") as file:
        begin = file.read(max(map(len, PACKED)))
        opener = next((opener for mark, opener in PACKED.items() if begin.startswith(mark)), None)
        if opener is None:
            size = path.stat().st_size
            file.seek(0)
            dtype, shape, start = _header(path, file.read(4 + 4 * 255), size)
            return np.memmap(path, dtype, "r", start, shape) if math.prod(shape) else np.empty(shape, dtype)
    try:
        with opener(path) as packed:
            content = packed.read()
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged: get it again") from error
    dtype, shape, start = _header(path, content, len(content))
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _header(path: Path, head: bytes, size: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return the type, the shape, and the place of the first value of a file of `size` bytes that begins with `head`.

    Raises a ValueError where the size is another one than these make.
    """
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not head[3]:
        begins = head[:4].hex(" ") or "nothing"
        raise ValueError(f"{path} is no IDX file: it begins with {begins}, expected 00 00 08 03 for images")
    dtype, start = np.dtype(TYPES[head[2]]), 4 + 4 * head[3]
    shape = tuple(np.frombuffer(head[4:start].ljust(4 * head[3], b"\0"), ">u4").tolist())
    wanted = start + math.prod(shape) * dtype.itemsize
    if size != wanted:
        what = "truncated" if size < wanted else "damaged"
        raise ValueError(f"{path} is {what}: it has {size:,} bytes, expected {wanted:,} of {shape}: get it again")
    return dtype, shape, start


def _parts(folder: Path, names: Sequence[str]) -> dict[str, Part]:
    """Return the splits of the files in a folder with these names, sorted by their own."""
    files: dict[tuple[str, str], Path] = {}
    for name in sorted(names, key=lambda name: (name.lower().endswith((".gz", ".xz")), name)):  # plain files come first
        found = NAME.fullmatch(name.lower())
        assert found is not None
        key = found["kind"], _stem(found["stem"])
        there = files.setdefault(key, folder / name)
        if there.name != name and there.name != name[:-3]:
            raise ValueError(f"{folder} holds {there.name} and {name}, which are {key[0]} of one split: remove one")
    stems = sorted(stem for kind, stem in files if kind == "images")
    return {stem: Part(stem, files["images", stem], files.get(("labels", stem))) for stem in stems}


def _stem(written: str) -> str:
    """Return the name of a split by what stands before `images` in a file's name: `t10k` is `test`."""
    return TEST.sub(r"\1test", written) or "images"


def _end(stem: str) -> str:
    """Return `train` or `test` where a name ends in one, else all of it."""
    end = re.split(r"[-._]", stem)[-1]
    return end if splits.is_split(end) else stem


def _set(stem: str) -> str:
    """Return a name without the split at its end: splits of one data set share it."""
    return stem.removesuffix(_end(stem))


def _open(name: str, part: Part, siblings: Sequence[Part]) -> IDXSource:
    """Return the source of a split; classes are counted over all splits, so that an index means the same in each."""
    if part.labels is None:
        return IDXSource(name, part)
    labels = read_idx(part.labels, "labels")
    source = IDXSource(name, part)
    if len(labels) != len(source):
        raise ValueError(
            f"{part.labels} has {len(labels):,} labels, {part.images} has {len(source):,} images: expected one for each"
        )
    if labels.min() < 0:
        raise ValueError(f"{part.labels} has the label {labels.min()}: class indices count from 0")
    index_of, source.classes = _classes(part, siblings)
    source.labels = [index_of[label] for label in labels.tolist()]
    return source


def _classes(part: Part, siblings: Sequence[Part]) -> tuple[dict[int, int], list[str]]:
    """Return the class index of each label that occurs in some split, and the names of the classes.

    Names are those in CLASSES, if it is there; of Fashion-MNIST, known by the content of its labels, those that its
    authors give; of EMNIST, those in `emnist-SET-mapping.txt`, if it is there; else the labels that occur.
    """
    folder = part.images.parent
    written = [read_idx(one.labels, "labels") for one in siblings if one.labels is not None]
    ids = np.unique(np.concatenate([np.unique(labels) for labels in written])).tolist()
    top = ids[-1]
    named: list[str] = list(FASHION) if any(digest(labels) in FASHION_LABELS.values() for labels in written) else []
    if (folder / CLASSES).is_file():
        named = [line.strip() for line in (folder / CLASSES).read_text("utf-8").splitlines() if line.strip()]
        if len(named) <= top:
            raise ValueError(f"{folder / CLASSES} names {len(named)} classes, but there is the label {top}: add names")
    if named:
        return {label: label for label in range(len(named))}, named
    mapping = folder / f"{_set(part.name)}mapping.txt"
    if part.images.name.lower().startswith(EMNIST) and mapping.is_file():
        names = _mapping(mapping)
        if missing := {int(label) for labels in written for label in np.unique(labels)} - set(names):
            raise ValueError(f"{mapping} has no label {min(missing)}, which images have: get it again")
        return {label: index for index, label in enumerate(names)}, list(names.values())
    return {label: index for index, label in enumerate(ids)}, [str(label) for label in ids]


def _mapping(path: Path) -> dict[int, str]:
    """Return the characters of each label in EMNIST's mapping, sorted by label: lines of it and of character codes."""
    try:
        lines = [[int(number) for number in line.split()] for line in path.read_text().splitlines() if line.strip()]
        return dict(sorted((label, "".join(map(chr, codes))) for label, *codes in lines if codes))
    except ValueError:
        raise ValueError(f"{path} is no mapping of EMNIST: expected lines of a label and character codes") from None
