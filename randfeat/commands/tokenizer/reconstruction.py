"""Reconstructions of a data set by several tokenizers: what is measured of each image, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...data import loader
from ...data.images import CentreCrop, to_pil
from ...data.sources import Source
from ...data.values import as_tensor
from ...features.evaluators import Evaluator
from ...pretrain.vq.data import CanvasReader
from ...probes.tasks.generation import frechet_distance
from ...probes.tasks.reconstruction import ImageErrors, TokenizerQuality, image_errors
from ...tokenizers import Tokenizer
from ...utils import progress


@dataclass(frozen=True)
class Named:
    """A tokenizer and its name. note: how it was made, "" for one that was opened. given: as the user named it."""

    name: str
    tokenizer: Tokenizer
    note: str = ""
    given: str = ""


@dataclass(frozen=True)
class Outcome:
    """Reconstructions that were measured.

    rows: of the source, of the images that were read. qualities: of each tokenizer, over these. skipped: path and
    reason of each image that could not be read.
    """

    rows: list[int]
    qualities: list[TokenizerQuality]
    skipped: list[tuple[str, str]]


@dataclass(frozen=True)
class Images:
    """Images of a source, of one size, as the tokenizers take them.

    rows: of the source. size: height and width, to which images are scaled and cropped.
    """

    source: Source
    rows: Sequence[int]
    size: tuple[int, int]

    def reader(self, tokenizer: Tokenizer) -> CanvasReader:
        """Return the reader of an image's centre crop, as this tokenizer takes it."""
        return CanvasReader(self.source, CentreCrop(self.size, tokenizer.channels, tokenizer.value_range))


def check_alike(tokenizers: Sequence[Named], size: tuple[int, int]) -> None:
    """Raise a ValueError unless the tokenizers take the same images, of this height and width."""
    first = tokenizers[0]
    for one in tokenizers:
        stride = one.tokenizer.stride
        if size[0] % stride or size[1] % stride or min(size) < 1:
            raise ValueError(
                f"images of {size[0]} x {size[1]} pixels do not divide into tokens of {stride} x {stride} of "
                f"{one.name}: give another --size"
            )
        takes, wanted = (t.tokenizer.channels for t in (one, first)), (t.tokenizer.value_range for t in (one, first))
        if len(set(takes)) > 1 or len(set(wanted)) > 1:
            raise ValueError(f"{one.name} and {first.name} take images of other channels or values: compare others")


def measure(
    tokenizers: Sequence[Named],
    images: Images,
    batch_size: int = 64,
    workers: int | None = None,
    judge: Evaluator | None = None,
) -> Outcome:
    """Encode and decode images with each tokenizer, and return their errors.

    Only numbers of each image are kept, and the judge's features. batch_size: images at a time. workers: processes that
    decode files. judge: network whose features of originals and reconstructions are compared by Fréchet distance.
    Raises a ValueError where no image can be read, or a reconstruction is not finite.
    """
    check_alike(tokenizers, images.size)
    tallies = [_Tally(one) for one in tokenizers]
    originals: list[Tensor] = []
    read: list[int] = []
    skipped = []
    parts = [images.rows[i : i + batch_size] for i in range(0, len(images.rows), batch_size)]
    workers = loader.default_workers() if workers is None else workers
    with (
        ThreadPoolExecutor(loader.default_workers()) as threads,
        closing(loader.batches(images.reader(tokenizers[0].tokenizer), parts, workers)) as following,
        progress.bar(len(images.rows), "reconstructing", "image", told="") as bar,
    ):
        for part, batch in zip(parts, following, strict=True):
            skipped += [(images.source.paths[row], reason) for row, reason in batch.unread]
            if batch.arrays is not None:
                read += batch.numbers
                pixels = as_tensor(batch.arrays[0]).contiguous()
                if judge is not None:
                    originals.append(judge([to_pil(one) for one in pixels]).features)
                for tally in tallies:
                    tally.add(pixels, threads, judge)
            bar.update(len(part))
    if not read:
        raise ValueError(f"none of {len(images.rows)} images of {images.source.name} could be read: are they damaged?")
    real = torch.cat(originals) if originals else None
    return Outcome(read, [tally.finished(images.size, real) for tally in tallies], skipped)


@dataclass
class _Tally:
    """Numbers of a tokenizer's reconstructions, batch by batch."""

    named: Named
    counts: Tensor = field(init=False)
    errors: list[ImageErrors] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.named.tokenizer.vocab_size, dtype=torch.int64)

    def add(self, pixels: Tensor, threads: Executor, judge: Evaluator | None) -> None:
        tokens, made = reconstruct(self.named, pixels)
        self.counts += torch.bincount(tokens.flatten(), minlength=len(self.counts))
        self.errors.append(image_errors(pixels.numpy(), made.numpy(), self.named.tokenizer.stride, threads))
        if judge is not None:
            self.features.append(judge([to_pil(one) for one in made]).features)

    def finished(self, size: tuple[int, int], originals: Tensor | None) -> TokenizerQuality:
        frechet = None if originals is None else frechet_distance(torch.cat(self.features), originals)
        errors, stride = ImageErrors.joined(self.errors), self.named.tokenizer.stride
        return TokenizerQuality(self.named.name, errors, self.counts.numpy(), size, stride, frechet)


@torch.no_grad()
def reconstruct(named: Named, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens (B, h, w) and reconstructions (B, channels, H, W) of images, both on the CPU.

    Raises a ValueError for a reconstruction that is not finite.
    """
    device = next(iter(named.tokenizer.state_dict().values())).device
    tokens = named.tokenizer.encode(pixels.to(device))
    made = named.tokenizer.decode(tokens).float().cpu()
    if not made.isfinite().all():
        raise ValueError(f"{named.name} reconstructs images with values that are not finite: its weights are damaged")
    return tokens.cpu(), made.clamp(0, 1)


def shown(tokenizers: Sequence[Named], images: Images, rows: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a few images and their reconstructions by each tokenizer, float32 (n, channels, H, W) each."""
    reader = images.reader(tokenizers[0].tokenizer)
    pixels = as_tensor(torch.from_numpy(np.stack([reader(row)[0] for row in rows]))).contiguous()
    return pixels.numpy(), [reconstruct(one, pixels)[1].numpy() for one in tokenizers]
