"""The handwritten digits that ship with scikit-learn, split by writer.

1,797 real scans of 8 x 8 pixels in 17 grey levels (UCI "Optical Recognition of Handwritten Digits", test part).
Samples of one writer are contiguous; the borders are those that the scikit-learn MOOC gives ("Sample grouping").
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from randfeat import data, files, pictures

BORDERS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
FIT, VALIDATION, TEST = range(7), range(7, 9), range(9, 14)


@dataclass(frozen=True)
class Digits:
    """images: (n, 1, 8, 8) in [0, 1]; labels, writers: int64 (n,), writers counted from 0."""

    images: Tensor
    labels: Tensor
    writers: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def written_by(self, *writers: range) -> Digits:
        """The images of some writers, in their order."""
        rows = torch.isin(self.writers, torch.tensor([w for part in writers for w in part]))
        return Digits(self.images[rows], self.labels[rows], self.writers[rows])

    @property
    def pixels(self) -> np.ndarray:
        """float32 (n, 64) in [0, 1]."""
        return self.images.flatten(1).numpy()


def with_shifts(images: Tensor) -> Tensor:
    """Each image, then itself moved by one pixel up, down, left and right: (n, 1, H, W) -> (n, 5, 1, H, W)."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1))
    corners = ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0))
    return torch.stack([padded[..., y : y + height, x : x + width] for y, x in corners], 1)


def load_digits() -> Digits:
    """All fourteen writers."""
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    writers = torch.arange(len(BORDERS) - 1).repeat_interleave(torch.tensor(BORDERS).diff())
    return Digits(images, torch.from_numpy(bunch.target).long(), writers)


def write_folder(digits: Digits, folder: Path) -> None:
    """The digits as a user would have them: PNG files and, written last, a table metadata.csv of path, label, split
    (train, or test for the last five writers) and writer. What is there is kept."""
    table = folder / "metadata.csv"
    if table.exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (image, label, writer) in enumerate(zip(digits.images, digits.labels, digits.writers, strict=True)):
        path = f"images/{number:04}.png"
        (folder / path).write_bytes(pictures.png(data.to_pil(image)))
        rows.append((path, int(label), "test" if int(writer) in TEST else "train", int(writer)))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label", "split", "writer"), *rows])
    files.write_bytes(table, text.getvalue().encode())
