"""Tokenization of a data set: every crop of every image through the tokenizer, into a token store.

Each batch is written as it is made, each row in its place: a stopped run resumes, also in another number of processes,
and makes the same store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from randfeat import weights
from randfeat.data import loader
from randfeat.data.crop import AnyImage, CentreCrop, are_pictures, kind_of, naming, row_of
from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source, TokenSource
from randfeat.data.states import Inputs, naming_changes
from randfeat.data.token_store import UNKNOWN, TokenStore, TokenWriter
from randfeat.data.values import as_tensor
from randfeat.tokenizers import PatchTokenizer, Tokenizer, name_of
from randfeat.utils import atomic, distributed, progress
from randfeat.utils.checks import check_whole_number
from randfeat.utils.estimates import bytes_in_words, warn_of_full_disk

from .checks import check_crops
from .crops import Crops

SHARD = 512  # consecutive images of one process
FITTED = 2000  # largest number of images that a patch tokenizer is fitted to
Encode = Callable[..., tuple[np.ndarray, np.ndarray]]


def tokenize_images(
    tokenizer: Tokenizer,
    source: Source,
    directory: str | Path,
    crops: Crops,
    batch_size: int = 64,
    workers: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> TokenStore:
    """Write the tokens of all crops of all images of `source`, with the tokenizer beside them, and return the store.

    Rows that are written already are kept; images that cannot be read are listed in its skipped.csv. Inside
    `distributed.group` every process takes its share.

    batch_size: crops that go through the tokenizer at once. workers: decoding processes, as in `extract`.
    dtype: of the tokenizer's arithmetic; bfloat16 is faster and changes about one in eight of LlamaGen's tokens, so the
        store records it.

    Raises a ValueError for settings that are impossible or differ from those of the directory, and a FileExistsError
    where the directory holds something else, and a `states.StaleResult` for a complete store of images whose files have
    changed since.
    """
    check_crops(tokenizer, crops)
    check_whole_number("batch_size", batch_size, 1)
    device = next(iter(tokenizer.state_dict().values())).device

    @torch.no_grad()
    def encode(pixels: Tensor, sizes: Tensor) -> tuple[np.ndarray, np.ndarray]:
        flat = pixels.flatten(0, 1)
        tokens = []
        for part in flat.split(batch_size):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                tokens.append(tokenizer.encode(as_tensor(part.to(device))).flatten(1).cpu())
        return torch.cat(tokens).unflatten(0, pixels.shape[:2]).numpy(), sizes.numpy()

    more = {"crops": str(crops), "dtype": str(dtype).removeprefix("torch.")}
    grid = crops.size[0] // tokenizer.stride, crops.size[1] // tokenizer.stride
    about = dict(tokenizer=weights.fingerprint(tokenizer), grid=grid, vocab_size=tokenizer.vocab_size)
    about["config"] = {"name": name_of(tokenizer), **tokenizer.config}
    at_once = max(1, batch_size // crops.count)
    reader = CropReader(source, crops)
    return _write_store(reader, encode, directory, about, crops.count, more, at_once, workers, tokenizer)


def import_tokens(
    source: TokenSource,
    directory: str | Path,
    vocab_size: int,
    tokenizer: Tokenizer | None = None,
    workers: int | None = None,
) -> TokenStore:
    """Write tokens of another program (`sources.tokens`) into a token store, after checking each, and return the store.

    vocab_size: of their tokenizer. tokenizer: the one that made them, where it is available. Every image needs as many
    crops as the first. Files that hold no tokens are skipped and listed. Raises as `tokenize_images` does.
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

    reader = TokenReader(source, crops, vocab_size)
    return _write_store(reader, encode, directory, about, crops, {"crops": "as published"}, 64, workers, tokenizer)


