"""A folder of samples: PNG files, a grid of the first, one `.npz` for evaluators, and the settings of it all.

Image i is a function of its number and the settings alone. So a folder can be gone on with after a kill, by another
number of processes, or to a larger count, and ends as if it had been made at once (up to float rounding between
batches).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import models, tokenizers, weights
from ..data import conditions
from ..data import images as data
from ..data.labels import Label
from ..inference.extrapolation import Extrapolation
from ..inference.sampling import Sampling
from ..utils import arrays, atomic, distributed, drawing, progress, rng
from ..utils.checks import check_whole_number
from ..utils.resume import check_same_settings
from .pipeline import Pipeline

IMAGES, GRID, NPZ, LABELS, SETTINGS = "images", "grid.png", "samples.npz", "labels.csv", "settings.json"
CONTROL = "control.png"
COUNT = 16  # images where neither a count nor classes are given
IN_GRID = 64  # images at most
IN_SHEET = 16  # images with their conditions at most
# what may differ between the run that began a folder and one that goes on with it
FREE = ("model", "count", "made_with")


def write_samples(
    model: Pipeline,
    directory: str | Path,
    count: int | None = None,
    classes: Sequence[Label] = (),
    balanced: bool = False,
    sampling: Sampling | None = None,
    seed: int = 0,
    order: Sequence[int] | None = None,
    extrapolation: Extrapolation | None = None,
    batch_size: int = 64,
    model_name: str = "",
    control: data.Images | None = None,
    control_type: str | None = None,
) -> Path:
    """Fill `directory` with samples and returns it; what is there already, with the same settings, is kept.

    It holds images/000000.png ..., grid.png, samples.npz (see `arrays.write_images`), labels.csv and settings.json.
    Pixels are rounded to 8 bits. count: by default one for each class named, or of all if balanced, else 16. classes:
    image i is of classes[i % len(classes)]; with none named, `balanced` goes round all classes, and otherwise each
    image's seed draws its class. seed: image i has the seed `seed + i`. order: one permutation for all images.
    model_name: kept in the settings for the record. control: images that steer the samples in turn, as many samples by
    default; then control.png shows the first conditions, the samples, and the conditions of the samples. The rest is as
    in `Pipeline.sample`.

    Inside `distributed.group` every process makes its share, and the first one the rest. Raises before anything is
    written: a ValueError for settings that cannot be or differ from those of the folder, a FileExistsError for a
    folder of something else.
    """
    directory, sampling = Path(directory), sampling or model.sampling
    named = model.classes.indices(classes)
    if balanced and named:
        raise ValueError("balanced goes round all classes: leave out balanced, or the classes")
    if balanced and not model.classes.count:
        raise ValueError("this model has no classes to balance: leave balanced out")
    shown = None if control is None else model.conditions(control, control_type).cpu()
    if count is None:
        count = max(len(named), 0 if shown is None else len(shown)) or (model.classes.count if balanced else COUNT)
    for name, value in (("count", count), ("batch_size", batch_size)):
        check_whole_number(name, value, 1)
    if order is not None and torch.as_tensor(order).ndim != 1:
        raise ValueError("a folder has one order for all of its images, (N,): several were given")
    seeds = rng.of_images(seed, count)
    model.check_sampling(sampling, order, extrapolation, shown, conditions.GIVEN)
    round_of = named or list(range(model.classes.count if balanced else 0))
    labels = class_indices(seeds, round_of, model.classes.count)
    first = distributed.rank() == 0
    if first:
        settings = {
            "format": "samples of randfeat",
            "generator": {"name": models.name_of(model.generator), **model.generator.config},
            "tokenizer": {"name": tokenizers.name_of(model.tokenizer), **model.tokenizer.config},
            "dtype": str(model.generator.dtype).removeprefix("torch."),
            "weights": weights.fingerprint(model.generator, model.tokenizer),
            "sampling": sampling.as_dict(),
            "control": None if shown is None else {"pictures": hashlib.sha256(shown.numpy().tobytes()).hexdigest()},
            "seed": seed,
            "classes": named,
            "balanced": balanced,
            "order": None if order is None else [int(position) for position in order],
            "extrapolation": None if extrapolation is None else asdict(extrapolation),
            "model": model_name,
            "count": count,
            "made_with": {name: version(name) for name in ("randfeat", "torch")}
            | {"device": str(model.generator.device)},
        }
        begin(directory, json.loads(json.dumps(settings, default=lambda of_numpy: of_numpy.item())))
    distributed.barrier()
    _draw(model, directory, labels, seeds, sampling, order, extrapolation, batch_size, shown)
    distributed.barrier()
    if first:
        _finish(model, directory, labels, seeds, len(round_of))
        if shown is not None:
            samples = [_open(image_path(directory, number)) for number in range(min(count, IN_SHEET))]
            atomic.write_bytes(directory / CONTROL, drawing.png(control_sheet(model, shown, samples)))
    return directory


def image_path(directory: Path, number: int) -> Path:
    return directory / IMAGES / f"{number:06}.png"


def class_indices(seeds: Tensor, round_of: Sequence[int], classes: int) -> Tensor:
    """Return the class of each image: those of `round_of` in turn, else one of `classes` that its seed draws. int64
    (N,).

    Without classes it is the null class.
    """
    if round_of:
        return torch.tensor(round_of)[torch.arange(len(seeds)) % len(round_of)]
    return rng.bits(rng.derive(seeds, 4), 1)[:, 0] % max(classes, 1)


def begin(directory: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or goes on with one of the same settings; anything else is refused."""
    path = directory / SETTINGS
    if directory.exists() and not path.is_file():
        if not directory.is_dir() or any(not inside.name.startswith(".") for inside in directory.iterdir()):
            raise FileExistsError(f"{directory} exists and is no folder of samples: choose another directory (--out)")
    elif path.is_file():
        before = _settings_of(path)
        check_same_settings(directory, before, settings, "samples", FREE)
        numbers = (re.fullmatch(r"(\d{6,})\.png", file.name) for file in (directory / IMAGES).glob("*.png"))
        last = max((int(number[1]) for number in numbers if number), default=-1)
        if last >= settings["count"]:
            raise ValueError(
                f"{directory} holds more than {settings['count']} images, number {last} for one: "
                "choose another directory (--out), or a larger count"
            )
    directory.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, (json.dumps(settings, indent=2) + "\n").encode())
    (directory / IMAGES).mkdir(exist_ok=True)


