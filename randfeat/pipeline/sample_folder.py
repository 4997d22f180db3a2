"""A folder of samples: PNG files, a grid of the first, one `.npz` for evaluators, and the settings of it all.

Samples of a model that reads values, of any number of channels, are TIFF files of these, without the `.npz`.

Image i is a function of its number and the settings alone. So a folder can be resumed after a kill, by another number
of processes, or to a larger count, and ends as if it had been made at once (up to float rounding between batches).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..data import conditions, tiff, values
from ..data.decode import open_values
from ..data.errors import UnfitImage, UnreadableImage
from ..data.images import Images, preview, to_pil
from ..data.labels import Label
from ..inference.extrapolation import Extrapolation
from ..inference.sampling import Sampling
from ..utils import arrays, atomic, distributed, drawing, progress, rng
from ..utils.checks import check_whole_number
from ..utils.estimates import bytes_in_words, warn_of_full_disk
from ..utils.folder_run import FolderRun, share
from .base import BATCH
from .pipeline import Pipeline

IMAGES, GRID, NPZ, LABELS = "images", "grid.png", "samples.npz", "labels.csv"
CONTROL = "control.png"
COUNT = 16  # images where neither a count nor classes are given
IN_GRID = 64  # images at most
IN_SHEET = 16  # images with their conditions at most
# may differ between the run that began a folder and one that resumes it
FREE = ("model", "count", "made_with")


@dataclass(frozen=True)
class Plan:
    """Plan of a folder: what each image is made of."""

    labels: Tensor  # (count,) class indices
    seeds: Tensor  # (count,)
    sampling: Sampling
    order: Sequence[int] | None
    extrapolation: Extrapolation | None
    control: Tensor | None  # condition images (n, c, H, W), in turn
    cycle: int  # number of classes in turn, 0 where seeds draw them
    bias: Tensor | None  # (N, V)


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
    batch_size: int = BATCH,
    model_name: str = "",
    control: Images | None = None,
    control_type: str | None = None,
    bias: Tensor | None = None,
    tick: Callable[[Tensor], object] = lambda calls: None,
) -> Path:
    """Fill `directory` with samples and return it; images that are there already, with the same settings, are kept.

    It holds images/000000.png ..., grid.png, samples.npz (see `arrays.write_images`), labels.csv and settings.json.
    Pixels are rounded to 8 bits. Of a model with a range of values images/000000.tiff ... hold these, as
    `Pipeline.in_range` returns them, grid.png shows some of their channels, and there is no samples.npz.

    count: by default one for each class named, or of all if balanced, else 16. classes: image i is of
    classes[i % len(classes)]; with none named, `balanced` takes all classes in turn, and otherwise each image's seed
    draws its class. seed: image i has the seed `seed + i`. order: one permutation for all images. model_name: kept in
    the settings for the record. control: images whose conditions the samples take in turn, as many samples by default;
    then control.png shows the first conditions, the samples, and the conditions of the samples. bias: of all images,
    (V,), (h, w, V) or (N, V). The rest is as in `Pipeline.sample`, tick too.

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
    in_turn = named or list(range(model.classes.count if balanced else 0))
    labels = class_indices(seeds, in_turn, model.classes.count)
    favoured = None if bias is None else model.check_bias(bias, 1, extrapolation)[0].cpu()
    plan = Plan(labels, seeds, sampling, order, extrapolation, shown, len(in_turn), favoured)
    chosen = {"seed": seed, "classes": named, "balanced": balanced, "model": model_name, "count": count}
    run = FolderRun(directory, _settings(model, plan, chosen), "samples", FREE)
    if distributed.rank() == 0:
        _check_count(run)
        run.begin()
        (directory / IMAGES).mkdir(exist_ok=True)
    with run.filling():
        _draw(model, run, plan, batch_size, tick)
    if distributed.rank() == 0:
        _finish(model, directory, plan)
    return directory


def image_path(model: Pipeline, directory: Path, number: int) -> Path:
    """Return the path of image `number` of a folder of a model's samples."""
    suffix = ".png" if model.tokenizer.value_range is None else ".tiff"
    return directory / IMAGES / f"{number:06}{suffix}"


def class_indices(seeds: Tensor, in_turn: Sequence[int], classes: int) -> Tensor:
    """Return the class of each image: int64 (N,).

    in_turn: classes to take in turn; without any, each seed draws one of `classes`. Without classes it is the null
    class.
    """
    if in_turn:
        return torch.tensor(in_turn)[torch.arange(len(seeds)) % len(in_turn)]
    return rng.bits(rng.derive(seeds, 4), 1)[:, 0] % max(classes, 1)


def _digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the values of a tensor on the CPU, for settings."""
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _settings(model: Pipeline, plan: Plan, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a folder: all that decides its images. chosen: arguments that are kept as they are."""
    shown = plan.control
    return {
        "format": "samples of randfeat",
        **model.record(),
        "sampling": plan.sampling.as_dict(),
        "control": None if shown is None else {"pictures": _digest(shown)},
        "order": None if plan.order is None else [int(position) for position in plan.order],
        "extrapolation": None if plan.extrapolation is None else asdict(plan.extrapolation),
        "bias": None if plan.bias is None else _digest(plan.bias),
        **chosen,
        "made_with": model.made_with(),
    }


