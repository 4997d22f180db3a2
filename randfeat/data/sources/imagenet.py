"""Labels of ImageNet's flat validation images, from the development kit that came with them."""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .base import Rows

KIT = "ILSVRC2012_devkit_t12"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.[^/]*")


@dataclass(frozen=True)
class DevKit:
    """ImageNet's development kit. wnids: the classes, sorted by WordNet id as the class
    indices of papers are.

    truth: the class index of each validation image, in order. The kit's own ids, 1 to 1000, are in another order.
    """

    wnids: list[str]
    truth: list[int]


def find_kit(near: Path) -> Path | None:
    """Return the path of the kit in a folder or the one above; None if there is none."""
    places = (place for folder in (near, near.parent) for place in (folder / f"{KIT}.tar.gz", folder / KIT, folder))
    return next((place for place in places if place.exists() and is_kit(place)), None)


def is_kit(path: Path) -> bool:
    """Return whether a path is a kit: its tar.gz, the unpacked folder or its `data`, or the file of labels."""
    return path.name in (f"{KIT}.tar.gz", TRUTH) or any((path / below / TRUTH).is_file() for below in ("", "data"))


def read_kit(path: Path) -> DevKit:
    """Read a kit from any path that `is_kit` takes. Raises a ValueError for one that lacks a file."""
    if path.is_file() and path.name.endswith(".tar.gz"):
        try:
            with tarfile.open(path) as archive:
                contents = [_member(archive, path, name) for name in (META, TRUTH)]
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}): get it again") from None
    else:
        folder = path.parent if path.is_file() else path
        folder = folder if (folder / TRUTH).is_file() else folder / "data"
        for name in (META, TRUTH):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}: the labels of ImageNet's development kit need both files")
        contents = [(folder / name).read_bytes() for name in (META, TRUTH)]
    wnid_of = _wnids(contents[0], path)
    wnids = sorted(wnid_of.values())
    index_of = {wnid: index for index, wnid in enumerate(wnids)}
    try:
        return DevKit(wnids, [index_of[wnid_of[int(line)]] for line in contents[1].split()])
    except (KeyError, ValueError):
        raise ValueError(f"{TRUTH} of {path} has classes that {META} does not name: get both again") from None


def number(path: str) -> int | None:
    """Return the number of a validation image by its path, from 1; None for another image."""
    found = _NUMBER.fullmatch(path.rpartition("/")[2])
    return int(found[1]) if found else None


def truth_of(source: Rows, kit: DevKit) -> list[int | None]:
    """Return the class index of each row of a source of validation images.

    Raises a ValueError for a row that is no validation image.
    """
    labels: list[int | None] = []
    for path in source.paths:
        image = number(path)
        if image is None or not 1 <= image <= len(kit.truth):
            raise ValueError(
                f"{path} is none of the {len(kit.truth)} images that ImageNet's development kit labels: "
                "expected names such as ILSVRC2012_val_00000001.JPEG"
            )
        labels.append(kit.truth[image - 1])
    return labels


def _member(archive: tarfile.TarFile, path: Path, name: str) -> bytes:
    for member in archive:
        if member.name.endswith(f"/{name}"):
            file = archive.extractfile(member)
            if file is not None:
                return file.read()
    raise ValueError(f"{path} has no {name}: get it again")


def _wnids(meta: bytes, path: Path) -> dict[int, str]:
    """Return the WordNet id of each class by the kit's id. Inner nodes of WordNet's tree are left out."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        rows = [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), int(row["num_children"])) for row in synsets]
    except Exception as error:  # scipy lets through whatever a damaged file leads to
        raise ValueError(
            f"{META} of {path} is not that of ImageNet's development kit, or damaged: get it again"
        ) from error
    return {id: wnid for id, wnid, children in rows if children == 0}
