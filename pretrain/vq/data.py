"""Images of a training step, as pure functions of (seed, epoch, row) and of the step's number.

Each image is read as a canvas, its centre crop a little larger than what is shown; an epoch shows a part of it, perhaps
mirrored. Canvases of a small set stay in memory, those of a large one are decoded for each step by worker processes.
"""

from __future__ import annotations

from collections.abc import Generator as Stream
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from randfeat.data import loader
from randfeat.data.crop import CentreCrop
from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source
from randfeat.data.values import as_tensor
from randfeat.utils import progress, rng

from ..data import Epochs, Share
from .config import TokenizerConfig

IN_MEMORY = 2 << 30  # bytes of canvases that are kept in memory
AT_ONCE = 64  # images that are read at a time
Unread = list[tuple[int, str]]  # rows that could not be read, and the reasons


@dataclass(frozen=True)
class ImageBatch:
    """Images that go through the network at once: one piece of a step.

    images: (B, channels, H, W) in [0, 1]. moves: int64 (B, 2), pixels down and right by which latents and image are
    moved for the equivariance loss. step, piece, weight: see `trainer.Piece`.
    """

    images: Tensor
    moves: Tensor
    step: int = 0
    piece: int = 0
    weight: float = 1.0

    @property
    def shown(self) -> tuple[Tensor, Tensor, int]:
        """Arguments of the objective."""
        return self.images, self.moves, self.step

    def to(self, device: torch.device) -> ImageBatch:
        """Return the batch on a device."""
        images, moves = (x.to(device, non_blocking=True) for x in (self.images, self.moves))
        return replace(self, images=images, moves=moves)

    def pinned(self) -> ImageBatch:
        """Return the batch in pinned memory, from which a GPU copies asynchronously."""
        return replace(self, images=self.images.pin_memory(), moves=self.moves.pin_memory())


@dataclass(frozen=True)
class CanvasReader:
    """Reader of the canvas of an image by its row: uint8 or, of images with a value range, float32 (H, W, channels)."""

    source: Source
    crop: CentreCrop

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        return (self.crop.of(self.source, number),)

    @property
    def bytes_each(self) -> int:
        """Bytes of a canvas."""
        return self.crop.size[0] * self.crop.size[1] * self.crop.channels * (1 if self.crop.value_range is None else 4)


@dataclass(frozen=True)
class Canvases:
    """Canvases of some rows of a source, in memory or read when they are shown.

    rows: int64 (n,), of the source. held: the canvases (n, H, W, channels), None where they are read anew each time.
    """

    reader: CanvasReader
    rows: np.ndarray
    workers: int
    held: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, chosen: np.ndarray) -> Canvases:
        """Return some of the canvases, by their numbers here."""
        return replace(self, rows=self.rows[chosen], held=None if self.held is None else self.held[chosen])

    def in_memory(self, title: str) -> tuple[Canvases, Unread]:
        """Return the canvases that can be read, all in memory, and the others' rows and reasons."""
        if self.held is not None:
            return self, []
        kept: list[int] = []
        unread: Unread = []
        held = np.empty(
            (len(self), *self.reader.crop.size, self.reader.crop.channels),
            np.uint8 if self.reader.crop.value_range is None else np.float32,
        )
        parts = [self.rows[start : start + AT_ONCE].tolist() for start in range(0, len(self), AT_ONCE)]
        with (
            closing(loader.batches(self.reader, parts, self.workers)) as batches,
            progress.bar(len(self), title, "image", told="") as bar,
        ):
            for batch in batches:
                if batch.arrays is not None:
                    held[len(kept) : len(kept) + len(batch.numbers)] = batch.arrays[0].numpy()
                kept += batch.numbers
                unread += batch.unread
                bar.update(len(batch.numbers) + len(batch.unread))
        return replace(self, rows=np.array(kept, np.int64), held=held[: len(kept)]), unread

    def fit_in_memory(self) -> bool:
        """Return whether the canvases are small enough to keep."""
        return len(self) * self.reader.bytes_each <= IN_MEMORY


