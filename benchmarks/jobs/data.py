"""Token caches beside one file for each image, and `randfeat extract` of few pictures and of many."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.cases import Axis, Case, Setting
from benchmarks.measure import python
from randfeat import models
from randfeat.data.token_store import UNKNOWN, TokenStore, TokenWriter
from randfeat.pipeline.pipeline import Pipeline
from randfeat.tokenizers import PatchTokenizer

CROPS, N, VOCAB, BATCH = 2, 256, 16384, 256
IMAGENET = 1_281_167


def store_of(folder: Path, images: int) -> TokenStore:
    """Return a token cache of synthetic codes, written when it is not there yet."""
    if folder.exists():
        return TokenStore.open(folder)
    paths = [f"n{row // 1300:08}/n{row // 1300:08}_{row}.JPEG" for row in range(images)]
    about = dict(tokenizer="synthetic", grid=(16, 16), vocab_size=VOCAB, crops=CROPS)
    writer = TokenWriter(folder, paths, [row // 1300 for row in range(images)], **about)
    rng = np.random.default_rng(0)
    for start in range(0, images, 1 << 16):
        rows = min(1 << 16, images - start)
        writer.write(start, rng.integers(0, VOCAB, (rows, CROPS, N), dtype=np.uint16), np.full((rows, 2), UNKNOWN))
    return writer.finish()


def reading(setting: Setting, images: int, files: int, batches: int, side: str) -> Callable[[], None]:
    """Return a call that reads shuffled batches as training does; both layouts are in the machine's page cache."""
    store, rng = store_of(setting.scratch / "tokens", images), np.random.default_rng(1)
    if side == "ours":

        def from_store() -> None:
            for _ in range(batches):
                store.tokens[np.sort(rng.integers(0, images, BATCH))].astype(np.int64)

        return from_store
    paths = [setting.scratch / "files" / f"{row % 1000:04}" / f"{row}.npy" for row in range(files)]
    for row, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, store.tokens[row][None].astype(np.int64))

    def from_files() -> None:
        for _ in range(batches):
            np.stack([np.load(paths[row]) for row in rng.integers(0, files, BATCH)])

    return from_files


def token_cache(setting: Setting) -> Iterator[Case]:
    """Yield opening and shuffled reading; the files are int64 (1, crops, 256), as RandAR and LlamaGen publish them."""
    images = setting.pick(1_000, 20_000, IMAGENET)
    files, batches = setting.pick((500, 2), (2_000, 4), (20_000, 40))
    folder = setting.scratch / "tokens"

    def size() -> Mapping[str, Any]:
        return {"MB": sum(file.stat().st_size for file in store_of(folder, images).directory.iterdir()) // 10**6}

    def opening() -> Callable[[], Any]:
        store_of(folder, images)
        return partial(TokenStore.open, folder)

    yield Case(f"open {images:,} images", opening, unit="caches", facts=size)
    read = partial(partial, reading, setting, images, files, batches)
    label = f"read batches of {BATCH} of {images:,} images"
    yield Case(label, read("ours"), {"a file for each image": read("files")}, batches * BATCH)


# randfeat extract -----------------------------------------------------------------------------------------------------


def write_model(folder: Path) -> None:
    """Write a RandAR of 8 x 8 tokens over patches of 32 x 32 pixels, with random weights."""
    if not folder.exists():
        tokenizer = PatchTokenizer.fit(torch.rand(8, 3, 256, 256), 64, 32)
        own = dict(embed_dim=64, depth=2, num_heads=2, num_classes=0)
        Pipeline(tokenizer, models.create("randar", grid=(8, 8), vocab_size=64, **own)).save(folder)


def write_images(folder: Path, count: int) -> None:
    """Write pictures of 256 x 256 pixels that are all different."""
    if folder.exists():
        return
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        coarse.resize((256, 256)).save(folder / f"{number:06}.jpg", quality=80)


def afresh(folder: Path, call: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call that first removes what the last one wrote, which it would keep."""

    def anew() -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return call()

    return anew


def extract(setting: Setting) -> Iterator[Case]:
    """Yield the command with two processes that decode, whose peak memory should not grow."""

    def make(count: int) -> Callable[[], Any]:
        model, pictures, out = (setting.scratch / name for name in ("model", f"pictures{count}", f"features{count}"))
        write_model(model)
        write_images(pictures, count)
        words = ["-m", "randfeat", "extract", str(model), str(pictures), "-o", str(out)]
        words += ["--workers", "2", "--device", "cpu", "--spec", "raster/causal/token/L2/mean/mean"]
        run = partial(subprocess.run, python(*words), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return afresh(out, run)

    for count in setting.pick((8, 16), (100, 1_000), (1_000, 3_000, 10_000)):
        axis = Axis("randfeat extract", "images", count, IMAGENET)
        yield Case(f"extract {count:,} pictures", partial(make, count), units=count, axis=axis)
