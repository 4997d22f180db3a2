"""Pictures for the page: test images by name, and dense features as colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from randfeat.data.sources import Source
from randfeat.features.encoder import TIMM, Encoder, PipelineEncoder
from randfeat.probes import Chart, map_sheet
from randfeat.probes.report.sheets import Pictures
from randfeat.utils.drawing import png

from .inputs import RANDOM, Contender, Part, Sources

SHOWN = 8  # images whose features are shown


def pictures_of(sources: Sources) -> Pictures | None:
    """Return the path of an image -> the image; None where there are no images."""
    rows = {
        path: (source, row) for source in sources if isinstance(source, Source) for row, path in enumerate(source.paths)
    }

    def picture(path: str) -> Image.Image:
        source, row = rows[path]
        return source.read(row)

    return picture if rows else None


def feature_charts(
    contenders: Sequence[Contender], names: Sequence[str], test: Part, pictures: Pictures | None
) -> list[Chart]:
    """For each model the dense features of some test images as colours, read as its first spec is."""
    if pictures is None:
        return []
    by_label = np.argsort(test.labels, kind="stable")
    rows = by_label[np.unique(np.linspace(0, len(test) - 1, SHOWN).round().astype(int))]
    shown = [pictures(path) for path in test.paths[rows].tolist()]
    charts = []
    for contender, name in zip(contenders, names, strict=True):
        if contender.encoder is None:
            continue
        dense = _dense(contender.encoder)
        (maps,) = dense.features(shown)
        seen = [_seen(dense, picture) for picture in shown]
        caption = f"{dense.specs[0]}: the first three principal components as red, green and blue."
        charts.append(Chart("Features as colours", caption, png(map_sheet(seen, {"features": maps})), name))
    return charts


def _dense(encoder: Encoder) -> Encoder:
    """Return the same network, its first spec with the pool `none`."""
    parts = encoder.specs[0].split("/")
    if not encoder.name.removeprefix(RANDOM).startswith(TIMM):
        return encoder.with_specs(["/".join((*parts[:4], "none", "mean", *parts[6:]))])
    return encoder.with_specs([f"{'L-1' if parts == ['pooled'] else parts[0].split(',')[-1]}/none"])


def _seen(encoder: Encoder, picture: Image.Image) -> Image.Image:
    """Return the part of a picture that an encoder reads."""
    array = encoder.prepare(picture)
    if not isinstance(encoder, PipelineEncoder):
        array = np.moveaxis(array, 0, -1)
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
