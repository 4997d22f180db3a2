"""Successive halving for classification among many classes: all are begun, only the leading ones are read to the end.

Every class in K orders is C * K passes (see `likelihood`), for ImageNet 20,000 an image. With successive halving all
classes are read on the first tokens of one order, those that explain them best on more tokens, and the last few in all
K orders. Classes that are kept are read anew from the start: keys and values of hundreds of classes would not fit into
memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models import Generator
from .likelihood import Tick, check_classes, orders_of, token_log_prob, view_of, viewed


class Rung(NamedTuple):
    """One rung of successive halving: the length to which the best ceil(share * C) classes are read, at most `most`.

    passes: below 1 that share of an order's tokens, from 1 on so many orders, counted from the start; infinity is all
    K.
    """

    passes: float
    share: float = 1.0
    most: float = math.inf

    def kept(self, classes: int) -> int:
        """Return how many of C classes are read on this rung, at least one."""
        return int(max(1, min(self.most, math.ceil(self.share * classes))))

    def prefix(self, tokens: int) -> int:
        """Return the number of tokens of an order of N that a rung below 1 reads, at least one."""
        return max(1, round(self.passes * tokens))


@dataclass(frozen=True)
class SuccessiveHalving:
    """Rungs, each with more passes and no more classes than the one before.

    margin: a class more than so many nats behind the best is dropped, too; after k orders more than margin / sqrt(k),
    since a mean over k orders varies that much less. An image with one class left is done once that was read in a whole
    order. Infinity drops no class for its distance.
    """

    rungs: tuple[Rung, ...] = (
        Rung(1 / 8),
        Rung(1 / 2, 1, 120),
        Rung(1, 1, 40),
        Rung(4, 0.5, 12),
        Rung(8, 0.2, 5),
        Rung(math.inf, 0.2, 5),
    )
    margin: float = 12.0

    def __post_init__(self) -> None:
        if not self.rungs or self.rungs[0][1:] != (1.0, math.inf):
            raise ValueError("the first rung reads all classes: give it a share of 1 and no limit")
        if self.rungs[-1].passes < 1:
            raise ValueError(f"the last rung reads whole orders, at least one, got {self.rungs[-1].passes} passes")
        if not self.margin > 0:
            raise ValueError(f"the margin must be a number of nats above 0, got {self.margin}")
        for passes, share, most in self.rungs:
            if not passes > 0 or (1 <= passes < math.inf and passes != int(passes)):
                raise ValueError(f"a rung reads a share of an order or whole orders, got {passes} passes")
            if not 0 < share <= 1 or most < 1:
                raise ValueError(f"a rung is for a share of the classes and at least one, got {share} and {most}")
        for before, after in zip(self.rungs, self.rungs[1:], strict=False):
            if before.passes >= after.passes or before.share < after.share or before.most < after.most:
                raise ValueError(f"each rung reads further, and no more classes, but {after} follows {before}")

    def most_passes(self, classes: int, tokens: int, orders: int = 20) -> float:
        """Return the passes that C classes take for one image at most, C * K without successive halving.

        tokens: N, of an image. orders: K. With a finite margin it takes fewer.
        """
        passes, whole = 0.0, 0
        for rung in self.rungs:
            if rung.passes < 1:
                passes += rung.kept(classes) * rung.prefix(tokens) / tokens
            else:
                upto = int(min(rung.passes, orders))
                passes += rung.kept(classes) * (upto - whole)
                whole = upto
        return passes


def rank_classes(
    model: Generator,
    tokens: Tensor,
    classes: Sequence[int] | None = None,
    count: int = 20,
    halving: SuccessiveHalving = SuccessiveHalving(),
    mode: str | None = None,
    seed: int = 0,
    tick: Tick = lambda passes: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the classes of images by likelihood, found by successive halving: of tokens (B, N), or of several views,
    (B, V, N),

    - log p(tokens | class), its mean over the orders that were read: float32 (B, C), -inf for classes dropped before
      they were read in one whole order;
    - the classes, as columns of it, the best first: those kept for longer before others, int64 (B, C);
    - the passes taken for each image: float32 (B,).

    The orders are those of `class_log_prob`; the prefixes are of the first.
    """
    label = check_classes(model, classes)
    tokens, table = viewed(tokens, orders_of(model, count, mode, seed), count)
    every, size = tokens.flatten(0, 1), (len(tokens), len(label))
    sums, standing, reached = torch.zeros(size), torch.zeros(size), torch.zeros(size, dtype=torch.int64)
    taken, orders_read, whole = torch.zeros(len(tokens)), torch.zeros(size), 0

    def read(rows: tuple[Tensor, ...], part: Tensor, first: int = 0) -> Tensor:
        """Return the sums of log p over the orders in `part`, for the images and columns in `rows`.

        first: place of the first of these orders in the table.
        """
        image, column = (index.repeat(len(part)) for index in rows)
        place = torch.arange(len(part)).repeat_interleave(len(rows[0]))
        found = token_log_prob(model, every, part, (view_of(tokens, image, first + place), label[column], place), tick)
        return torch.cat([one.sum(1) for one in found]).view(len(part), -1).sum(0)

    for number, rung in enumerate(halving.rungs, 1):
        margin = halving.margin / math.sqrt(max(1, whole))
        running = _leading(standing, reached == number - 1, rung.kept(len(label)), margin)
        running &= (running.sum(1, keepdim=True) > 1) | (orders_read.sum(1, keepdim=True) == 0)
        rows = running.nonzero(as_tuple=True)
        passes = int(min(rung.passes, len(table)))
        if not len(rows[0]) or (rung.passes >= 1 and passes == whole):
            break
        reached[rows] = number
        if rung.passes < 1:
            length = rung.prefix(model.num_tokens)
            standing[rows] = read(rows, table[:1, :length])
            taken += running.sum(1) * length / model.num_tokens
            continue
        sums[rows] += read(rows, table[whole:passes], whole)
        orders_read[rows] = passes
        standing[rows] = sums[rows] / passes
        taken += running.sum(1) * (passes - whole)
        whole = passes
    by_standing = standing.argsort(dim=1, descending=True, stable=True)
    ranking = by_standing.gather(1, reached.gather(1, by_standing).argsort(dim=1, descending=True, stable=True))
    return torch.where(orders_read > 0, sums / orders_read, -math.inf), ranking, taken


def _leading(standing: Tensor, running: Tensor, count: int, margin: float) -> Tensor:
    """Return the best `count` of each image's running classes, those within the margin of the best: bool (B, C)."""
    score = standing.masked_fill(~running, -math.inf)
    best = score.max(1, keepdim=True).values
    kept = torch.zeros_like(running).scatter(1, score.topk(count, 1).indices, True)
    return running & kept & (score >= best - margin)