def fit_patches(
    source: Source,
    size: tuple[int, int],
    patch: int = 4,
    vocab_size: int = 1024,
    seed: int = 0,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> PatchTokenizer:
    """Return a patch tokenizer fitted to at most `FITTED` images of a source.

    size: height and width in pixels. patch: pixels per token along one side. channels, value_range: of images that are
    no pictures of 8 bits, see `images.kind_of`. Raises a ValueError where no image can be read, or one does not fit.
    """
    rows = np.random.default_rng(seed).permutation(len(source))[:FITTED]
    read = source.read if are_pictures(channels, value_range) else source.values
    images: dict[int, AnyImage] = {}
    with progress.waiting(f"reading {len(rows):,} images to fit patches to"):
        for row in rows.tolist():
            try:
                images[row] = read(row)
            except UnreadableImage:
                continue
    if not images:
        raise ValueError(f"none of {len(rows)} images of {source.name} could be read: are they damaged?")
    crop = CentreCrop(size, *kind_of(images.values(), source.name, channels, value_range))
    crops = []
    for row, image in images.items():
        with naming(source.paths[row]):
            crops.append(crop(image))
    unit = as_tensor(torch.from_numpy(np.stack(crops)))
    with progress.waiting(f"fitting {vocab_size:,} patches to {len(images):,} images by k-means"):
        return PatchTokenizer.fit(unit, vocab_size, patch, seed, value_range=crop.value_range)


@dataclass(frozen=True)
class CropReader:
    """Reader of an image by its row: its crops, (crops, h, w, channels), and its width and height."""

    source: Source
    crops: Crops

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        image = row_of(self.source, number, self.crops.value_range)
        size = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
        with naming(self.source.paths[number]):
            return self.crops(image, number), np.array(size)


@dataclass(frozen=True)
class TokenReader:
    """Reader of an image's tokens by its row: int64 (crops, N), and an unknown size."""

    source: TokenSource
    crops: int
    vocab_size: int

    def __call__(self, number: int) -> tuple[np.ndarray, ...]:
        tokens = self.source.tokens(number).astype(np.int64)
        if len(tokens) != self.crops:
            raise UnreadableImage(f"{len(tokens)} crops, where the first image has {self.crops}")
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ValueError(f"it has tokens {tokens.min()} to {tokens.max()}, of a vocabulary of {self.vocab_size}")
        return tokens, np.array([UNKNOWN, UNKNOWN])


def _write_store(
    reader: CropReader | TokenReader,
    encode: Encode,
    directory: str | Path,
    about: Mapping[str, Any],
    crops: int,
    more: Mapping[str, Any],
    batch_size: int,
    workers: int | None,
    tokenizer: Tokenizer | None,
) -> TokenStore:
    source, directory = reader.source, Path(directory)
    more = {**more, "source": {"name": source.name, "fingerprint": source.fingerprint()}}

    def begin() -> TokenWriter:
        return TokenWriter(
            directory, source.paths, source.labels, crops=crops, classes=source.classes, more=more, **about
        )

    with naming_changes(source, directory, "tokens"):
        writer = distributed.first_process_first(begin)
    if writer.complete:
        Inputs(source, directory).check("tokens")
    else:
        inputs = Inputs(source, writer.run.work)
        with writer.run.filling():
            if distributed.rank() == 0:
                writer.forget(inputs.begin())
            distributed.barrier()
            if distributed.rank() == 0 and tokenizer is not None and not (directory / weights.TOKENIZER).exists():
                _save(tokenizer, directory / weights.TOKENIZER)
            unread = _fill(writer, inputs, reader, encode, batch_size, workers)
            if distributed.rank() == 0:
                inputs.copy_to(directory)
                writer.finish(unread)
    return TokenStore.open(directory)


def _fill(
    writer: TokenWriter,
    inputs: Inputs,
    reader: CropReader | TokenReader,
    encode: Encode,
    batch_size: int,
    workers: int | None,
) -> dict[int, str]:
    """Write the missing rows of this process's share; return why rows, of all shares, could not be read."""
    missing = writer.missing()
    mine = missing[missing // SHARD % distributed.world_size() == distributed.rank()]
    runs = np.split(mine, np.flatnonzero((np.diff(mine) != 1) | (np.diff(mine // SHARD) != 0)) + 1)
    parts = [
        range(run[0], run[-1] + 1)[i : i + batch_size]
        for run in runs
        if len(run)
        for i in range(0, len(run), batch_size)
    ]
    total, shown = len(reader.source), distributed.rank() == 0
    each = math.prod(writer.shape[1:]) * writer.dtype.itemsize
    if shown and len(missing):  # unfinished tokens stay until the store is complete
        warn_of_full_disk(writer.directory, each * (total + len(missing)))
    told = f"; {writer.shape[1]:,} crop{'s' * (writer.shape[1] > 1)} of each, whose tokens take "
    told += bytes_in_words(each * total)
    unread: dict[int, str] = {}
    workers = loader.default_workers() if workers is None else workers
    with (
        closing(loader.batches(reader, parts, workers)) as following,
        progress.bar(total, "images", "image", done=total - len(mine), shown=shown, told=told) as bar,
    ):
        for part in parts:
            batch = next(following)
            unread |= dict(batch.unread)
            inputs.add_digests(part)
            if batch.arrays is not None:
                tokens, sizes = encode(*batch.arrays)
                numbers = np.array(batch.numbers)
                gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
                for rows in np.split(np.arange(len(numbers)), gaps):
                    writer.write(int(numbers[rows[0]]), tokens[rows], sizes[rows])
            bar.update(len(part))
    return {number: reason for share in distributed.all_gather_object(unread) for number, reason in share.items()}


def _save(tokenizer: Tokenizer, directory: Path) -> None:
    with atomic.replace_directory(directory, lambda _: False) as made:
        weights.write(made, {"name": name_of(tokenizer), **tokenizer.config}, tokenizer.state_dict())
