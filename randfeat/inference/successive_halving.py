"""Classification among many classes: all of them run, and only those in front are read to the end.

Every class in K orders is C * K passes, for ImageNet 20,000 an image. In a race all classes are read on the first
tokens of one order, those that explain them best on more tokens, and the last few in all K orders. Survivors are read
anew from the start: keys and values of hundreds of classes would not fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models import Generator
from .likelihood import Tick, check_classes, orders_of, token_log_prob


class Rung(NamedTuple):
    """How far, and which classes: the best ceil(share * C) of them, but no more than `most`.

    passes: below 1 that share of an order's tokens, from 1 on so many orders, counted from the start of the race;
    infinity is all K.
    """

    passes: float
    share: float = 1.0
    most: float = math.inf

    def runners(self, classes: int) -> int:
        return int(max(1, min(self.most, math.ceil(self.share * classes))))


@dataclass(frozen=True)
class SuccessiveHalving:
    """Rungs, each with more passes and no more classes than the one before.

    margin: a class that is so many nats behind the best leaves, too; after k orders it is the margin / sqrt(k), since a
    mean over k orders varies that much less. An image with one class left is done once that was read in a whole order.
    Infinity lets no class leave early.
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
            raise ValueError("all classes start: the first rung of a race has a share of 1 and no limit")
        if self.rungs[-1].passes < 1:
            raise ValueError("the last rung of a race reads at least one whole order")
        if not self.margin > 0:
            raise ValueError(f"the margin of a race is a number of nats above 0, got {self.margin}")
        for passes, share, most in self.rungs:
            if not passes > 0 or (1 <= passes < math.inf and passes != int(passes)):
                raise ValueError(f"a rung reads a share of an order or whole orders, got {passes} passes")
            if not 0 < share <= 1 or most < 1:
                raise ValueError(f"a rung is for a share of the classes and at least one, got {share} and {most}")
        for before, after in zip(self.rungs, self.rungs[1:], strict=False):
            if before.passes >= after.passes or before.share < after.share or before.most < after.most:
                raise ValueError(f"each rung reads further, and no more classes, but {after} follows {before}")


def race_cost(classes: int, tokens: int, orders: int = 20, race: SuccessiveHalving = SuccessiveHalving()) -> float:
    """What a race among C classes costs for one image at most, in passes: readings of all N tokens for one class. In
    full it would be C * K. With a margin it costs less.
    """
    cost, whole = 0.0, 0
    for rung in race.rungs:
        if rung.passes < 1:
            cost += rung.runners(classes) * _length(rung, tokens) / tokens
        else:
            passes = int(min(rung.passes, orders))
            cost += rung.runners(classes) * (passes - whole)
            whole = passes
    return cost


def race(
    model: Generator,
    tokens: Tensor,
    classes: Sequence[int] | None = None,
    count: int = 20,
    how: SuccessiveHalving = SuccessiveHalving(),
    mode: str | None = None,
    seed: int = 0,
    tick: Tick = lambda passes: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the classes that win a race: of (B, N) tokens

    - log p(tokens | class), its mean over the orders that were read: float32 (B, C), -inf for those that left before
      they were read in one whole order;
    - the classes, as columns of it, the best first: those that came further before others, int64 (B, C);
    - the passes that it took for each image: float32 (B,).

    The orders are those of `class_log_prob`; the prefixes are of the first.
    """
    label, table = check_classes(model, classes), orders_of(model, count, mode, seed)
    size = len(tokens), len(label)
    sums, standing, reached = torch.zeros(size), torch.zeros(size), torch.zeros(size, dtype=torch.int64)
    cost, orders_read, whole = torch.zeros(len(tokens)), torch.zeros(size), 0

    def read(rows: tuple[Tensor, ...], part: Tensor) -> Tensor:
        """Return the sums of log p over the orders in `part`, for the images and columns in `rows`."""
        image, column = (index.repeat(len(part)) for index in rows)
        place = torch.arange(len(part)).repeat_interleave(len(rows[0]))
        found = token_log_prob(model, tokens, part, (image, label[column], place), tick)
        return torch.cat([one.sum(1) for one in found]).view(len(part), -1).sum(0)

    for number, rung in enumerate(how.rungs, 1):
        margin = how.margin / math.sqrt(max(1, whole))
        running = _in_front(standing, reached == number - 1, rung.runners(len(label)), margin)
        running &= (running.sum(1, keepdim=True) > 1) | (orders_read.sum(1, keepdim=True) == 0)
        rows = running.nonzero(as_tuple=True)
        passes = int(min(rung.passes, len(table)))
        if not len(rows[0]) or (rung.passes >= 1 and passes == whole):
            break
        reached[rows] = number
        if rung.passes < 1:
            length = _length(rung, model.num_tokens)
            standing[rows] = read(rows, table[:1, :length])
            cost += running.sum(1) * length / model.num_tokens
            continue
        sums[rows] += read(rows, table[whole:passes])
        orders_read[rows] = passes
        standing[rows] = sums[rows] / passes
        cost += running.sum(1) * (passes - whole)
        whole = passes
    by_standing = standing.argsort(dim=1, descending=True, stable=True)
    ranking = by_standing.gather(1, reached.gather(1, by_standing).argsort(dim=1, descending=True, stable=True))
    return torch.where(orders_read > 0, sums / orders_read, -math.inf), ranking, cost


def _in_front(standing: Tensor, running: Tensor, count: int, margin: float) -> Tensor:
    """Of the running classes of each image the best `count` that are within the margin: bool (B, C)."""
    score = standing.masked_fill(~running, -math.inf)
    best = score.max(1, keepdim=True).values
    kept = torch.zeros_like(running).scatter(1, score.topk(count, 1).indices, True)
    return running & kept & (score >= best - margin)


def _length(rung: Rung, tokens: int) -> int:
    return max(1, round(rung.passes * tokens))
