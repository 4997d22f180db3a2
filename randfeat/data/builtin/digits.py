"""The handwritten digits that ship with scikit-learn, split by writer.

1,797 real scans of 8 x 8 pixels in 17 grey levels (UCI "Optical Recognition of Handwritten Digits", test part).
Samples of one writer are contiguous; the borders are those that the scikit-learn MOOC gives ("Sample grouping").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import BuiltinDataset, held_out

BORDERS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
FIT, VALIDATION, TEST = range(7), range(7, 9), range(9, 14)


@dataclass(frozen=True)
class Digits:
    """Digits of some writers. images: (n, 1, 8, 8) in [0, 1]; labels, writers: int64 (n,), both counted from 0."""

    images: Tensor
    labels: Tensor
    writers: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def written_by(self, *writers: range) -> Digits:
        """Return the images of some writers, in their order."""
        rows = torch.isin(self.writers, torch.tensor([w for part in writers for w in part]))
        return Digits(self.images[rows], self.labels[rows], self.writers[rows])

    @property
    def pixels(self) -> np.ndarray:
        """Pixels as rows, float32 (n, 64) in [0, 1]."""
        return self.images.flatten(1).numpy()


def with_shifts(images: Tensor) -> Tensor:
    """Return each image, then itself moved by one pixel up, down, left and right: (n, 1, H, W) -> (n, 5, 1, H, W)."""
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1))
    corners = ((1, 1), (2, 1), (0, 1), (1, 2), (1, 0))
    return torch.stack([padded[..., y : y + height, x : x + width] for y, x in corners], 1)


def load_digits() -> Digits:
    """Return the digits of all fourteen writers."""
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    writers = torch.arange(len(BORDERS) - 1).repeat_interleave(torch.tensor(BORDERS).diff())
    return Digits(images, torch.from_numpy(bunch.target).long(), writers)


def make_digits(seed: int = 0, split_seed: int | None = None) -> BuiltinDataset:
    """Return the digits as they are, in 8 x 8 pixels; a group is a writer.

    split_seed: None takes the last five writers for test, a number draws five. seed: has no effect, nothing is drawn.
    """
    digits = load_digits()
    writers = len(BORDERS) - 1
    tests = np.isin(np.arange(writers), TEST) if split_seed is None else held_out(writers, 5 / writers, split_seed)
    return BuiltinDataset(
        (digits.images[:, 0] * 255).round().byte().numpy(),
        digits.labels.numpy(),
        digits.writers.numpy(),
        tests[digits.writers.numpy()],
        tuple(str(digit) for digit in range(10)),
        "writer",
        tuple(str(writer) for writer in range(writers)),
    )