def _check_count(run: FolderRun) -> None:
    """Raise a ValueError where the folder, of the same settings, holds an image beyond its count."""
    if run.previous() is None:
        return
    numbers = (re.fullmatch(r"(\d{6,})\.(png|tiff)", file.name) for file in (run.directory / IMAGES).glob("*"))
    last = max((int(number[1]) for number in numbers if number), default=-1)
    if last >= (count := run.settings["count"]):
        raise ValueError(
            f"{run.directory} holds more than {count} images, number {last} for one: "
            "choose another directory (--out), or a larger count"
        )


def _draw(model: Pipeline, run: FolderRun, plan: Plan, batch_size: int, tick: Callable[[Tensor], object]) -> None:
    """Make the images of this process's share that are not there."""
    count, directory = len(plan.labels), run.directory
    missing = run.missing([image_path(model, directory, number) for number in range(count)])
    done = len(share(count)) - len(missing)
    title = f"images ({done} were there)" if done else "images"

    needed = _room(model, count)
    if distributed.rank() == 0 and missing:
        warn_of_full_disk(directory, needed * len(missing) / len(share(count)))
    told = f"; all {count:,} take at most about {bytes_in_words(needed)}"

    def save(number: int, image: Tensor) -> None:
        pictures = model.tokenizer.value_range is None
        content = drawing.png(to_pil(image)) if pictures else tiff.encode(model.in_range(image[None])[0])
        atomic.write_bytes(image_path(model, directory, number), content)

    with (
        progress.bar(len(share(count)), title, "image", done=done, shown=distributed.rank() == 0, told=told) as bar,
        ThreadPoolExecutor() as pool,
    ):
        for part in torch.tensor(missing, dtype=torch.int64).split(batch_size) if missing else ():
            labels = plan.labels[part].tolist()
            wanted: list[Label] = [None if label == model.classes.count else label for label in labels]
            how = plan.sampling, plan.seeds[part].tolist(), plan.order, plan.extrapolation, batch_size
            given: dict[str, Any] = {"bias": plan.bias}
            if plan.control is not None:
                given |= {"control": plan.control[part % len(plan.control)], "control_type": conditions.GIVEN}
            images = model.sample(wanted, *how, **given, tick=tick)
            list(pool.map(save, part.tolist(), images.cpu()))
            bar.update(len(part))


def _room(model: Pipeline, count: int) -> int:
    """Return the bytes of a folder of so many images, at most: pictures that do not compress, and the archive."""
    height, width = model.image_size
    if model.tokenizer.value_range is not None:  # TIFFs of float32, without an archive
        return 4 * count * height * width * model.tokenizer.channels
    return count * height * width * (model.tokenizer.channels + 3)


def _finish(model: Pipeline, directory: Path, plan: Plan) -> None:
    """Write the files that are made of all images: the grid, the list of labels, the archive, the sheet of control."""
    count = len(plan.labels)
    paths = [image_path(model, directory, number) for number in range(count)]
    names = [model.classes.short(label) for label in plan.labels.tolist()]
    columns = plan.cycle if 2 <= plan.cycle <= 10 else None  # a column for each class
    shown = count if count <= IN_GRID else IN_GRID - IN_GRID % (columns or 1)
    captions = names[:shown] if model.classes.count else None
    picture = drawing.grid([_open(model, path) for path in paths[:shown]], columns, captions)
    atomic.write_bytes(directory / GRID, drawing.png(picture))

    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class", "name", "seed"))
    for path, label, name, seed in zip(paths, plan.labels.tolist(), names, plan.seeds.tolist(), strict=True):
        rows.writerow((f"{IMAGES}/{path.name}", label, name, seed))
    atomic.write_bytes(directory / LABELS, table.getvalue().encode())

    if model.tokenizer.value_range is None and arrays.count_images(directory / NPZ) != count:
        arrays.write_images(directory / NPZ, paths, plan.labels.tolist() if model.classes.count else None)
    if plan.control is not None:
        sheet = control_sheet(model, plan.control, [_open(model, path) for path in paths[:IN_SHEET]], captions or ())
        atomic.write_bytes(directory / CONTROL, drawing.png(sheet))


def control_sheet(
    model: Pipeline, control: Tensor, samples: Sequence[Image.Image], names: Sequence[str] = ()
) -> Image.Image:
    """Return a sheet of samples: of each the condition, the sample and, where it can be computed, its own condition.

    control: condition images (n, c, H, W), in turn. samples: pictures, which for a model of values are previews, whose
    condition says nothing. names: of their classes, where they have one each.
    """
    shown: list[Image.Image] = []
    computed = model.generator.config["control"]["kind"] != conditions.GIVEN and model.tokenizer.value_range is None
    captions: list[str] = []
    for number, sample in enumerate(samples):
        name = f"sample: {names[number]}" if len(names) >= len(samples) else "sample"
        captions += ["condition", name, *(["its condition"] if computed else [])]
        shown += [preview(control[number % len(control)]), sample]
        if computed:
            shown.append(to_pil(model.conditions(sample)[0]))
    columns = len(shown) // len(samples) * min(2, len(samples))
    return drawing.grid([one.convert("RGB") for one in shown], columns, captions)


def _open(model: Pipeline, path: Path) -> Image.Image:
    """Return a picture of an image of the folder. Raises an OSError that says what to do with a damaged one."""
    try:
        if model.tokenizer.value_range is not None:
            unit = values.to_unit(open_values(path), model.tokenizer.channels, model.tokenizer.value_range)
            return preview(torch.from_numpy(unit).movedim(-1, 0))
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, UnreadableImage, UnfitImage) as error:
        raise OSError(f"{path} is no picture any more ({error}): delete it and run the same again") from None
