"""Map as one page that asks nothing of the network: pictures, classes, names, and the most similar of each image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from randfeat.index import Index
from randfeat.index.image_map import places

from . import sheets
from .rows import MapRows

HERE = Path(__file__).parent
NEAREST = 8  # images that are shown beside a chosen one
SCALE = 10_000  # of the whole numbers that places are written as


def page(rows: MapRows, seed: int = 0) -> str:
    """Return the page. seed: of t-SNE."""
    points = (SCALE * places(rows.features, seed)).round().astype(int)
    pictures = None if rows.missing else sheets.make(rows.pictures)
    classes = [label for label, _ in Counter(label for label in rows.labels if label is not None).most_common()]
    data = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "scale": SCALE,
        "classes": sorted(classes, key=_natural),
        **_names([file or path for file, path in zip(rows.files, rows.paths, strict=True)]),
        **_nearest(rows),
        "sheets": [] if pictures is None else pictures.sources,
        "side": 0 if pictures is None else pictures.side,
        "columns": sheets.COLUMNS,
        "sizes": [] if pictures is None else [side for size in pictures.sizes for side in size],
        "exact": pictures is not None and pictures.side <= sheets.PIXELS,
    }
    number = {name: place for place, name in enumerate(data["classes"])}
    data["label"] = [-1 if label is None else number[label] for label in rows.labels]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("map.html.j2").render(
        name=rows.name,
        read=rows.read,
        count=len(rows),
        total=rows.total,
        missing=rows.missing or _gone(pictures),
        data=data,
        script=Markup((HERE / "map.js").read_text("utf-8")),  # nosec B704 # a file of the package
    )


def _gone(pictures: sheets.Sheets | None) -> str:
    gone = 0 if pictures is None else pictures.gone
    return f"{gone:,} images have no picture: their files are gone or cannot be read." if gone else ""


def _natural(name: str) -> tuple[bool, int, str]:
    """Return a key that sorts numbers by their value, before words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name.casefold()


def _names(paths: list[str]) -> dict[str, Any]:
    """Return the folder that all paths share, and their rests."""
    first, last = min(paths), max(paths)
    alike = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    shared = first[: first.rfind("/", 0, alike) + 1]
    return {"folder": shared, "names": [path[len(shared) :] for path in paths]}


def _nearest(rows: MapRows) -> dict[str, Any]:
    """Return the most similar images of each, by the cosine of their features: numbers, and similarities in percent."""
    count = min(NEAREST, len(rows) - 1)
    if not count:
        return {"near": [], "alike": [], "nearest": 0}
    index = Index(rows.features, list(map(str, range(len(rows)))))
    found, scores = index.nearest(rows.features, count + 1)
    own = found == np.arange(len(rows))[:, None]
    own[:, -1] |= ~own.any(1)  # among more copies than are asked for, an image may not find itself
    kept = ~own
    return {
        "near": found[kept].tolist(),
        "alike": (1000 * scores[kept]).round().astype(int).tolist(),
        "nearest": count,
    }
