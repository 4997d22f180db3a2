"""What likelihoods say, for people: with its deviation over orders, as probabilities, as ranked names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LogProb:
    """log p(image | label) in nats. each: for every image and order, float32 (B, K)."""

    each: Tensor

    @property
    def mean(self) -> Tensor:
        """Over the orders: (B,)."""
        return self.each.mean(1)

    @property
    def std(self) -> Tensor:
        """The standard deviation over the orders: (B,), NaN for a single one."""
        if self.each.shape[1] == 1:
            return torch.full((len(self.each),), torch.nan)
        return self.each.std(1)


class Ranked(NamedTuple):
    """A class of an image: label, its index in the model; name; probability among the classes that were
    asked for; and log p(image | class) in nats.
    """

    label: int
    name: str
    probability: float
    log_prob: float


@dataclass(frozen=True, eq=False)
class Classification:
    """How likely images are under C classes.

    log_prob: mean over the orders of log p(image | class) in nats, float32 (B, C); -inf for what left a race before it
    was read in a whole order. order: columns of it, the best first, int64 (B, C); those that came further in a race
    stand before others, whatever their log_prob. indices, names: of the columns. passes: readings of one image in one
    order with one class that it took, for each image: (B,).
    """

    log_prob: Tensor
    order: Tensor
    indices: list[int]
    names: list[str]
    passes: Tensor

    @property
    def best(self) -> Tensor:
        """The index in the model of each image's best class: int64 (B,)."""
        return torch.tensor(self.indices)[self.order[:, 0]]

    @property
    def probabilities(self) -> Tensor:
        """Of the classes if all were equally likely beforehand: the softmax of `log_prob`, float32 (B, C)."""
        return self.log_prob.softmax(1)

    def top(self, k: int = 5) -> list[list[Ranked]]:
        """Return the k best classes of each image, the best first."""
        if k < 1:
            raise ValueError(f"top needs a number of classes from 1, got {k}")
        shares, found = self.probabilities, []
        for row, columns in enumerate(self.order[:, :k].tolist()):
            found.append(
                [
                    Ranked(self.indices[c], self.names[c], float(shares[row, c]), float(self.log_prob[row, c]))
                    for c in columns
                ]
            )
        return found

    def ranked(self) -> list[list[Ranked]]:
        """Return all classes of each image, the best first."""
        return self.top(len(self.indices))

    @classmethod
    def joined(cls, parts: Sequence[Classification]) -> Classification:
        """Of several batches of images one."""
        columns = [torch.cat([getattr(part, name) for part in parts]) for name in ("log_prob", "order", "passes")]
        return cls(columns[0], columns[1], parts[0].indices, parts[0].names, columns[2])
