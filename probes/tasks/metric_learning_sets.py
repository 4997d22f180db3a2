"""Retrieval of classes never trained on: published lists of CUB, Cars and SOP, and the split of any labelled list.

The protocol (Song et al. 2016, arXiv 1511.06452): features of the images of unseen classes, each searched among all
the others, which is `retrieval_scores(x[unseen], y[unseen], ks=...)`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALLS = {"cub": (1, 2, 4, 8), "cars": (1, 2, 4, 8), "sop": (1, 10, 100, 1000)}  # the ks that are published


@dataclass(frozen=True, eq=False)
class LabelledList:
    """Image files and their classes (n,)."""

    paths: tuple[Path, ...]
    labels: NDArray[np.intp]


def second_half(labels: ArrayLike) -> NDArray[np.bool_]:
    """Marks the images (n,) of the second half of the classes in sorted order: the test classes of CUB and Cars."""
    y = np.asarray(labels)
    classes = np.unique(y)
    if y.ndim != 1 or len(classes) < 2:
        raise ValueError(f"labels have shape {y.shape} and {len(classes)} classes, expected (n,) and two or more.")
    return np.isin(y, classes[len(classes) // 2 :])


def read_cub(root: str | Path) -> LabelledList:
    """Return all images of the folder CUB_200_2011, by its images.txt and image_class_labels.txt."""
    folder = Path(root)
    names, classes = (_table(folder / name, ("id", "value")) for name in ("images.txt", "image_class_labels.txt"))
    if [row[0] for row in names] != [row[0] for row in classes]:
        raise ValueError(f"images.txt and image_class_labels.txt in {folder} number other images; unpack CUB again.")
    paths = tuple(folder / "images" / name for _, name in names)
    return LabelledList(paths, np.array([int(label) for _, label in classes], dtype=np.intp))


def read_cars(root: str | Path) -> LabelledList:
    """Return all images of Cars196, by the cars_annos.mat in the folder."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    file = _existing(Path(root) / "cars_annos.mat")
    try:
        cars = np.atleast_1d(loadmat(file, squeeze_me=True)["annotations"])
        names, labels = cars["relative_im_path"].tolist(), cars["class"].astype(np.intp)
    except (MatReadError, KeyError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{file} has no annotations with relative_im_path and class; download it again.") from error
    return LabelledList(tuple(Path(root) / name for name in names), labels)


def read_sop(root: str | Path, part: str = "test") -> LabelledList:
    """Return the "train" or "test" images of the folder Stanford_Online_Products, by its Ebay_train.txt or
    Ebay_test.txt."""
    if part not in ("train", "test"):
        raise ValueError(f"part {part!r} is unknown, expected train or test.")
    columns = ("image_id", "class_id", "super_class_id", "path")
    rows = _table(Path(root) / f"Ebay_{part}.txt", columns)[1:]  # without the header
    labels = np.array([int(row[1]) for row in rows], dtype=np.intp)
    return LabelledList(tuple(Path(root) / row[3] for row in rows), labels)


def _table(file: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """Return the words of each line of a text file."""
    rows = [line.split(maxsplit=len(columns) - 1) for line in _existing(file).read_text().splitlines() if line.strip()]
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"line {number + 1} of {file} is not {' '.join(columns)}; download it again.")
    return rows


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}; give the folder that holds {file.name}.")
    return file
