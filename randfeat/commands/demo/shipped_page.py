"""Page of the demo that shows the models of the package: its pictures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from randfeat.utils import drawing
from randfeat.utils.drawing import gif, png

from . import page, pictures, shipped, shipped_jobs
from .page import data_uri, png_uri
from .pictures import Row
from .shipped import Results

GENERATORS = {"arpg": "ARPG", "randar": "RandAR"}
MEASURES = {"linear": "linear probe", "knn": "k-NN", "fewshot5": "5 labels a class"}
COMMAND = "python -m studies.fashion WORK"  # measures on all 10,000 test images
RANKS = ("nearest", "2nd", "3rd", *(f"{i}th" for i in range(4, shipped.FOUND + 1)))


def write(results: Results, out: Path, seconds: float) -> Path:
    """Write report.json, report.html and overview.png, and return the path of the page. seconds: that the run took."""
    settings = results.settings | {"seconds_of_stages": results.seconds}
    record = results.numbers | {"seconds": round(seconds, 1), "settings": settings}
    shown = {
        "numbers": results.numbers,
        "settings": settings,
        "seconds": seconds,
        "full": results.full,
        "command": COMMAND,
        "table": feature_table(results),
        "likelihood": likelihood_table(results),
        "measures": MEASURES,
        "generators": GENERATORS,
        "models": (*shipped_jobs.FREE.values(), *shipped_jobs.LABELLED.values()),
        "guesses": [(png_uri(png(pictures.enlarged(one.image, 3))), one) for one in results.guesses],
        "pictures": make_pictures(results),
        "where": out,
    }
    overview = png(make_overview(results))
    return page.write(out, "shipped.html.j2", record, overview, shown | {"overview": png_uri(overview)})


# tables -------------------------------------------------------------------------------------------------------------


def on_all(full: Any, *path: str) -> str | None:
    """Return the number at a path of the record of all test images as text, None where that has none."""
    for key in path:
        if not isinstance(full, dict) or key not in full:
            return None
        full = full[key]
    return "{value:.1f} [{low:.1f}, {high:.1f}]".format(**{key: 100 * full[key] for key in ("value", "low", "high")})


def feature_table(results: Results) -> list[dict[str, Any]]:
    """Return a row for each source of features: its name, and for each measure the number here and on all images."""
    rows = []
    for name, title in shipped.SOURCES.items():
        cells = [
            (results.numbers[measure].get(name, {}).get("top1"), on_all(results.full, measure, name, "top1"))
            for measure in MEASURES
        ]
        if any(number for cell in cells for number in cell):
            rows.append({"title": title, "best": name == "best", "cells": cells})
    for other in shipped.BEATEN:
        cells = [
            (results.numbers[measure]["best_minus"][other], on_all(results.full, measure, "best_minus", other))
            for measure in MEASURES
        ]
        rows.append({"title": f"label-free − {shipped.SOURCES[other]}, paired", "best": False, "cells": cells})
    return rows


def likelihood_table(results: Results) -> list[dict[str, Any]]:
    """Return a row for each model and number of orders."""
    return [
        {"title": GENERATORS[name], "orders": key[1:], "here": one["top1"], "all": on_all(results.full, *path)}
        for name, curve in results.numbers["likelihood"].items()
        for key, one in curve.items()
        for path in [("likelihood", name, key, "top1")]
    ]


# pictures -----------------------------------------------------------------------------------------------------------


def make_pictures(results: Results) -> dict[str, Markup]:
    """Return every picture of the page as a data URI."""
    raw, heads = results.pictures, results.classes
    rows = [Row(title, one) for name, title in GENERATORS.items() for one in raw[f"samples_{name}"]]
    made = {"samples": as_uri(pictures.labelled_sheet(rows, heads, 3, 62))}
    canvases = [shipped_jobs.as_bytes(canvas) for canvas in raw["watch"]]
    frames = [np.full_like(canvases[0], 128), *canvases]
    made["watch"] = data_uri(gif([pictures.labelled_sheet([Row("", one)], heads, 3, 0) for one in frames], 110), "gif")
    for what, given in (("inpainting", "what the\nmodel sees"), ("outpainting", "what the\nmodel sees")):
        labels = ("test image", given, *GENERATORS.values())
        rows = [Row(label, images) for label, images in zip(labels, raw[what], strict=True)]
        made[what] = as_uri(pictures.labelled_sheet(rows, heads))
    made["surprise"] = as_uri(pictures.labelled_sheet(surprise_rows(results), heads))
    made["search"] = as_uri(pictures.labelled_sheet(search_rows(results, shipped.FOUND), ("asked", *RANKS), 3, 0))
    return made


def surprise_rows(results: Results) -> list[Row]:
    """Return images and their maps of surprisal, without and with a pasted patch, on one colour scale."""
    maps = results.pictures["surprisal"]
    low, high = 0.0, max(float(np.quantile(np.concatenate(maps), 0.99)), 1e-6)
    labels = (("test image", "surprisal"), ("a patch of\nanother class\nin its middle", "surprisal"))
    rows = []
    for (label, map_label), images, one in zip(labels, results.pictures["patches"], maps, strict=True):
        rows += [Row(label, images), Row(map_label, pictures.heat_of(images, one, low, high))]
    return rows


def search_rows(results: Results, count: int) -> list[Row]:
    """Return a row for each query, with the `count` nearest train images and their classes."""
    return [
        Row(
            "",
            np.concatenate((one.query[None], one.found[:count])),
            (one.truth, *one.classes[:count]),
            (False, *(name != one.truth for name in one.classes[:count])),
        )
        for one in results.searches
    ]


def make_overview(results: Results) -> Image.Image:
    """Return samples, a decode, completed halves and a search as one picture."""
    raw, names = results.pictures, results.classes
    first, last = raw["samples_randar"][:2]
    half = len(names) // 2
    samples = [
        row
        for some in (slice(0, half), slice(half, None))
        for row in (Row("", first[some]), Row("", last[some], names[some]))
    ]
    canvases = [shipped_jobs.as_bytes(canvas) for canvas in raw["watch"]]
    moments = [canvases[i] for i in np.linspace(len(canvases) // 6, len(canvases) - 1, 5).round().astype(int)]
    drawn = [Row("", np.stack([moment[label] for moment in moments])) for label in (9, 0, 8, 3)]
    some = [0, 1, 3, 7, 8]
    labels = ("image", "given", *GENERATORS.values())
    completed = [Row(label, images[some]) for label, images in zip(labels, raw["inpainting"], strict=True)]
    found = [row for row, one in zip(search_rows(results, 4), results.searches, strict=True) if one.truth in NAMED]
    return pictures.composed(
        [
            ("RandAR draws what its label says", pictures.labelled_sheet(samples, (), 3, 0)),
            ("a picture comes into being, its patches in random order", pictures.labelled_sheet(drawn, (), 3, 0)),
            ("the hidden lower part is completed", pictures.labelled_sheet(completed, (), 3, 62)),
            ("a test image (left) and the nearest training images", pictures.labelled_sheet(found, (), 3, 0)),
        ]
    )


NAMED = ("Pullover", "Sneaker", "Bag", "Dress")  # classes of the queries of the overview


def as_uri(picture: Image.Image) -> Markup:
    return png_uri(drawing.png(picture))
