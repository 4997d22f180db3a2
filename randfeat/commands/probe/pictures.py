"""Pictures of a source for baselines and reports: read, cropped as a model sees them, and as feature colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from randfeat import weights
from randfeat.data.crop import CentreCrop, images_of
from randfeat.data.decode import open_picture
from randfeat.data.errors import UnreadableImage
from randfeat.data.images import preview
from randfeat.data.sources import Source
from randfeat.features.encoder import OPEN_CLIP, TIMM, Encoder
from randfeat.features.generator_encoder import GeneratorEncoder
from randfeat.features.store import FeatureStore
from randfeat.pipeline.pipeline import Pipeline
from randfeat.probes import Chart, Placement, map_sheet, stretched
from randfeat.probes.report.sheets import Pictures
from randfeat.tokenizers import PatchTokenizer, Tokenizer
from randfeat.tokenizers.vq import VQTokenizer
from randfeat.utils.drawing import png

from .inputs import Part, ProbedModel, Sources, family

GONE = 64  # pixels of the square in place of an image that is gone
SHOWN = 8  # images whose features are shown
AVERAGED = 64  # images over which features are averaged at each position, at most

Place = Callable[[tuple[int, int]], Placement]  # of a picture of this width and height
Box = tuple[float, float, float, float]  # left, top, right, bottom


# reading ------------------------------------------------------------------------------------------------------------


class PictureReader:
    """Pictures of some images of a source, by their paths."""

    def __init__(self, source: Source, paths: Sequence[str]) -> None:
        row_of = {path: row for row, path in enumerate(source.paths)}
        if missing := [path for path in paths if path not in row_of]:
            raise ValueError(f"{source.name} has no image {missing[0]}: give the DATA that the features are of")
        self.source, self.rows = source, [row_of[path] for path in paths]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Image.Image]:
        return (self.source.read(row) for row in self.rows)

    def pictures(self, crop: CentreCrop) -> np.ndarray:
        """Return all pictures, cropped: uint8 (n, h, w, channels)."""
        made = np.empty((len(self), *crop.size, crop.channels), dtype=np.uint8)
        for row, picture in enumerate(self):
            made[row] = crop(picture)
        return made

    def placed(self, place: Place, size: tuple[int, int]) -> np.ndarray:
        """Return what `place` leaves of all pictures, in colour: uint8 (n, h, w, 3). size: (h, w)."""
        made = np.empty((len(self), *size, 3), dtype=np.uint8)
        for row, picture in enumerate(self):
            made[row] = visible_part(picture, place, size)
        return made

    def tokens(self, pipeline: Pipeline) -> np.ndarray:
        """Return the tokens of all pictures: int64 (n, N)."""
        given = images_of(self.source, self.rows, pipeline.tokenizer.value_range)
        images = self.rows and pipeline.tokens(given)
        return np.asarray(images, dtype=np.int64).reshape(len(self), pipeline.generator.num_tokens)


def readers_of(sources: Sources, *parts: Part) -> list[PictureReader]:
    """Return a reader of each part. sources: one for each of them, or one for both; a ValueError where they hold no
    images."""
    found = [source for source in sources if isinstance(source, Source)]
    if not found or len(found) < len(sources):
        raise ValueError("baselines read pictures, and there are none here: give DATA with images, or no --baselines")
    return [
        PictureReader(source, part.paths.tolist()) for source, part in zip((found[0], found[-1]), parts, strict=True)
    ]


def check_baselines(models: Iterable[ProbedModel]) -> None:
    """Raise a ValueError where a model reads values: baselines see pictures, so they would see less than it."""
    for model in models:
        if model.encoder is not None:
            model.encoder.check_reads_pictures("--baselines")


def pipelines(models: Iterable[ProbedModel]) -> list[tuple[str, Pipeline]]:
    """Return the models of randfeat with their names, one of each tokenizer."""
    found: dict[str, tuple[str, Pipeline]] = {}
    for model in models:
        if isinstance(model.encoder, GeneratorEncoder):
            pipeline = model.encoder.pipeline
            found.setdefault(weights.fingerprint(pipeline.tokenizer), (model.short_name, pipeline))
    return list(found.values())


def codebook(tokenizer: Tokenizer) -> np.ndarray | None:
    """Return a tokenizer's vectors of its tokens (vocab_size, c), None if it has none."""
    book: torch.Tensor | None = None
    if isinstance(tokenizer, PatchTokenizer):
        book = tokenizer.codebook
    elif isinstance(tokenizer, VQTokenizer):
        book = tokenizer.quantize.codes(torch.arange(tokenizer.vocab_size, device=next(tokenizer.parameters()).device))
    return None if book is None else book.detach().float().cpu().numpy()


# placement ----------------------------------------------------------------------------------------------------------


def placement(encoder: Encoder) -> Place:
    """Return the function from a picture's size (width, height) to its placement in the encoder's input."""
    if isinstance(encoder, GeneratorEncoder):
        return partial(covering, encoder.pipeline.image_size, 1.0)
    config = encoder.prepare.config  # type: ignore[attr-defined]
    if config.get("crop_mode", "center") == "squash":
        return stretched
    if config.get("crop_mode", "center") != "center":
        raise ValueError(f"{encoder.name} pads its pictures, and points cannot be followed there: choose another model")
    return partial(covering, tuple(config["input_size"][1:]), config["crop_pct"])


