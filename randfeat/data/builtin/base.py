"""A built-in data set in memory, and as a folder that every command reads."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...utils import atomic, drawing, progress
from ...utils.resume import check_same_settings

TABLE, SETTINGS = "metadata.csv", "made.json"
FORMAT = "randfeat set 1"


@dataclass(frozen=True)
class BuiltinDataset:
    """A built-in data set.

    images: uint8 (n, H, W), or (n, H, W, 3) in colour. labels: int64 (n,), indices of `classes`.
    groups: int64 (n,), indices of `group_names`; images of one group depend on each other. group_kind: what a group is,
    "writer" for instance. test: bool (n,), the test images, on which nothing may be chosen.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    group_kind: str
    group_names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels) == len(self.groups) == len(self.test)

    def __len__(self) -> int:
        return len(self.images)


def is_made(folder: str | Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a folder holds the data set that was made with these settings, JSON that names it.

    Raises a ValueError for another set, and a FileExistsError for a folder of something else.
    """
    folder = Path(folder)
    before = atomic.read_json(folder / SETTINGS, FORMAT)
    if before is not None:
        check_same_settings(folder, before, {"format": FORMAT, **settings}, "a set")
        return True
    taken = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not taken.is_dir() or (taken == folder and any(folder.iterdir())):
        what = "holds something else" if taken.is_dir() else "is a file"
        raise FileExistsError(f"{taken} {what}: choose another folder (--out)")
    return False


def write_folder(made: BuiltinDataset, folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Write PNG files, a table metadata.csv, and made.json with the settings.

    The columns of the table are path, label, split (train or test), and the group, under the name of its kind. The
    folder appears when it is complete. One of the same settings is left as it is; raises as `is_made`.
    """
    if is_made(folder, settings):
        return
    with atomic.replace_directory(Path(folder), lambda _: False) as whole:
        (whole / "images").mkdir()
        rows: list[tuple[str, str, str, str]] = []
        with progress.bar(len(made), "writing", "image") as bar:
            for number, image in enumerate(made.images):
                path = f"images/{number:04}.png"
                (whole / path).write_bytes(drawing.png(Image.fromarray(image)))
                split = "test" if made.test[number] else "train"
                rows.append((path, made.classes[made.labels[number]], split, made.group_names[made.groups[number]]))
                bar.update()
        with (whole / TABLE).open("w", newline="", encoding="utf-8") as table:
            csv.writer(table, lineterminator="\n").writerows([("path", "label", "split", made.group_kind), *rows])
        atomic.write_json(whole / SETTINGS, {"format": FORMAT, **settings})


def held_out(groups: int, share: float, split_seed: int) -> np.ndarray:
    """Return the groups for test: bool (groups,), `share` of them, at least one, drawn by the seed."""
    drawn = np.random.default_rng(split_seed).permutation(groups)
    return np.isin(np.arange(groups), drawn[: max(1, round(share * groups))])


def numbered(names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the index of each name among the sorted unique names: int64 (n,), and those names."""
    kinds, places = np.unique(np.asarray(names), return_inverse=True)
    return places.astype(np.int64), tuple(str(kind) for kind in kinds)