def central(pixels: np.ndarray | Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of canvases (B, H, W, channels), as floats (B, channels, *size) in [0, 1]."""
    top, left = (pixels.shape[1] - size[0]) // 2, (pixels.shape[2] - size[1]) // 2
    return as_tensor(torch.as_tensor(pixels[:, top : top + size[0], left : left + size[1]]))


class ImageBatches(Epochs):
    """Batches of images of any step."""

    def __init__(
        self,
        canvases: Canvases,
        config: TokenizerConfig,
        share: Share | None = None,
        unread: dict[int, str] | None = None,
    ) -> None:
        """unread: gets the rows that cannot be read when they are to be shown, and the reasons."""
        super().__init__(len(canvases), config.training, share)
        self.canvases, self.shown, self.unread = canvases, config.images, {} if unread is None else unread
        self.moved_share, self.reach = config.loss.equivariance, config.network.stride // 2

    def at(self, step: int) -> list[ImageBatch]:
        """Return this process's pieces of step 0, 1, ..., of canvases in memory."""
        held = self.canvases.held
        assert held is not None
        return [
            self.show(step, rows, held[rows.numpy()], piece, weight)
            for piece, weight, rows in self.share.of(self.rows(step))
        ]

    def ahead(self, first: int, pin: bool = False) -> Stream[list[ImageBatch], None, None]:
        """Yield the batches of each step from `first` to the last, prepared ahead. pin: in pinned memory."""

        def made(pieces: list[ImageBatch]) -> list[ImageBatch]:
            return [piece.pinned() for piece in pieces] if pin else pieces

        if self.canvases.held is not None:
            yield from self.prepared(lambda step: made(self.at(step)), first)
            return
        steps = _StepRows(self, first)
        with closing(loader.batches(self.canvases.reader, steps, self.canvases.workers)) as batches:
            for step in range(first, self.steps):
                yield made(self._read(step, next(batches)))

    def _read(self, step: int, batch: loader.Batch) -> list[ImageBatch]:
        """Return the pieces of a step from its decoded canvases; an unreadable image is shown as another of the step.

        Raises an UnreadableImage where the step has no readable image.
        """
        self.unread.update(batch.unread)
        if batch.arrays is None:
            raise UnreadableImage(
                f"none of the {len(batch.unread)} images of a step could be read: {batch.unread[0][1]}"
            )
        place = {number: i for i, number in enumerate(batch.numbers)}
        pieces = []
        for piece, weight, rows in self.share.of(self.rows(step)):
            numbers = self.canvases.rows[rows.numpy()].tolist()
            found = [place.get(number, i % len(place)) for i, number in enumerate(numbers)]
            pieces.append(self.show(step, rows, batch.arrays[0].numpy()[found], piece, weight))
        return pieces

    def show(self, step: int, rows: Tensor, canvases: np.ndarray, piece: int = 0, weight: float = 1.0) -> ImageBatch:
        """Return images as an epoch shows them: a part of each canvas (B, H, W, channels), perhaps mirrored."""
        epoch, shown = step // self.steps_per_epoch, self.shown
        drawn = rng.uniform(rng.derive(self.seed, epoch, 5, rows), 6)
        (height, width), beyond = shown.size, shown.shift
        room = torch.tensor([canvases.shape[1] - height, canvases.shape[2] - width]) + 2 * beyond
        corners = (drawn[:, :2] * (room + 1)).long().tolist()
        images = as_tensor(torch.as_tensor(canvases))
        if beyond:
            images = F.pad(images, (beyond,) * 4, mode="replicate")
        parts = [
            image[:, top : top + height, left : left + width]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
        mirrored = (drawn[:, 2] < 0.5) & shown.flip
        stacked = torch.stack([part.flip(-1) if m else part for part, m in zip(parts, mirrored.tolist(), strict=True)])
        moves = (drawn[:, 3:5] * (2 * self.reach + 1)).long() - self.reach
        return ImageBatch(stacked, moves * (drawn[:, 5:] < self.moved_share), step, piece, weight)


class _StepRows(Sequence[Sequence[int]]):
    """Rows of the source that this process shows in each step from `first` on, computed when they are asked for."""

    def __init__(self, batches: ImageBatches, first: int) -> None:
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        return self.batches.steps - self.first

    def __getitem__(self, i: int) -> Sequence[int]:  # type: ignore[override]
        if i >= len(self):
            raise IndexError(i)
        rows = torch.cat([rows for _, _, rows in self.batches.share.of(self.batches.rows(self.first + i))])
        return list(dict.fromkeys(self.batches.canvases.rows[rows.numpy()].tolist()))

    def __iter__(self) -> Iterator[Sequence[int]]:
        return (self[i] for i in range(len(self)))
