"""A folder of edits of a picture: the results, a sheet of before and after, and the settings.

Result i is a function of the settings and its seed alone, so a folder can be resumed, and may grow to more samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..inference.sampling import Sampling
from ..utils import atomic, drawing, progress
from ..utils.folder_run import FolderRun
from .base import BasePipeline
from .painting import Frame

FORMAT = "painted by randfeat"
IMAGES, SHEET, GIF, ORDER = "images", "sheet.png", "watch.gif", "order.png"
IN_SHEET = 16  # results at most
LARGEST = 384  # pixels of a picture's longer side in the sheet and the GIF
# may differ between the run that began a folder and one that resumes it
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

    settings: as `settings_of` returns them. paint: makes the results of seeds. before: pictures for the sheet, by
    caption, of the size of the results. watch: its frames become a GIF and a sheet of the order. Raises before anything
    is written a ValueError for other settings than the folder's, a FileExistsError for a folder of something else.
    """
    run = FolderRun(directory, settings, "pictures", FREE)
    run.begin()
    with run.filling():
        _fill(run, paint, before, seeds, batch_size, watch)


def _fill(
    run: FolderRun,
    paint: Callable[[Sequence[int]], Sequence[Image.Image]],
    before: Mapping[str, Image.Image],
    seeds: Sequence[int],
    batch_size: int,
    watch: Callable[[], Iterator[Frame]] | None,
) -> None:
    """Make the missing results, and the sheets of all."""
    directory = run.directory
    (directory / IMAGES).mkdir(exist_ok=True)
    paths = [directory / IMAGES / f"{number:06}.png" for number in range(len(seeds))]
    missing = run.missing(paths)
    done = len(paths) - len(missing)
    title = f"images ({done} were there)" if done else "images"
    with progress.bar(len(paths), title, "image", done=done, told="") as bar:
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


def write_overview(directory: Path, edits: Sequence[tuple[str, Image.Image, Path]]) -> None:
    """Write the sheet of several pictures: each beside its first result.

    edits: name of each picture, the picture, and the folder that `write` filled.
    """
    shown, captions = [], []
    for name, picture, folder in edits:
        with Image.open(folder / IMAGES / f"{0:06}.png") as first:
            shown += [small(picture), small(first)]
        captions += [name, "first result"]
    atomic.write_bytes(directory / SHEET, drawing.png(drawing.grid(shown, min(8, len(shown)), captions)))


def settings_of(model: BasePipeline, model_name: str, job: str, **more: Any) -> dict[str, Any]:
    """Return the settings that decide the results, as JSON. more: those of the job; dataclasses become dictionaries."""
    return {
        "format": FORMAT,
        "job": job,
        **model.record(),
        **{name: _plain(value) for name, value in more.items()},
        "model": model_name,
        "made_with": model.made_with(),
    }


def small(picture: Image.Image) -> Image.Image:
    """Return a picture of at most LARGEST pixels a side, and at least one."""
    scale = LARGEST / max(picture.size)
    if scale >= 1:
        return picture.copy()
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def hidden(picture: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Return a picture, uint8 (H, W) or (H, W, 3), with its mask, bool (H, W), in grey, for the sheet."""
    return Image.fromarray(np.where(mask if picture.ndim == 2 else mask[..., None], 128, picture).astype(np.uint8))


def _plain(value: Any) -> Any:
    """Return a setting as JSON takes it."""
    if isinstance(value, Sampling):
        return value.as_dict()
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
