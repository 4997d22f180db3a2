"""Images to tokens, once: every crop of every image through the tokenizer, into a token store.

Each batch is written as it is made, each row in its place. So a run that was stopped goes on where it was, in another
number of processes too, and makes the same store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randfeat import weights
from randfeat.data import loader
from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import Source, TokenSource
from randfeat.data.token_store import UNKNOWN, TokenStore, TokenWriter
from randfeat.tokenizers import PatchTokenizer, Tokenizer, name_of
from randfeat.utils import distributed, progress, resume

from .crops import CentreCrops, Crops

SHARD = 512  # images that one process does after the other
FITTED = 2000  # images that a patch tokenizer is fitted to
Encode = Callable[..., tuple[np.ndarray, np.ndarray]]


def tokenize(
    tokenizer: Tokenizer,
    source: Source,
    directory: str | Path,
    crops: Crops,
    batch_size: int = 64,
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> TokenStore:
    """Write the tokens of all crops of all images of `source`, and the tokenizer beside them, and opens the store.

    What is done already is kept; images that cannot be read are listed in its skipped.csv. batch_size: crops that go
    through the tokenizer at a time. workers: as in `extract`. dtype: of the tokenizer's arithmetic; bfloat16 is faster
    and gives other tokens, about one in eight of LlamaGen's, so the store says which.

    Inside `processes.group` every process takes its share. Raises a ValueError for settings that cannot be or differ
    from those of the directory, and a FileExistsError for a directory of something else.
    """
    stride, (height, width) = tokenizer.stride, crops.size
    if height % stride or width % stride or crops.channels != tokenizer.channels:
        raise ValueError(
            f"crops of {height} x {width} pixels and {crops.channels} channels are not for a tokenizer of "
            f"{tokenizer.channels} channels and {stride} pixels a token: choose others"
        )
    device = next(iter(tokenizer.state_dict().values())).device

    @torch.no_grad()
    def encode(pixels: Tensor, sizes: Tensor) -> tuple[np.ndarray, np.ndarray]:
        flat = pixels.flatten(0, 1).movedim(-1, 1)
        tokens = []
        for part in flat.split(batch_size):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                tokens.append(tokenizer.encode(part.to(device).float() / 255).flatten(1).cpu())
        return torch.cat(tokens).unflatten(0, pixels.shape[:2]).numpy(), sizes.numpy()

    more = {"crops": str(crops), "dtype": str(dtype).removeprefix("torch.")}
    grid = height // stride, width // stride
    about = dict(tokenizer=weights.fingerprint(tokenizer), grid=grid, vocab_size=tokenizer.vocab_size)
    about["config"] = {"name": name_of(tokenizer), **tokenizer.config}
    at_once = max(1, batch_size // crops.count)
    reader = Cropped(source, crops)
    return _make(reader, encode, directory, about, crops.count, more, at_once, workers, tokenizer)


def import_tokens(
    source: TokenSource,
    directory: str | Path,
    vocab_size: int,
    tokenizer: Tokenizer | None = None,
    workers: int | None = None,
) -> TokenStore:
    """Write tokens that somebody else made (`sources.tokens`) into a token store, each checked.

    vocab_size: of their tokenizer. tokenizer: that one, where it is at hand. Every image needs as many crops as the
    first. Files that hold no tokens are skipped and listed; else as `tokenize`.
    """
    try:
        crops = len(source.tokens(0))
    except UnreadableImage as error:
        raise ValueError(f"{source.paths[0]} of {source.name} holds no tokens: {error}") from None
    if tokenizer is not None and tokenizer.vocab_size != vocab_size:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} codes, not {vocab_size}: give one of both")
    made_by = "unknown" if tokenizer is None else weights.fingerprint(tokenizer)
    about = dict(tokenizer=made_by, grid=source.grid, vocab_size=vocab_size)

    def encode(tokens: Tensor, sizes: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return tokens.numpy(), sizes.numpy()

    reader = AllCrops(source, crops, vocab_size)
    return _make(reader, encode, directory, about, crops, {"crops": "as published"}, 64, workers, tokenizer)


def fit_patches(
    source: Source, size: tuple[int, int], patch: int = 4, vocab_size: int = 1024, seed: int = 0
) -> PatchTokenizer:
    """Return a patch tokenizer for these images, fitted to at most `FITTED` of them; grey where all of them are.

    Raises a ValueError where none of them can be read.
    """
    rows = np.random.default_rng(seed).permutation(len(source))[:FITTED]
    pictures = []
    for row in rows.tolist():
        try:
            pictures.append(source.read(row))
        except UnreadableImage:
            continue
    if not pictures:
        raise ValueError(f"none of {len(rows)} images of {source.name} could be read: are they damaged?")
    channels = 1 if all(picture.mode == "L" for picture in pictures) else 3
    crop = CentreCrops(size, channels, flip=False)
    pixels = np.concatenate([crop(picture, 0) for picture in pictures])
    return PatchTokenizer.fit(torch.from_numpy(pixels).movedim(-1, 1).float() / 255, vocab_size, patch, seed)


@dataclass(frozen=True)
class Cropped:
    """Number of an image -> its crops, uint8 (crops, h, w, channels), and its width and height."""

    source: Source
    crops: Crops

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        picture = self.source.read(number)
        return self.crops(picture, number), np.array(picture.size)


@dataclass(frozen=True)
class AllCrops:
    """Number of an image -> the tokens of its crops, int64 (crops, N), and no size."""

    source: TokenSource
    crops: int
    vocab_size: int

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        tokens = self.source.tokens(number).astype(np.int64)
        if len(tokens) != self.crops:
            raise UnreadableImage(f"{len(tokens)} crops, where the first has {self.crops}")
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(f"it has tokens {tokens.min()} to {tokens.max()}, of a vocabulary of {self.vocab_size}")
        return tokens, np.array([UNKNOWN, UNKNOWN])


def _make(
    reader: Cropped | AllCrops,
    encode: Encode,
    directory: str | Path,
    about: Mapping[str, Any],
    crops: int,
    more: Mapping[str, Any],
    batch_size: int,
    workers: int | None,
    tokenizer: Tokenizer | None,
) -> TokenStore:
    source, directory, first = reader.source, Path(directory), distributed.rank() == 0
    more = {**more, "source": {"name": source.name, "fingerprint": source.fingerprint()}}

    def begin() -> TokenWriter:
        return TokenWriter(
            directory, source.paths, source.labels, crops=crops, classes=source.classes, more=more, **about
        )

    writer = begin() if first else None
    distributed.barrier()
    writer = writer or begin()
    if not writer.complete:
        with resume.lock_unfinished(directory) if first else nullcontext():
            if first and tokenizer is not None and not (directory / weights.TOKENIZER).exists():
                _save(tokenizer, directory / weights.TOKENIZER)
            unread = _fill(writer, reader, encode, batch_size, workers)
            if first:
                writer.finish(unread)
    distributed.barrier()
    return TokenStore.open(directory)


def _fill(
    writer: TokenWriter, reader: Cropped | AllCrops, encode: Encode, batch_size: int, workers: int | None
) -> dict[int, str]:
    """Write the rows of this process's share that are not there; returns the reasons of those, of all shares, that
    could not be read."""
    missing = writer.missing()
    mine = missing[missing // SHARD % distributed.world() == distributed.rank()]
    runs = np.split(mine, np.flatnonzero((np.diff(mine) != 1) | (np.diff(mine // SHARD) != 0)) + 1)
    parts = [
        range(run[0], run[-1] + 1)[i : i + batch_size]
        for run in runs
        if len(run)
        for i in range(0, len(run), batch_size)
    ]
    total = len(reader.source)
    unread: dict[int, str] = {}
    workers = loader.default_workers() if workers is None else workers
    with (
        closing(loader.batches(reader, parts, workers)) as following,
        progress.bar(total, "images", "image", done=total - len(mine), shown=distributed.rank() == 0) as bar,
    ):
        for part in parts:
            batch = next(following)
            unread |= dict(batch.unread)
            if batch.arrays is not None:
                tokens, sizes = encode(*batch.arrays)
                numbers = np.array(batch.numbers)
                gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
                for rows in np.split(np.arange(len(numbers)), gaps):
                    writer.write(int(numbers[rows[0]]), tokens[rows], sizes[rows])
            bar.update(len(part))
    return {number: reason for share in distributed.all_gather_object(unread) for number, reason in share.items()}


def _save(tokenizer: Tokenizer, directory: Path) -> None:
    from randfeat.utils import atomic

    with atomic.replace_directory(directory, lambda _: False) as made:
        weights.write(made, {"name": name_of(tokenizer), **tokenizer.config}, tokenizer.state_dict())
