"""Feature extraction: any number of images into a feature store, each exactly once, and resumed after a stop.

The images are cut into shards, fixed ranges of their numbers. A shard is done when its file has its name, and no batch
crosses two, so its content does not depend on when, or in which process, others were made. When all are done they are
joined. So the store is the same, byte for byte, however often the extraction was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from .. import weights
from ..data import loader
from ..data.errors import reasons
from ..data.pages import warn_of_pages
from ..data.sources import Source, TokenSource
from ..data.sources.folder import FileSource
from ..data.states import Inputs, naming_changes
from ..data.store import META
from ..utils import atomic, distributed, progress
from ..utils.checks import check_whole_number, finite_rows
from ..utils.estimates import bytes_in_words, warn_of_full_disk
from ..utils.folder_run import FolderRun, share
from ..utils.uris import check_on_disk
from . import store
from .encoder import Encoder
from .generator_encoder import GeneratorEncoder
from .store import FeatureStore

Encode: TypeAlias = "Callable[[Tensor], list[np.ndarray]]"
Reader: TypeAlias = loader.Prepared | loader.FirstCrop
Elsewhere: TypeAlias = "Callable[[Shards, list[int]], object]"

SHARD = 512  # images, fewer where their features take more than SHARD_BYTES
SHARD_BYTES = 1 << 26
# may differ between the run that began a store and one that resumes it
FREE = ("model", "source.name", "source.root", "shard_size")
RESULTS = ("count", "skipped", "left_out", "files")


def extract(
    encoder: Encoder,
    source: Source | TokenSource,
    directory: str | Path,
    batch_size: int = 64,
    workers: int | None = None,
    shard_size: int | None = None,
    elsewhere: Elsewhere | None = None,
) -> FeatureStore:
    """Write the features of all images of `source` to a store and open it; what is done already is kept.

    Images that cannot be read are listed in its skipped.csv. batch_size: images at a time, which changes features by no
    more than rounding. workers: processes that decode; 0 decodes in this one, None starts one for each processor.
    shard_size: images that a kill loses at most, by default 512 or fewer; the run that begins a store decides.
    elsewhere: makes the files of the missing shards with `make_shards` in other processes, see `ray_engine`.

    Inside `distributed.group` every process takes its share of the shards, and the first one puts them together.
    Raises before anything is written: a ValueError for settings that cannot be or differ from those of the directory,
    a FileExistsError for a directory of something else. A ValueError, too, where no image could be read, and a
    `states.StaleResult` for a complete store of images whose files have changed since.
    """
    check_on_disk(directory)
    directory, workers = Path(directory), loader.default_workers() if workers is None else workers
    for name, value, lowest in (("batch_size", batch_size, 1), ("workers", workers, 0), ("shard_size", shard_size, 1)):
        if value is not None:
            check_whole_number(name, value, lowest)
    if twice := [spec for spec, count in Counter(encoder.specs).items() if count > 1]:
        raise ValueError(f"the feature {twice[0]} is asked for twice: once is enough")
    reader, encode = reader_and_encode(encoder, source)
    record = {
        "format": FeatureStore.FORMAT,
        "model": encoder.name,
        "specs": [*encoder.specs],
        "encoder": encoder.record(),
        "source": {
            "name": source.name,
            "images": len(source),
            "classes": source.classes,
            "fingerprint": source.fingerprint(),
            "root": os.path.abspath(source.root) if isinstance(source, FileSource) else None,  # noqa: PTH100
        },
    }
    run = FolderRun(directory, record, "features", FREE, META, RESULTS)
    with naming_changes(source, directory, "features"):
        complete = run.is_complete()
        if not complete:
            run.previous()  # raises where it was begun with other settings
    if complete:
        Inputs(source, directory).check("features")
    else:
        _make(run, reader, encode, batch_size, workers, shard_size, elsewhere)
    if distributed.rank() == 0:  # a kill after the last file was written may have left it
        run.finish()
    distributed.barrier()
    return FeatureStore.open(directory)


def reader_and_encode(encoder: Encoder, source: Source | TokenSource) -> tuple[Reader, Encode]:
    """Return a reader of images of the source as arrays, and the function that turns a batch of them into features.

    Warns of TIFFs whose pages a picture leaves out (see `data.pages.warn_of_pages`).
    Raises a ValueError for tokens that the encoder cannot read.
    """
    if isinstance(source, Source):
        if encoder.value_range is None and distributed.rank() == 0:
            warn_of_pages(source)
        reader = loader.Prepared(source, encoder.prepare, encoder.example(), encoder.value_range)
        return reader, encoder.encode
    if not isinstance(encoder, GeneratorEncoder):
        raise ValueError(f"{source.name} holds tokens, which {encoder.name} cannot read: give it the images")
    encoder.check_tokens()
    tokenizer, generator = weights.fingerprint(encoder.pipeline.tokenizer), encoder.pipeline.generator
    if source.tokenizer not in (None, tokenizer):  # None: published trees of tokens do not say
        raise ValueError(
            f"{source.name} holds tokens of the tokenizer {source.tokenizer}, and {encoder.name} reads those of "
            f"{tokenizer}: tokenize the images again with its own"
        )
    if source.grid != generator.grid:
        raise ValueError(
            f"{source.name} holds {source.grid[0]} x {source.grid[1]} tokens an image, and {encoder.name} reads "
            f"{generator.grid[0]} x {generator.grid[1]}: tokenize the images at its size"
        )
    return loader.FirstCrop(source, generator.vocab_size), encoder.encode_tokens


def shapes_of(reader: Reader, encode: Encode) -> list[tuple[int, ...]]:
    """Return the shape of the features of one image for each spec."""
    return [features.shape[1:] for features in encode(torch.from_numpy(np.stack([reader.blank()])))]


@dataclass(frozen=True)
class Shards:
    """Shards of an extraction: fixed ranges of the numbers of images, and their files."""

    folder: Path
    images: int
    size: int

    def __len__(self) -> int:
        return -(-self.images // self.size)

    def numbers(self, shard: int) -> range:
        """Return the numbers of the images in a shard."""
        return range(shard * self.size, min(self.images, (shard + 1) * self.size))

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:06}.safetensors"

    def write(self, shard: int, numbers: list[int], features: list[np.ndarray], unread: list[tuple[int, str]]) -> None:
        """Write the features of the images that could be read, and the reason for each of the others."""
        tensors = {"numbers": np.array(numbers, dtype=np.int64)} | {str(i): rows for i, rows in enumerate(features)}
        atomic.write_bytes(self.path(shard), save(tensors, {"unread": json.dumps(unread)}))

    def read(self, name: str) -> Iterator[tuple[np.ndarray, list[tuple[int, str]]]]:
        """Yield of each shard `numbers` or the array of a spec, by its place, and the images that could not be read."""
        for shard in range(len(self)):
            try:
                with safe_open(self.path(shard), "np") as file:
                    array, unread = file.get_tensor(name), json.loads(file.metadata()["unread"])
            except (OSError, SafetensorError) as error:
                reason = f"{self.path(shard)} cannot be read ({error}): delete it and run the same command again"
                raise OSError(reason) from None
            yield array, unread


def default_shard(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the number of images in a shard, given the shapes of the features of one."""
    return min(SHARD, max(1, SHARD_BYTES // (4 * sum(map(prod, shapes)))))


def store_bytes(images: int, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the bytes of the features of so many images, given the shapes of those of one."""
    return 4 * images * sum(map(prod, shapes))


def _make(
    run: FolderRun,
    reader: Reader,
    encode: Encode,
    batch_size: int,
    workers: int,
    shard_size: int | None,
    elsewhere: Elsewhere | None,
) -> None:
    """Make the missing shards, each in one of the processes, and then the store."""
    shapes = shapes_of(reader, encode)
    begun = distributed.first_process_first(lambda: run.begin(shard_size=shard_size or default_shard(shapes)))
    shards = Shards(run.work, len(reader.source), begun["shard_size"])
    with run.filling():
        if distributed.rank() == 0:
            _forget_changed(Inputs(reader.source, run.work), shards)
        distributed.barrier()
        _fill(run, shards, reader, encode, shapes, batch_size, workers, elsewhere)
        distributed.barrier()
        if distributed.rank() == 0:
            _join(run.directory, begun, shards, reader.source, shapes)


def _forget_changed(inputs: Inputs, shards: Shards) -> None:
    """Remove the shards of images whose files have changed since they were read."""
    for shard in {row // shards.size for row in inputs.begin()}:
        shards.path(shard).unlink(missing_ok=True)


def _fill(
    run: FolderRun,
    shards: Shards,
    reader: Reader,
    encode: Encode,
    shapes: Sequence[tuple[int, ...]],
    batch_size: int,
    workers: int,
    elsewhere: Elsewhere | None,
) -> None:
    """Make the missing shards of this process's share."""
    missing = run.missing([shards.path(shard) for shard in range(len(shards))])
    total, left = (sum(len(shards.numbers(shard)) for shard in some) for some in (share(len(shards)), missing))
    what = f"images ({total - left:,} were there)" if left < total else "images"
    needed = store_bytes(len(reader.source), shapes)
    if distributed.rank() == 0 and missing:  # shards stay until the store is complete
        warn_of_full_disk(run.directory, needed + store_bytes(left * distributed.world_size(), shapes))
    if elsewhere is not None:
        if missing:
            elsewhere(shards, missing)
        return
    told = f"; {len(shapes):,} feature spec{'s' * (len(shapes) > 1)}, which take {bytes_in_words(needed)}"
    with progress.bar(total, what, "image", done=total - left, shown=distributed.rank() == 0, told=told) as bar:
        make_shards(shards, missing, reader, encode, shapes, batch_size, workers, bar.update)


def make_shards(
    shards: Shards,
    missing: Sequence[int],
    reader: Reader,
    encode: Encode,
    shapes: Sequence[tuple[int, ...]],
    batch_size: int,
    workers: int,
    update: Callable[[int], object],
) -> None:
    """Write the files of the shards `missing`. update: called with the number of images that were done."""
    inputs = Inputs(reader.source, shards.folder)
    parts = {shard: _cut(shards.numbers(shard), batch_size) for shard in missing}
    in_order = [part for shard in missing for part in parts[shard]]
    with closing(loader.batches(reader, in_order, workers)) as following:
        for shard in missing:
            numbers: list[int] = []
            unread: list[tuple[int, str]] = []
            features = [[np.empty((0, *shape), np.float32)] for shape in shapes]
            for part in parts[shard]:
                batch = next(following)
                if batch.arrays is not None:
                    read = encode(*batch.arrays)
                    refuse_infinite(read, [reader.source.paths[number] for number in batch.numbers])
                    for rows, new in zip(features, read, strict=True):
                        rows.append(new)
                numbers += batch.numbers
                unread += batch.unread
                update(len(part))
            inputs.add_digests(shards.numbers(shard))
            shards.write(shard, numbers, [np.concatenate(rows) for rows in features], unread)


def _join(
    directory: Path,
    begun: dict[str, Any],
    shards: Shards,
    source: Source | TokenSource,
    shapes: Sequence[tuple[int, ...]],
) -> None:
    """Join the shards. None is removed before the store is complete."""
    numbers, unread, left_out = [], [], []
    for array, others in shards.read("numbers"):
        numbers += array.tolist()
        unread += [(source.paths[number], reason) for number, reason in others]
        left_out += [number for number, _ in others]
    if not numbers:
        shutil.rmtree(shards.folder)
        with suppress(OSError):  # somebody else may have put files there
            directory.rmdir()
        raise ValueError(f"none of the {len(source):,} images of {source.name} could be read: {reasons(unread)}")
    labels = None if source.labels is None else [source.labels[number] for number in numbers]
    columns = [[source.paths[number] for number in numbers], labels or [None] * len(numbers)]
    table = pa.table(columns, schema=FeatureStore.ROW_SCHEMA)
    record = {name: begun[name] for name in ("model", "specs", "encoder", "source")} | {"left_out": left_out}
    features = [(array for array, _ in shards.read(str(spec)) if len(array)) for spec in range(len(shapes))]
    Inputs(source, shards.folder).copy_to(directory)
    store.write(directory, record, table, shapes, features, unread)


def _cut(numbers: range, size: int) -> list[range]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def refuse_infinite(features: Sequence[np.ndarray], paths: Sequence[str]) -> None:
    """Raise a ValueError that names the first image with a feature that is not finite."""
    for rows in features:
        finite = finite_rows(rows)
        if not finite.all():
            path = paths[int(finite.argmin())]
            raise ValueError(f"the features of {path} are not finite: try --dtype float32, or look at the weights")
