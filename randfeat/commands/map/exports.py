"""Exports of features for the viewers of others: TensorBoard's embedding projector, and FiftyOne."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from randfeat.data.errors import UnreadableImage
from randfeat.utils import atomic, drawing, progress

from .rows import MapRows

SPRITE = 8192  # pixels of the longer side of a sprite that the projector shows
SIDES = (8, 64)  # pixels of a picture on it, at least and at most
PAPER = "#808080"


def projector(rows: MapRows, out: Path) -> None:
    """Write what TensorBoard's projector opens: vectors.tsv, metadata.tsv, projector_config.pbtxt and, with pictures,
    sprite.png, a square of cells.
    """
    out.mkdir(parents=True, exist_ok=True)
    vectors = io.StringIO()
    np.savetxt(vectors, rows.features, "%.6g", "\t")
    atomic.write_bytes(out / "vectors.tsv", vectors.getvalue().encode())
    lines = ["path\tclass", *(f"{_cell(p)}\t{_cell(c or '')}" for p, c in zip(rows.paths, rows.labels, strict=True))]
    atomic.write_bytes(out / "metadata.tsv", "\n".join([*lines, ""]).encode())
    config = ['tensor_name: "features"', 'tensor_path: "vectors.tsv"', 'metadata_path: "metadata.tsv"']
    if not rows.missing:
        sprite, side = _sprite(rows)
        atomic.write_bytes(out / "sprite.png", drawing.png(sprite))
        size = f"single_image_dim: {side} single_image_dim: {side}"
        config.append(f'sprite {{ image_path: "sprite.png" {size} }}')
    text = "\n  ".join(["embeddings {", *config]) + "\n}\n"
    atomic.write_bytes(out / "projector_config.pbtxt", text.encode())


def fiftyone(rows: MapRows, files: list[str], out: Path) -> None:
    """Write samples.json, which FiftyOne opens as its LegacyFiftyOneDataset: `filepath`, `ground_truth` (where there
    is a class) and `features`, as its VectorField keeps them (arrays of NumPy, compressed by zlib).

    files: absolute paths of the image files.
    """
    out.mkdir(parents=True, exist_ok=True)
    samples = []
    for file, label, feature in zip(files, rows.labels, rows.features, strict=True):
        one = {"filepath": file, "tags": [], "features": _binary(feature)}
        if label is not None:
            one["ground_truth"] = {"_cls": "Classification", "label": label}
        samples.append(one)
    atomic.write_bytes(out / "samples.json", json.dumps({"samples": samples}).encode())


def _binary(feature: np.ndarray) -> dict[str, dict[str, str]]:
    buffer = io.BytesIO()
    np.save(buffer, feature, allow_pickle=False)
    return {"$binary": {"base64": base64.b64encode(zlib.compress(buffer.getvalue())).decode(), "subType": "00"}}


def _cell(text: str) -> str:
    """Return a text as a cell of a table, in which a tab or a new line would begin another one."""
    return " ".join(text.split())


def _sprite(rows: MapRows) -> tuple[Image.Image, int]:
    """Return a square of square cells, row by row, and the pixels of a cell's side."""
    columns = math.ceil(math.sqrt(len(rows)))
    side = min(SIDES[1], SPRITE // columns)
    if side < SIDES[0]:
        raise ValueError(f"{len(rows):,} pictures are too many for the projector: choose a smaller --count")
    sheet = Image.new("RGB", (columns * side, columns * side), PAPER)
    with progress.bar(len(rows), "pictures", "image") as bar:
        for number, opened in enumerate(rows.pictures):
            bar.update()
            try:
                picture = opened().convert("RGB")
            except (UnreadableImage, OSError):
                continue
            wide, tall = (max(1, round(length * side / max(picture.size))) for length in picture.size)
            row, column = divmod(number, columns)
            shown = picture.resize((wide, tall), Image.Resampling.LANCZOS)
            sheet.paste(shown, (column * side + (side - wide) // 2, row * side + (side - tall) // 2))
    return sheet, side
