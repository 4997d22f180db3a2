"""What a builder makes, and how it becomes a folder that every command reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import files, pictures, progress

TABLE = "metadata.csv"


@dataclass(frozen=True)
class Made:
    """images: uint8 (n, H, W), or (n, H, W, 3) in colour. labels: int64 (n,), indices of `classes`.

    groups: int64 (n,), indices of `group_names`: images that depend on each other; `group_kind` says what a group is.
    test: bool (n,), the images that nothing may be chosen on.
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


def write_folder(made: Made, folder: str | Path) -> Path:
    """PNG files and, written last, a table metadata.csv of path, label, split (train or test) and a group, under the
    name of its kind.

    A folder that is whole is kept as it is; one that is not is filled.
    """
    folder = Path(folder)
    table = folder / TABLE
    if table.exists():
        return table
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str, str]] = []
    with progress.bar(len(made), "writing", "image") as bar:
        for number, image in enumerate(made.images):
            path = f"images/{number:04}.png"
            (folder / path).write_bytes(pictures.png(Image.fromarray(image)))
            split = "test" if made.test[number] else "train"
            rows.append((path, made.classes[made.labels[number]], split, made.group_names[made.groups[number]]))
            bar.update()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label", "split", made.group_kind), *rows])
    files.write_bytes(table, text.getvalue().encode())
    return table


def held_out(groups: int, share: float, split_seed: int) -> np.ndarray:
    """Which of the groups are for test: bool (groups,), `share` of them, at least one, drawn by the seed."""
    drawn = np.random.default_rng(split_seed).permutation(groups)
    return np.isin(np.arange(groups), drawn[: max(1, round(share * groups))])


def numbered(names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The place of each name among the sorted different ones: int64 (n,), and those."""
    kinds, places = np.unique(np.asarray(names), return_inverse=True)
    return places.astype(np.int64), tuple(str(kind) for kind in kinds)
