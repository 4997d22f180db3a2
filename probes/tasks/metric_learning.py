"""Retrieval by the metric-learning protocol: published image lists of CUB, Cars and SOP, and the score of features.

The protocol (Song et al. 2016, arXiv 1511.06452): each image of the test classes, which no training has seen, is
searched among all the others of these classes.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..neighbors import top_k
from ..protocol import Protocol
from ..report.record import NEAREST, Record, class_means, made_with
from ..stats import bootstrap
from .retrieval import has_positive, retrieval_scores

RECALLS = {"cub": (1, 2, 4, 8), "cars": (1, 2, 4, 8), "sop": (1, 10, 100, 1000)}  # the ks that are published


@dataclass(frozen=True, eq=False)
class LabelledList:
    """Image files and their classes (n,)."""

    paths: tuple[Path, ...]
    labels: NDArray[np.intp]


def evaluate_metric_learning(
    name: str,
    features: ArrayLike,
    labels: ArrayLike,
    paths: Sequence[str],
    ks: Sequence[int] = RECALLS["cub"],
    how: Protocol = Protocol(),  # noqa: B008  immutable
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> Record:
    """Return the record of "retrieval" among the images of the test classes; the headline is Recall@`ks[0]`.

    features: (n, d), compared by cosine. labels: (n,). paths: the unique name of each image. ks: those of `RECALLS`.
    Images that are the only one of their class are searched in, but have no score. settings, fingerprints: as in
    `Record`.
    """
    start = time.perf_counter()
    x, y = np.asarray(features), np.asarray(labels)
    scores = retrieval_scores(x, y, ks=ks)
    headline, rows = f"recall_at_{ks[0]}", np.flatnonzero(has_positive(y))
    right = {metric: scores[metric] for metric in (headline, *(other for other in scores if other != headline))}
    _, near = top_k(None, x, min(NEAREST, len(x) - 1))
    arrays = {"paths": np.array(paths)[rows], "truth": y[rows], "nearest": near[rows], "gallery": np.array(paths)}
    arrays |= {"right" if metric == headline else f"right {metric}": values for metric, values in right.items()}
    counts = {"test images": len(y), "classes": len(np.unique(y))}
    return Record(
        name,
        "retrieval",
        {metric: bootstrap(values, None, how.draws, how.seed) for metric, values in right.items()},
        per_class=class_means(right[headline], y[rows]),
        settings={**how.as_dict(), **counts, **(settings or {})},
        fingerprints=dict(fingerprints or {}),
        made_with=made_with(),
        seconds=time.perf_counter() - start,
        arrays=arrays,
    )


def second_half(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return a mask (n,) of the images of the second half of the sorted classes: the test classes of CUB and Cars."""
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