def _settings_of(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings["format"] == "samples of randfeat":
            return settings
    except (ValueError, KeyError, TypeError):
        pass
    raise FileExistsError(f"{path} is not one that randfeat wrote: choose another directory (--out)")


def _draw(
    model: Pipeline,
    directory: Path,
    labels: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Sequence[int] | None,
    extrapolation: Extrapolation | None,
    batch_size: int,
    control: Tensor | None,
) -> None:
    """Make the images of this process's share that are not there."""
    share = range(distributed.rank(), len(labels), distributed.world_size())
    there = {path.name for path in (directory / IMAGES).iterdir() if path.stat().st_size}
    missing = [number for number in share if image_path(directory, number).name not in there]
    done = len(share) - len(missing)
    what = f"images ({done} were there)" if done else "images"

    def save(number: int, image: Tensor) -> None:
        atomic.write_bytes(image_path(directory, number), drawing.png(data.to_pil(image)))

    with (
        progress.bar(len(share), what, "image", done=done, shown=distributed.rank() == 0) as bar,
        ThreadPoolExecutor() as pool,
    ):
        for part in torch.tensor(missing, dtype=torch.int64).split(batch_size) if missing else ():
            wanted: list[Label] = [None if label == model.classes.count else label for label in labels[part].tolist()]
            how = sampling, seeds[part].tolist(), order, extrapolation, batch_size
            steer: dict[str, Any] = {}
            if control is not None:
                steer = {"control": control[part % len(control)], "control_type": conditions.GIVEN}
            images = model.sample(wanted, *how, **steer)
            list(pool.map(save, part.tolist(), images.cpu()))
            bar.update(len(part))


def _finish(model: Pipeline, directory: Path, labels: Tensor, seeds: Tensor, turn: int) -> None:
    """What is made of all images: the grid, the list of labels, the archive. turn: classes that go round, 0 if none."""
    paths = [image_path(directory, number) for number in range(len(labels))]
    names = [model.classes.short(label) for label in labels.tolist()]
    columns = turn if 2 <= turn <= 10 else None  # a column for each class
    shown = len(paths) if len(paths) <= IN_GRID else IN_GRID - IN_GRID % (columns or 1)
    captions = names[:shown] if model.classes.count else None
    picture = drawing.grid([_open(path) for path in paths[:shown]], columns, captions)
    atomic.write_bytes(directory / GRID, drawing.png(picture))

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class", "name", "seed"))
    for path, label, name, seed in zip(paths, labels.tolist(), names, seeds.tolist(), strict=True):
        rows.writerow((f"{IMAGES}/{path.name}", label, name, seed))
    atomic.write_bytes(directory / LABELS, table.getvalue().encode())

    if arrays.count_images(directory / NPZ) != len(paths):
        arrays.write_images(directory / NPZ, paths, labels.tolist() if model.classes.count else None)


def control_sheet(model: Pipeline, control: Tensor, samples: Sequence[Image.Image]) -> Image.Image:
    """Return a row of two samples or so: the condition (of conditions (n, c, H, W) in turn), the sample and, where one
    can be computed, the condition of the sample.
    """
    kind, shown = model.generator.config["control"]["kind"], []
    captions = ["condition", "sample", *([] if kind == conditions.GIVEN else ["its condition"])]
    for number, sample in enumerate(samples):
        shown += [data.to_pil(control[number % len(control)]), sample]
        if kind != conditions.GIVEN:
            shown.append(data.to_pil(model.conditions(sample)[0]))
    columns = len(captions) * min(2, len(samples))
    return drawing.grid([one.convert("RGB") for one in shown], columns, captions * len(samples))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError) as error:
        raise OSError(f"{path} is no picture any more ({error}): delete it and run the same again") from None
