"""Extraction: the features of any number of images into a store, exactly once, and gone on with where it was stopped.

The images are cut into shards, fixed ranges of their numbers. A shard is done when its file has its name; no batch
crosses two, so what is in it does not depend on when, or by how many processes, the others were made. When all are
done, they are put together: the store is the same, byte for byte, however often it was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import files, processes, progress, store, unfinished, weights
from .data import UnreadableImage
from .encoders import Encoder, PipelineEncoder
from .settings import refuse_other
from .sources import Source, TokenSource
from .store import FeatureStore

SHARD = 512  # images, or less where their features take more than SHARD_BYTES
SHARD_BYTES = 1 << 26
MAX_WORKERS = 16
# what may differ between the run that began a store and one that goes on with it
FREE = ("model", "source.name", "shard_size")


def extract(
    encoder: Encoder,
    source: Source | TokenSource,
    directory: str | Path,
    batch_size: int = 64,
    workers: int | None = None,
    shard_size: int | None = None,
) -> FeatureStore:
    """Writes the features of all images of `source` to a store and opens it; what is done already is kept.

    Images that cannot be read are listed in its skipped.csv. batch_size: images at a time, which changes features by no
    more than rounding. workers: processes that decode; 0 decodes in this one, None starts as many as there are
    processors. shard_size: images that a kill loses at most, by default 512 or fewer; the run that begins decides.

    Inside `processes.group` every process takes its share of the shards, and the first one puts them together.
    Raises before anything is written: a ValueError for settings that cannot be or differ from those of the directory,
    and for a token cache of another tokenizer, a FileExistsError for a directory of something else. Raises a ValueError
    where no image could be read.
    """
    directory, own = Path(directory), {} if workers is None else {"workers": workers}
    for name, value, lowest in (("batch_size", batch_size, 1), *((name, value, 0) for name, value in own.items())):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
            raise ValueError(f"{name} must be a whole number from {lowest}, got {value}")
    if not len(source):
        raise ValueError(f"{source.name} holds no images")
    reader = Reader(source, None if isinstance(source, TokenSource) else encoder.prepare)
    encode = partial(_encode_tokens, check_tokens(encoder, source)) if reader.prepare is None else encoder.encode
    blank = reader.blank()
    shapes = [features.shape[1:] for features in encode(torch.from_numpy(blank[None]))]
    settings = {
        "format": store.FORMAT,
        "model": encoder.name,
        "encoder": encoder.record(),
        "specs": [*encoder.specs],
        "source": {
            "name": source.name,
            "images": len(source),
            "fingerprint": source.fingerprint(),
            "classes": source.classes,
        },
    }
    first = processes.rank() == 0
    if first and not _is_complete(directory, settings):
        unfinished.begin(directory, settings | {"shard_size": shard_size or default_shard(shapes)}, "features", FREE)
    processes.wait_for_all()
    if unfinished.is_begun(directory):
        begun = unfinished.begin(directory, settings, "features", FREE)
        shards = Shards(directory / unfinished.FOLDER, len(source), begun["shard_size"])
        run(shards, reader, encode, batch_size, default_workers() if workers is None else workers)
        processes.wait_for_all()
        if first:
            finish(directory, begun, shards, source, shapes)
    processes.wait_for_all()
    return FeatureStore.open(directory)