def covering(target: tuple[int, int], share: float, size: tuple[int, int]) -> Placement:
    """Return the placement of a centre crop, in pixels of the picture (width, height).

    The picture is scaled until it covers `target` (height, width) over `share`, then cropped at the centre to `target`.
    """
    (height, width), (across, down) = target, size
    scale = max(width / across, height / down) / share
    visible = width / scale, height / scale
    return Placement((1.0, 1.0), ((visible[0] - across) / 2, (visible[1] - down) / 2), visible)


def visible_box(place: Place, size: tuple[int, int]) -> Box:
    """Return the part of a picture (width, height) that lies in the input, where 0 is the edge of its first pixel."""
    (left, top), (right, bottom) = place(size).back(np.array([[0.0, 0.0], [1.0, 1.0]])) + 0.5
    return max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom)


def visible_part(picture: Image.Image, place: Place, size: tuple[int, int]) -> np.ndarray:
    """Return the part of a picture that lies in the input: uint8 (h, w, 3). size: (h, w)."""
    box = visible_box(place, picture.size)
    return np.asarray(picture.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC, box))


# pictures of the report ---------------------------------------------------------------------------------------------


def picture_lookup(sources: Sources) -> Pictures | None:
    """Return the function from an image's path to the image; None where there are no images."""
    rows = {
        path: (source, row) for source in sources if isinstance(source, Source) for row, path in enumerate(source.paths)
    }

    def picture(path: str) -> Image.Image:
        return _shown(*rows[path])

    return picture if rows else None


def pictures_of(sources: Sources, stores: Sequence[FeatureStore]) -> tuple[Pictures | None, str]:
    """Return the function from an image's path to the image, and a note for the page.

    Without a source of images, files are opened where they lay when the features of the stores were extracted; one that
    is gone is a grey square. The function is None where there are no images at all. The note says why images are
    missing, "" where none are.
    """
    if (found := picture_lookup(sources)) is not None or not stores:
        return found, ""
    files: dict[str, str] = {}
    reason = ""
    for store in stores:
        try:
            files |= dict(zip(store.paths, store.absolute_paths(), strict=True))
        except ValueError as error:
            reason = str(error)
    gone = sum(not Path(file).is_file() for file in files.values())
    if gone == len(files):
        reason = reason or f"{next(iter(files.values()))} is not there any more, and no other image is"
        return None, f"No pictures: {reason}; or give DATA as well."

    def picture(path: str) -> Image.Image:
        try:
            return open_picture(files[path])
        except (KeyError, UnreadableImage):
            return Image.new("L", (GONE, GONE), "#e3e6ec")

    return picture, f"{gone:,} of {len(files):,} images are not where they were read: grey squares." if gone else ""


def _shown(source: Source, row: int) -> Image.Image:
    """Return the picture of a row; of values that are none, some channels from their lowest to their highest value."""
    try:
        return source.read(row)
    except UnreadableImage:
        values = source.values(row).astype(np.float64)
        unit = (values - values.min()) / max(float(np.ptp(values)), 1e-300)
        return preview(torch.from_numpy(unit).movedim(-1, 0).float())


def feature_charts(
    models: Sequence[ProbedModel], names: Sequence[str], test: Part, pictures: Pictures | None
) -> list[Chart]:
    """Return for each model the dense features of some test images as colours, by its first feature spec."""
    if pictures is None:
        return []
    by_label = test.paths[np.argsort(test.labels, kind="stable")]
    shown, more = (by_label[np.unique(np.linspace(0, len(test) - 1, n).round().astype(int))] for n in (SHOWN, AVERAGED))
    paths = [*shown.tolist(), *(path for path in more.tolist() if path not in set(shown.tolist()))]
    charts = []
    for model, name in zip(models, names, strict=True):
        if model.encoder is None or model.encoder.value_range is not None:  # pictures show none of its values
            continue
        if family(model.encoder.name) == OPEN_CLIP:  # it has no feature of a position
            continue
        dense = _dense(model.encoder)
        (maps,) = dense.features(map(pictures, paths))
        inputs = [_model_input(dense, pictures(path)) for path in shown.tolist()]
        without = f", without the mean over {len(paths)} test images at each position" if len(paths) > 1 else ""
        caption = (
            f"{dense.specs[0]}{without}: the first three principal components are red, green and blue, so similar "
            "colours mean similar features."
        )
        charts.append(Chart("Features as colours", caption, png(map_sheet(inputs, {"features": maps})), name))
    return charts


def _dense(encoder: Encoder) -> Encoder:
    """Return the same network, its first feature spec with the pool `none`."""
    parts = encoder.specs[0].split("/")
    if family(encoder.name) != TIMM:
        return encoder.with_specs(["/".join((*parts[:4], "none", "mean", *parts[6:]))])
    return encoder.with_specs([f"{'L-1' if parts == ['pooled'] else parts[0].split(',')[-1]}/none"])


def _model_input(encoder: Encoder, picture: Image.Image) -> Image.Image:
    """Return the part of a picture that an encoder reads."""
    array = encoder.prepare(picture)
    if not isinstance(encoder, GeneratorEncoder):
        array = np.moveaxis(array, 0, -1)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
