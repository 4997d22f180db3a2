"""Shards of an extraction by Ray: its actors hold the model, on one machine or on many that see the same folders.

The files of shards are those of `extract`, so a store is the same whoever made them, a shard that is done is kept, and
one engine goes on with what the other has begun. Ray starts an actor again that was killed, with its shard.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..data.sources import open_source
from ..utils import devices, progress
from .extract import Encode, Reader, Shards, make_shards, reader_and_encode, shapes_of
from .opening import open_encoder


@dataclass(frozen=True)
class Job:
    """Settings of an extraction, by which every actor opens its own model and data.

    model, specs, device, dtype: as `open_encoder` takes them, device and dtype by name. data: arguments of
    `open_source`. batch_size: images at a time.
    """

    model: str
    specs: Sequence[str]
    device: str
    dtype: str
    data: Sequence[Any]
    batch_size: int

    def open(self) -> tuple[Reader, Encode]:
        """Open model and data: see `reader_and_encode`."""
        encoder = open_encoder(self.model, self.specs, devices.pick(self.device), getattr(torch, self.dtype))
        return reader_and_encode(encoder, open_source(*self.data))


class ShardMaker:
    """Function from batches of numbers of shards to the images in each, made once in each actor.

    folder: where the driver was started, to which relative paths belong. An error, of opening too, is returned in the
    column `error`: raised in an actor, it would reach the driver as the text of a traceback.
    """

    def __init__(self, job: Job, shards: Shards, folder: str) -> None:
        self.job, self.shards, self.folder = job, shards, folder
        self._opened: tuple[Reader, Encode, list[tuple[int, ...]]] | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write the files of the shards and return the number of images of each, or why that could not be."""
        missing = batch["shard"].tolist()
        errors = np.full(len(missing), None, object)
        try:
            self.make(missing)
        except Exception as error:
            errors[:] = error.with_traceback(None)
        return {"images": np.array([len(self.shards.numbers(shard)) for shard in missing]), "error": errors}

    def make(self, missing: list[int]) -> None:
        """Write the files of the shards."""
        if self._opened is None:
            os.chdir(self.folder)
            reader, encode = self.job.open()
            self._opened = reader, encode, shapes_of(reader, encode)
        make_shards(self.shards, missing, *self._opened, self.job.batch_size, 0, lambda images: None)


def import_ray() -> ModuleType:
    """Return Ray with Ray Data. Raises a RuntimeError that says how to get it."""
    try:
        import ray.data
    except ModuleNotFoundError:
        raise RuntimeError("the engine ray needs its package: pip install 'randfeat[ray]'") from None
    return ray


def by_ray(
    job: Job, actors: int | None = None, actor: type[ShardMaker] = ShardMaker
) -> Callable[[Shards, list[int]], None]:
    """Return the function that `extract` takes as `elsewhere`: it makes shards in Ray's actors.

    actors: how many, by default one for each GPU of the cluster, or for each processor where it has none or the device
    is the CPU. actor: class of the actors. A cluster is joined as `ray.init` finds it (RAY_ADDRESS), else one is
    started on this machine, and ended. That function raises the first error of an actor as it was raised there, and a
    RuntimeError where Ray itself fails.
    """
    ray = import_ray()

    def make(shards: Shards, missing: list[int]) -> None:
        started = not ray.is_initialized()
        if started:
            ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours tells of images
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        try:
            resources = ray.cluster_resources()
            gpus = 0 if job.device == "cpu" else int(resources.get("GPU", 0))
            count = min(len(missing), actors or gpus or max(1, int(resources.get("CPU", 1))))
            there = Shards(Path.cwd() / shards.folder, shards.images, shards.size)
            rows = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
            made = rows.map_batches(
                actor,
                fn_constructor_args=(job, there, str(Path.cwd())),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=count),
                num_gpus=1 if gpus else None,
            )
            total = sum(len(shards.numbers(shard)) for shard in missing)
            with progress.bar(total, "images", "image", told=f"; {count} actors of Ray") as bar:
                for batch in made.iter_batches(batch_size=None):
                    for error in batch["error"]:
                        if isinstance(error, Exception):  # else None, of which Ray makes NaN
                            raise error
                    bar.update(int(batch["images"].sum()))
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[0]
            raise RuntimeError(
                f"Ray ended the job ({reason}): run the same command again, what is done is kept"
            ) from None
        finally:
            if started:
                ray.shutdown()

    return make
