"""A folder of what was painted in or around a picture: the results, a sheet of before and after, and the settings.

Result i is a function of the settings and its seed alone, so a folder can be gone on with, or to more samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import models, tokenizers, weights
from ..inference.sampling import Sampling
from ..utils import atomic, drawing, progress
from ..utils.resume import check_same_settings
from .base import BasePipeline
from .painting import Frame

FORMAT = "painted by randfeat"
IMAGES, SHEET, SETTINGS, GIF, ORDER = "images", "sheet.png", "settings.json", "watch.gif", "order.png"
IN_SHEET = 16  # results at most
LARGEST = 384  # pixels of a picture's longer side in the sheet and the GIF
# what may differ between the run that began a folder and one that goes on with it
FREE = ("model", "image", "mask", "samples", "made_with")


def write(
    directory: Path,
    settings: Mapping[str, Any],
    paint: Callable[[Sequence[int]], Sequence[Image.Image]],
    before: Mapping[str, Image.Image],
    seeds: Sequence[int],
    batch_size: int,
    watch: Callable[[], Iterator[Frame]] | None = None,
) -> None:
    """Fill `directory` with a result for each seed; those that are there already, with the same settings, are kept.

    paint: makes results of seeds. before: pictures for the sheet, by caption, of the size of the results. watch: its
    frames become a GIF and a sheet of the order. Raises before anything is written a ValueError for other settings than
    the folder's, a FileExistsError for a folder of something else.
    """
    begin(directory, settings)
    paths = [directory / IMAGES / f"{number:06}.png" for number in range(len(seeds))]
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    done = len(paths) - len(missing)
    with progress.bar(len(paths), f"images ({done} were there)" if done else "images", "image", done=done) as bar:
        for start in range(0, len(missing), batch_size):
            part = missing[start : start + batch_size]
            for number, picture in zip(part, paint([seeds[number] for number in part]), strict=True):
                atomic.write_bytes(paths[number], drawing.png(picture))
            bar.update(len(part))
    shown = [small(picture) for picture in before.values()]
    for path in paths[:IN_SHEET]:
        with Image.open(path) as picture:
            shown.append(small(picture))
    captions = [*before, *(f"seed {seed}" for seed in seeds[:IN_SHEET])]
    atomic.write_bytes(directory / SHEET, drawing.png(drawing.grid(shown, None, captions)))
    if watch is not None:
        frames = list(watch())
        moving = [drawing.magnified(small(frame.picture)) for frame in frames]
        atomic.write_bytes(directory / GIF, drawing.gif(moving))
        atomic.write_bytes(directory / ORDER, drawing.png(drawing.order_sheet(frames[-1].made_at)))


def settings_of(model: BasePipeline, model_name: str, job: str, **more: Any) -> dict[str, Any]:
    """What decides how results look, as JSON. more: of the job; dataclasses become dictionaries."""
    return {
        "format": FORMAT,
        "job": job,
        "generator": {"name": models.name_of(model.generator), **model.generator.config},
        "tokenizer": {"name": tokenizers.name_of(model.tokenizer), **model.tokenizer.config},
        "dtype": str(model.generator.dtype).removeprefix("torch."),
        "weights": weights.fingerprint(model.generator, model.tokenizer),
        **{name: _plain(value) for name, value in more.items()},
        "model": model_name,
        "made_with": {name: version(name) for name in ("randfeat", "torch")} | {"device": str(model.generator.device)},
    }


def begin(directory: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or goes on with one of the same settings; anything else is refused."""
    settings = json.loads(json.dumps(settings))
    if (before := atomic.read_json(directory / SETTINGS, FORMAT)) is not None:
        check_same_settings(directory, before, settings, "pictures", FREE)
    elif directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} exists and holds something else: choose another directory (--out)")
    (directory / IMAGES).mkdir(parents=True, exist_ok=True)
    atomic.write_json(directory / SETTINGS, settings)


def small(picture: Image.Image) -> Image.Image:
    """At most LARGEST pixels wide and high, and at least one."""
    scale = LARGEST / max(picture.size)
    if scale >= 1:
        return picture.copy()
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def hidden(picture: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Return the picture with what is masked in grey, for the sheet. uint8 (H, W) or (H, W, 3); bool (H, W)."""
    return Image.fromarray(np.where(mask if picture.ndim == 2 else mask[..., None], 128, picture).astype(np.uint8))


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    if isinstance(value, Sampling):
        return value.as_dict()
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
