"""Batches of a training step, as pure functions of (seed, epoch, sample) and of the step's number.

A step's images are those at its place in the epoch's shuffle. They go through the network in pieces, and each of W
processes takes every W-th piece: the number of processes changes which one computes a piece, never the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Generator as Stream
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from randfeat.inference.group_sizes import all_group_sizes
from randfeat.inference.schedules import tokens_per_step
from randfeat.models import Generator, orders
from randfeat.utils import rng

from .config import OptimConfig, TrainingConfig

Made = TypeVar("Made")


class RowSubset:
    """View of some rows of an array, which is not copied. rows: int (n,)."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows
        self.shape, self.ndim = (len(rows), *array.shape[1:]), array.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        first, *others = index if isinstance(index, tuple) else (index,)
        return self.array[(self.rows[first], *others)]


# int (n, N) or (n, crops, N) in raster space: a tensor, an array, the mapped file of a token store, or rows of it
Tokens = Tensor | np.ndarray | RowSubset


@dataclass(frozen=True)
class Batch:
    """Images that go through the network at once: one piece of a step.

    piece: its number in the step. weight: 1, or 0 for a piece that a process repeats because others have one more.
    paired: tokens (B, N) of the pictures that are paired with the images, where there are any. sizes: of the groups in
    which the order is decoded, for a model that is trained on such.
    """

    tokens: Tensor  # (B, N) raster space
    labels: Tensor  # (B,) after label dropout
    order: Tensor  # (B, N)
    piece: int = 0
    weight: float = 1.0
    paired: Tensor | None = None
    sizes: tuple[int, ...] | None = None

    @property
    def shown(self) -> tuple[Any, ...]:
        """Arguments of the objective."""
        more = (self.paired, self.sizes) if self.sizes else (self.paired,) if self.paired is not None else ()
        return self.tokens, self.labels, self.order, *more

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._with(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return the batch in pinned memory, from which a GPU copies asynchronously."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tokens, labels, order = map(change, (self.tokens, self.labels, self.order))
        paired = None if self.paired is None else change(self.paired)
        return replace(self, tokens=tokens, labels=labels, order=order, paired=paired)


@dataclass(frozen=True)
class Share:
    """Division of a step into pieces, and the pieces of one process. size: images per piece; 0 for one per process."""

    size: int = 0
    rank: int = 0
    world: int = 1

    def of(self, rows: Tensor) -> list[tuple[int, float, Tensor]]:
        """Return number, weight and rows of each piece of this process; all processes have equally many."""
        pieces = rows.split(self.size) if self.size else rows.tensor_split(min(self.world, len(rows)))
        mine = [(i, 1.0, pieces[i]) for i in range(self.rank, len(pieces), self.world)]
        missing = math.ceil(len(pieces) / self.world) - len(mine)
        return mine + [(0, 0.0, pieces[0])] * missing


class Epochs:
    """Rows of any step: each epoch shows all rows once, shuffled. The last step of one may be smaller."""

    def __init__(self, count: int, config: OptimConfig, share: Share | None = None) -> None:
        """count: rows of the data."""
        self.count, self.share, self.seed = count, share or Share(), config.seed
        self.steps, self.batch_size = config.steps, config.batch_size
        self.steps_per_epoch = math.ceil(count / config.batch_size)
        self._shuffled = -1, torch.empty(0)

    def images(self, step: int) -> int:
        """Return the number of images of step 0, 1, ..., over all processes."""
        return min(self.batch_size, self.count - step % self.steps_per_epoch * self.batch_size)

    def rows(self, step: int) -> Tensor:
        """Return the images of step 0, 1, ...: int64 (B,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        shuffled_epoch, shuffled = self._shuffled  # read at once: another thread may set another epoch
        if shuffled_epoch != epoch:
            shuffled = shuffle(self.seed, epoch, self.count)
            self._shuffled = epoch, shuffled
        return shuffled[place * self.batch_size :][: self.batch_size].long()

    def prepared(self, make: Callable[[int], Made], first: int) -> Stream[Made, None, None]:
        """Yield `make(step)` for each step from `first` to the last; a thread prepares the next one meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(make, first) if first < self.steps else None
            for step in range(first + 1, self.steps + 1):
                assert waiting is not None
                made = waiting.result()
                if step < self.steps:
                    waiting = pool.submit(make, step)
                yield made


def draw_sizes(count: int, seed: Tensor) -> tuple[int, ...]:
    """Return the sizes of the groups of one training step of LPD: one of its lists for `count` tokens, each as likely.

    For a number of tokens without published lists they are those of its cosine in 1 group, in 2, in 4, ... in N.
    """
    lists = all_group_sizes(count)
    if not lists:
        steps = [2**power for power in range(count.bit_length()) if 2**power < count]
        lists = [tuple(tokens_per_step("lpd", count, number)) for number in (*steps, count)]
    return lists[int(rng.uniform(seed, 1).item() * len(lists))]


def random_share(progress: float, until: tuple[float, float] | None) -> float:
    """Return the share of images in random order at a share of the training, see `TrainingConfig.random_until`."""
    if until is None or progress >= until[1]:
        return 0.0
    start, end = until
    return 1.0 if progress <= start else 1 - (progress - start) / (end - start)


class Batches(Epochs):
    """Batches of tokens of any step."""

    def __init__(
        self,
        tokens: Tokens,
        labels: Tensor | None,
        model: Generator,
        config: TrainingConfig,
        share: Share | None = None,
        paired: Tokens | None = None,
        another_crop: bool = False,
    ) -> None:
        """labels: (n,) class indices, or None for none. paired: further tokens, of which row i (and crop j) belongs to
        row i (and crop j) of `tokens`. another_crop: pair each image with another of its own crops instead, any of them
        equally often. Raises a ValueError where images have one crop.
        """
        super().__init__(len(tokens), config, share)
        self.tokens, self.labels, self.config, self.paired = tokens, labels, config, paired
        self.another_crop = another_crop
        if another_crop and (tokens.ndim == 2 or tokens.shape[1] < 2):
            raise ValueError("agreement is between crops of an image, and there is one of each: give more")
        self.grid, self.num_classes, self.grouped = model.grid, model.num_classes, model.grouped
        self.order = model.check_order_mode(config.order)

    def at(self, step: int) -> list[Batch]:
        """Return this process's pieces of step 0, 1, ..."""
        epoch = step // self.steps_per_epoch
        shuffled, sizes = random_share(step / self.config.steps, self.config.random_until), None
        if self.grouped:  # the same in all pieces of a step
            sizes = draw_sizes(self.grid[0] * self.grid[1], rng.derive(self.config.seed, step, 6))
        return [
            replace(self.show(epoch, rows, piece, weight, shuffled), sizes=sizes)
            for piece, weight, rows in self.share.of(self.rows(step))
        ]

    def ahead(self, first: int, pin: bool = False) -> Stream[list[Batch], None, None]:
        """Yield the batches of each step from `first` to the last, prepared ahead. pin: in pinned memory."""

        def make(step: int) -> list[Batch]:
            made = self.at(step)
            return [batch.pinned() for batch in made] if pin else made

        return self.prepared(make, first)

    def show(self, epoch: int, rows: Tensor, piece: int = 0, weight: float = 1.0, shuffled: float = 0.0) -> Batch:
        """Return images as an epoch shows them: with order, label and crop. shuffled: share of them in random order."""
        config, seeds = self.config, rng.derive(self.config.seed, epoch, 1, rows)
        order = orders.make(self.order, self.grid, seeds)
        if shuffled:
            shuffles = rng.uniform(rng.derive(config.seed, epoch, 5, rows), 1) < shuffled
            order = torch.where(shuffles, orders.random(self.grid, seeds), order)
        label = torch.full_like(rows, self.num_classes)
        if self.labels is not None:
            kept = rng.uniform(rng.derive(config.seed, epoch, 2, rows), 1)[:, 0] >= config.label_dropout
            label = torch.where(kept, self.labels[rows], label)
        crop = self._crop(epoch, rows)
        paired = None if self.paired is None else take(self.paired, rows, crop)
        if self.another_crop and crop is not None:
            paired = take(self.tokens, rows, self._other_crop(epoch, rows, crop))
        return Batch(take(self.tokens, rows, crop), label, order, piece, weight, paired)

    def _crop(self, epoch: int, rows: Tensor) -> Tensor | None:
        if self.tokens.ndim == 2:
            return None
        count, config = self.tokens.shape[1], self.config
        other, which = rng.uniform(rng.derive(config.seed, epoch, 4, rows), 2).unbind(-1)
        if config.other_crops is None:
            return (which * count).long()
        left = 1 - epoch * len(self.tokens) / (config.steps * config.batch_size)
        return (other < config.other_crops * left) * (1 + (which * (count - 1)).long()) % count

    def _other_crop(self, epoch: int, rows: Tensor, crop: Tensor) -> Tensor:
        """Return a crop of each image that is not the one given, int64 (B,)."""
        count = self.tokens.shape[1]
        steps = 1 + (rng.uniform(rng.derive(self.config.seed, epoch, 7, rows), 1)[:, 0] * (count - 1)).long()
        return (crop + steps) % count


def shuffle(seed: int, epoch: int, count: int) -> Tensor:
    """Return the epoch's random sequence of images: int32 (n,)."""
    return rng.bits(rng.derive(seed, epoch, 0), count).argsort(stable=True).int()


def take(tokens: Tokens, rows: Tensor, crop: Tensor | None = None) -> Tensor:
    """Return rows of (n, N), or of (n, crops, N) with a crop for each, as int64 (B, N); read in ascending order."""
    if isinstance(tokens, Tensor):
        return tokens[rows if crop is None else (rows, crop)].long()
    order = rows.argsort()
    index: Any = rows[order].numpy()
    index = index if crop is None else (index, crop[order].numpy())
    read = torch.empty(len(rows), tokens.shape[-1], dtype=torch.int64)
    read[order] = torch.from_numpy(tokens[index].astype(np.int64))
    return read


def as_labels(labels: Sequence[int | None] | np.ndarray | Tensor | None, num_classes: int) -> Tensor | None:
    """Return labels as int64 (n,), with the null class for an image without one."""
    if labels is None or isinstance(labels, Tensor):
        return labels if labels is None else labels.long()
    return torch.tensor([num_classes if label is None else int(label) for label in labels])
