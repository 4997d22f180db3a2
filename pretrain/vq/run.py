"""A tokenizer's training run on disk: a recipe and images become a tokenizer, resumed where a run was stopped."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from randfeat import weights
from randfeat.data import loader
from randfeat.data.crop import CentreCrop, are_pictures, kind_of
from randfeat.data.errors import UnreadableImage
from randfeat.data.sources import Source
from randfeat.data.states import Inputs
from randfeat.data.store import SKIPPED
from randfeat.tokenizers import LlamaGenVQ, Tokenizer, adapted, name_of
from randfeat.tokenizers.llamagen_vq import PUBLISHED
from randfeat.tokenizers.quantizers import Codebook
from randfeat.utils import atomic, devices, distributed
from randfeat.utils.resume import difference
from randfeat.weights import TOKENIZER

from ..checkpoints import FORMAT as RUN_FORMAT
from ..checkpoints import HELD_OUT_INPUTS, RUN, check_free
from ..data import shuffle
from ..trainer import History, Step, train_task
from .config import TokenizerConfig
from .data import Canvases, CanvasReader, Unread
from .losses import Perceptual
from .task import Reconstruction, TokenizerTask

HELD_OUT = 0.05
MOST_HELD_OUT = 2048  # images: more make validation slower, and no surer
FORMAT = "training of a tokenizer of randfeat, version 1"
NETWORK = ("width", "multipliers", "num_res_blocks", "latent_dim", "norm_groups")  # keywords of a tokenizer
QUANTIZER = ("quantizer", "vocab_size", "code_dim", "l2_norm", "levels")
LOOKED_AT = 200  # images of which channels and range are found


def train_tokenizer(
    recipe: TokenizerConfig,
    source: Source,
    directory: str | Path,
    *,
    validation: Source | None = None,
    held_out: float = HELD_OUT,
    init: Tokenizer | None = None,
    device: str | torch.device = "auto",
    workers: int | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Reconstruction], None] | None = None,
) -> Path:
    """Train a tokenizer on images and return its directory, DIRECTORY/tokenizer, with the best weights.

    `load_tokenizer(DIRECTORY)` opens it, from the first validation on: it is written at each one that is the best so
    far, and its record says `finished` when the training is over. The same call resumes where an earlier one was
    stopped, see `train_task`, and returns at once where the training is over. Under torchrun call it inside `group()`.
    Images that cannot be read are listed in DIRECTORY/skipped.csv.

    validation: held-out images. held_out: instead, the share of images to hold out, drawn by the recipe's seed. Of
        either at most `MOST_HELD_OUT` are taken; with neither the last weights are kept.
    init: a LlamaGenVQ to start from, whose channels are adapted (see `tokenizers.adapted`).
    workers: decoding processes, as in `extract`.

    Raises a ValueError that names what does not fit together, a `states.StaleResult` for images changed since.
    """
    directory = Path(directory)
    check_free(directory)
    device, workers = devices.pick(device), loader.default_workers() if workers is None else workers
    perceptual = _perceptual(recipe)
    recipe = with_pixels(recipe, source)
    settings = {
        "recipe": {key: value for key, value in asdict(recipe).items() if key != "running"},
        "images": source.fingerprint(),
        "validation": validation.fingerprint() if validation else held_out or None,
        "init": init and weights.fingerprint(init),
    }
    inputs = [Inputs(source, directory), *([Inputs(validation, directory, HELD_OUT_INPUTS)] if validation else [])]
    if _is_complete(directory, settings):
        for one in inputs:
            one.check("a tokenizer")
        return directory / TOKENIZER
    _check_inputs(directory, inputs, settings)
    before = [one.now() for one in inputs] if distributed.rank() == 0 and not (directory / RUN).exists() else []
    tokenizer = tokenizer_of(recipe, init)
    fresh = _starts_anew(init, tokenizer)
    canvases = Canvases(_reader(recipe, source), np.arange(len(source)), workers)
    unread: Unread = []
    if fits := canvases.fit_in_memory():
        canvases, unread = canvases.in_memory("reading images")
    kept, held = _divide(recipe, canvases, validation, held_out, workers)
    _check_contents(kept)
    for one, states in zip(inputs, before, strict=False):  # none but in the process that begins a training
        one.begin(states)
        if fits:
            one.add_digests(range(len(one.source)))
    task = TokenizerTask(recipe, tokenizer.to(device), kept, held, perceptual and perceptual.to(device), fresh)

    def write(history: History, finished: bool = False) -> None:
        if distributed.rank() == 0:
            _save(task.model.tokenizer, directory / TOKENIZER, _record(settings, history, finished))

    history = train_task(
        task,
        recipe.running.runtime(),
        directory=directory,
        settings=settings,
        on_step=on_step,
        on_validation=on_validation,
        on_best=write,
    )
    for share in distributed.all_gather_object(task.unread):
        unread += share.items()
    write(history, finished=True)
    if distributed.rank() == 0 and unread:
        _list(sorted(set(unread)), source, directory / SKIPPED)
    distributed.barrier()
    return directory / TOKENIZER


def with_pixels(recipe: TokenizerConfig, source: Source) -> TokenizerConfig:
    """Return the recipe with the channels and, of images that are no pictures, the range of the source's images.

    Images are pictures unless the recipe has a value range, or a number of channels that pictures do not have.
    """
    images = recipe.images
    if images.channels is not None and (are_pictures(images.channels, None) or images.value_range is not None):
        return recipe
    rows = shuffle(recipe.training.seed, -2, len(source))[:LOOKED_AT].tolist()
    read, reasons = [], []
    for row in rows:
        try:
            read.append(source.read(row) if are_pictures(images.channels, images.value_range) else source.values(row))
        except UnreadableImage as error:
            reasons.append(f"{source.paths[row]}: {error}")
    if not read:
        raise ValueError(f"none of {len(rows)} images of {source.name} could be read, such as {reasons[0]}")
    if are_pictures(images.channels, images.value_range):
        _check_all_is_seen(source, rows[0])
    channels, value_range = kind_of(read, source.name, images.channels, images.value_range)
    return replace(recipe, images=replace(images, channels=channels, value_range=value_range))


def _check_all_is_seen(source: Source, row: int) -> None:
    """Raise a ValueError where an image has more channels than its picture shows, as a TIFF of several pages has."""
    try:
        picture, values = source.read(row), source.values(row)
    except UnreadableImage:
        return
    shown, there = len(picture.getbands()), values.shape[2]
    if there > shown + 1:  # one more may be opacity
        raise ValueError(
            f"images of {source.name} have {there} channels, of which a picture shows {shown}: give --channels {there} "
            f"for all of them, or --channels {shown}"
        )


def tokenizer_of(recipe: TokenizerConfig, init: Tokenizer | None) -> LlamaGenVQ:
    """Return a fresh tokenizer, or `init` with the channels of the images and the recipe's quantiser.

    Raises a ValueError where its network is not the recipe's.
    """
    channels, value_range = recipe.images.channels, recipe.images.value_range
    assert channels is not None
    made = recipe.build(channels, value_range)
    if init is None:
        return made
    if not isinstance(init, LlamaGenVQ):
        raise ValueError(
            f"a {name_of(init)} tokenizer cannot be trained further: give one of LlamaGen's network (--init)"
        )
    theirs, wanted = ({**PUBLISHED, **one.config} for one in (init, made))
    if other := difference(*({name: config[name] for name in NETWORK} for config in (theirs, wanted))):
        raise ValueError(
            f"the tokenizer to start from has {other}, as the recipe says: change the recipe's network, or start anew"
        )
    quantizer = {name: wanted[name] for name in QUANTIZER}
    return adapted(init, channels=channels, value_range=value_range, **quantizer)


def _starts_anew(init: Tokenizer | None, tokenizer: LlamaGenVQ) -> bool:
    """Return whether the codes of a tokenizer are not those of `init`."""
    if not isinstance(init, LlamaGenVQ) or not isinstance(init.quantize, Codebook):
        return True
    return init.quantize.code_dim != tokenizer.quantize.code_dim


def _reader(recipe: TokenizerConfig, source: Source) -> CanvasReader:
    assert recipe.images.channels is not None
    return CanvasReader(
        source, CentreCrop(recipe.images.canvas_size, recipe.images.channels, recipe.images.value_range)
    )


def _perceptual(recipe: TokenizerConfig) -> Perceptual | None:
    wanted = recipe.loss.perceptual
    if wanted.network is None:
        return None
    made = Perceptual(wanted.network, lpips=wanted.lpips)
    made.check(recipe.images.size)
    return made


def _divide(
    recipe: TokenizerConfig, canvases: Canvases, validation: Source | None, held_out: float, workers: int
) -> tuple[Canvases, Canvases | None]:
    """Return the canvases to train on and the held-out ones, in memory."""
    if validation is None and not held_out:
        return canvases, None
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a share below 1, got {held_out}")
    if validation is not None:
        whole = Canvases(_reader(recipe, validation), np.arange(len(validation)), workers)
        chosen = shuffle(recipe.training.seed, -1, len(whole))[:MOST_HELD_OUT].numpy()
        return canvases, whole.only(np.sort(chosen)).in_memory("reading held-out images")[0]
    mixed = shuffle(recipe.training.seed, -1, len(canvases)).numpy()
    count = min(MOST_HELD_OUT, round(held_out * len(canvases)))
    if not 0 < count < len(canvases):
        raise ValueError(
            f"{held_out} of {len(canvases)} images leaves none to train on, or none held out: choose another share "
            "(--held-out), or give more images"
        )
    kept, held = canvases.only(np.sort(mixed[count:])), canvases.only(np.sort(mixed[:count]))
    return kept, held.in_memory("reading held-out images")[0]


def _check_contents(canvases: Canvases) -> None:
    """Raise a ValueError where images in memory are all of one flat value."""
    held = canvases.held
    if held is not None and all(image.min() == image.max() for image in held):
        raise ValueError(
            f"all of {len(held)} images of {canvases.reader.source.name} are flat, of one value each: there is nothing "
            "to learn; check the images, or the range of their values (--range)"
        )


def trained_size(directory: str | Path) -> tuple[int, int] | None:
    """Return height and width of the images that a tokenizer was trained on, None for any other directory.

    directory: that of a run, or the tokenizer's within it.
    """
    for folder in (Path(directory) / TOKENIZER, Path(directory)):
        if (folder / weights.TRAINING).is_file():
            record = atomic.read_json(folder / weights.TRAINING, FORMAT)
            assert record is not None
            height, width = record["recipe"]["images"]["size"]
            return height, width
    return None


def _check_inputs(directory: Path, inputs: Sequence[Inputs], settings: dict[str, Any]) -> None:
    """Raise a `StaleResult` where a training of the same settings goes on whose images have changed."""
    before = atomic.read_json(directory / RUN, RUN_FORMAT)
    if before is None:
        return
    was, now = before.get("settings", {}), json.loads(json.dumps(settings))
    if difference(was, now, ("images", "validation")) is None:  # other sizes are another fingerprint
        for one in inputs:
            if was == now or one.fingerprint() in (was["images"], was["validation"]):
                one.check("a training")


def _is_complete(directory: Path, settings: dict[str, Any]) -> bool:
    """Return whether a directory holds the tokenizer of a training of these settings that is over."""
    record = atomic.read_json(directory / TOKENIZER / weights.TRAINING, FORMAT)
    now = json.loads(json.dumps(settings))
    if record is None or not record.get("finished", True):  # those of before were written at the end alone
        return False
    return {key: record[key] for key in now} == now


def _record(settings: dict[str, Any], history: History, finished: bool) -> dict[str, Any]:
    """Return the record of the training that stays beside the tokenizer."""
    return {"format": FORMAT, "finished": finished, **settings, "history": asdict(history)}


def _save(tokenizer: Tokenizer, directory: Path, record: dict[str, Any]) -> None:
    with atomic.replace_directory(directory, lambda _: True) as made:
        weights.write(made, {"name": name_of(tokenizer), **tokenizer.config}, tokenizer.state_dict())
        atomic.write_json(made / weights.TRAINING, record)


def _list(unread: Unread, source: Source, path: Path) -> None:
    """Write the table of images that could not be read."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([("path", "reason"), *((source.paths[row], reason) for row, reason in unread)])
    atomic.write_bytes(path, text.getvalue().encode())
