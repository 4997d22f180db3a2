"""Image files in a folder: flat, nested, or in a folder for each class, with or without splits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from ...utils import missing
from . import splits
from .base import EncodedSource, Labels, State, check_unique, indexed, printable, size_of, state_of

COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# not every Pillow reads the last four; their files are listed all the same, and reported when they are read
RARER = (".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif")
SUFFIXES = frozenset((*COMMON, *RARER))
ARRAY = ".npy"  # an image in some data sets, tokens in others
# of cameras' sensors, which Pillow does not develop: left out, and counted
RAW = frozenset(
    (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw")
)


class FileSource(EncodedSource):
    """Image files below a folder, one row each."""

    def __init__(
        self, name: str, root: Path, files: Sequence[str], labels: Labels = None, classes: list[str] | None = None
    ) -> None:
        """files: paths, relative to `root` where they are not absolute."""
        super().__init__(name, [printable(file) for file in files], labels, classes)
        check_unique(name, self.paths)
        self.root, self.files = str(root), files

    def file(self, i: int) -> str:
        return os.path.join(self.root, self.files[i])  # noqa: PTH118  absolute ones stay

    def sizes(self) -> Iterable[int]:
        return (size_of(os.path.join(self.root, file)) for file in self.files)  # noqa: PTH118

    def states(self) -> Iterable[State]:
        return (state_of(os.path.join(self.root, file)) for file in self.files)  # noqa: PTH118


def part_of(root: Path, files: Sequence[str], split: str | None) -> str:
    """Return the name of the folder of a split; "" where there are no splits.

    files: those that `walk` found below `root`. There are splits if all folders that hold images are called like ones.
    """
    holding = {file.partition("/")[0] for file in files}
    parts = [name for name in holding if splits.is_split(name) or splits.same(name, split)]
    return "" if split is None and len(parts) < len(holding) else splits.choose(str(root), parts, split)


def open_folder(root: Path, files: Sequence[str], part: str = "") -> FileSource:
    """Return the source of those files, which `walk` found below `root`, that lie in its folder `part`.

    Folders with images directly below it are classes, in sorted order as in torchvision's ImageFolder; where images lie
    beside these folders there are no labels. Classes are counted over all splits, so that an index means the same in
    each.
    """
    parts = [file.split("/", 1) for file in files if "/" in file] if part else [["", file] for file in files]
    in_splits = [rest for name, rest in parts if name == part or splits.is_split(name)]
    within = f"{part}/" if part else ""
    files = [file for file in files if file.startswith(within)]
    rest = [file[len(within) :] for file in files]
    if loose := [file for file in rest if "/" not in file]:
        if len(loose) < len(rest):
            warnings.warn(
                f"{len(loose):,} of {len(rest):,} images of {root / part} lie beside its folders, such as "
                f"{printable(loose[0])}, so the folders are no classes and no image has a label: move those images "
                "where that is not meant.",
                stacklevel=2,
            )
        return FileSource(str(root), root, files)
    classes = sorted({file.partition("/")[0] for file in in_splits if "/" in file})
    labels = indexed([file.partition("/")[0] for file in rest], classes)
    return FileSource(str(root), root, files, labels, [printable(name) for name in classes])


def is_image(name: str, suffixes: Set[str] = SUFFIXES) -> bool:
    """Return whether a file is an image by its suffix, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122  fast


def find_images(given: Iterable[Path]) -> list[Path]:
    """Return the files given, and the images below each folder given, sorted; arrays of a folder without others.

    Hidden files are left out of folders, as by `walk`, and kept where they are named.
    Raises a FileNotFoundError for a path without a file or folder, and a ValueError for a folder without images.
    """
    found: list[Path] = []
    for path in given:
        if not path.exists():
            what_then = missing.did_you_mean(path) or ": give image files, or folders of them"
            raise FileNotFoundError(f"there is no {path}{what_then}")
        below = [path]
        if path.is_dir():
            below = sorted(path / file for file in without_raw(path, walk(path, SUFFIXES | RAW)) or walk(path, {ARRAY}))
        if not below:
            raise ValueError(f"{path} holds no image: give image files, or folders of them")
        found += below
    return found


def without_raw(root: Path, files: Iterable[str]) -> list[str]:
    """Return the files, below `root`, that are not RAW; warn of those that are, with their number and the first."""
    kept: list[str] = []
    raw: list[str] = []
    for file in files:
        (raw if os.path.splitext(file)[1].lower() in RAW else kept).append(file)  # noqa: PTH122
    if raw:
        warnings.warn(
            f"{len(raw):,} raw files of cameras in {root} are left out, such as {printable(raw[0])}: export them as "
            "JPEG or TIFF to have them read.",
            stacklevel=3,
        )
    return kept


def walk(root: Path, suffixes: Set[str] = SUFFIXES) -> list[str]:
    """Return the files below `root` with one of the suffixes, as sorted relative paths with slashes.

    Hidden files and folders are left out. Links are followed, but not in circles; broken links are listed. No file is
    opened, so a million take seconds.
    """
    return sorted(_walk(str(root), "", suffixes, ()))


def _walk(root: str, below: str, suffixes: Set[str], above: tuple[str, ...]) -> Iterator[str]:
    here = os.path.join(root, below)  # noqa: PTH118
    prefix = f"{below}/" if below else ""
    folders = []
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append((entry.name, entry.is_symlink()))
                continue
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
            if suffix in suffixes and (entry.is_symlink() or entry.is_file()):
                yield prefix + entry.name
    for name, linked in folders:
        real = os.path.realpath(os.path.join(here, name)) if linked else os.path.join(here, name)  # noqa: PTH118
        if linked and any(_inside(other, real) for other in (*above, os.path.realpath(here))):
            continue
        yield from _walk(root, prefix + name, suffixes, (*above, os.path.realpath(here)) if linked else above)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; a link to itself is a broken one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _inside(path: str, folder: str) -> bool:
    """Return whether a path is a folder or lies below it."""
    return path == folder or path.startswith(folder + os.sep)
