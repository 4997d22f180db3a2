"""Shards of an extraction by Ray: its actors hold the model, on one machine or on many that see the same folders.

The files of shards are those of `extract`, so a store is the same whoever made them, a shard that is done is kept, and
one engine goes on with what the other has begun. Ray starts an actor again that was killed, with its shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..data.sources import open_source
from ..utils import devices, progress
from .extract import Shards, make_shards, reader_and_encode, shapes_of
from .opening import open_encoder


class ShardMaker:
    """Function from batches of numbers of shards to the images in each, made once in each actor.

    model, specs, dtype: as `open_encoder` takes them. data: arguments of `open_source`. folder: where the driver was
    started, to which relative paths belong.
    """

    def __init__(
        self,
        model: str,
        specs: Sequence[str],
        device: str,
        dtype: str,
        data: Sequence[Any],
        batch_size: int,
        shards: Shards,
        folder: str,
    ) -> None:
        os.chdir(folder)
        encoder = open_encoder(model, specs, devices.pick(device), getattr(torch, dtype))
        self.reader, self.encode = reader_and_encode(encoder, open_source(*data))
        self.shapes = shapes_of(self.reader, self.encode)
        self.batch_size, self.shards = batch_size, shards

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Write the files of the shards and return the number of images of each."""
        missing = batch["shard"].tolist()
        how = self.reader, self.encode, self.shapes, self.batch_size, 0
        make_shards(self.shards, missing, *how, lambda images: None)
        return {"images": np.array([len(self.shards.numbers(shard)) for shard in missing])}


def import_ray() -> ModuleType:
    """Return Ray with Ray Data. Raises a RuntimeError that says how to get it."""
    try:
        import ray.data
    except ModuleNotFoundError:
        raise RuntimeError("the engine ray needs its package: pip install 'randfeat[ray]'") from None
    return ray


def by_ray(
    model: str,
    specs: Sequence[str],
    device: str,
    dtype: str,
    data: Sequence[Any],
    batch_size: int,
    actors: int | None = None,
    actor: type = ShardMaker,
) -> Callable[[Shards, list[int]], None]:
    """Return the function that `extract` takes as `elsewhere`: it makes shards in Ray's actors.

    actors: how many, by default one for each GPU of the cluster, or for each processor where it has none or `device` is
    the CPU. actor: class of the actors. A cluster is joined as `ray.init` finds it (RAY_ADDRESS), else one is started
    on this machine, and ended.
    """
    ray = import_ray()

    def make(shards: Shards, missing: list[int]) -> None:
        started = not ray.is_initialized()
        if started:
            ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
        try:
            resources = ray.cluster_resources()
            gpus = 0 if device == "cpu" else int(resources.get("GPU", 0))
            count = min(len(missing), actors or gpus or max(1, int(resources.get("CPU", 1))))
            there = Shards(Path.cwd() / shards.folder, shards.images, shards.size)
            arguments = model, specs, device, dtype, data, batch_size, there, str(Path.cwd())
            rows = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
            made = rows.map_batches(
                actor,
                fn_constructor_args=arguments,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=count),
                num_gpus=1 if gpus else None,
            )
            ray.data.DataContext.get_current().enable_progress_bars = False  # ours tells of images
            total = sum(len(shards.numbers(shard)) for shard in missing)
            with progress.bar(total, "images", "image", told=f"; {count} actors of Ray") as bar:
                for batch in made.iter_batches(batch_size=None):
                    bar.update(int(batch["images"].sum()))
        except ray.exceptions.RayError as error:
            raise RuntimeError(str(_first_cause(error))) from None
        finally:
            if started:
                ray.shutdown()

    return make


def _first_cause(error: BaseException) -> BaseException:
    """Return the error of an actor under those in which Ray wraps it."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return error
