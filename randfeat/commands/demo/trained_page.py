"""Page of the demo that trains: its pictures, its claims and their record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from randfeat.probes import Interval
from randfeat.utils.drawing import gif, png

from . import page, pictures, trained
from .page import data_uri, png_uri
from .trained import Results

GENERATORS = {"randar": "RandAR", "arpg": "ARPG"}
HEAT_MAPS = {
    "best": "RandAR, random orders in training",
    "raster_control": "raster-order control",
    "random_weights": "random weights",
}


def write(results: Results, out: Path) -> Path:
    """Write report.json, report.html and overview.png, and return the path of the page."""
    settings = trained.settings(results)
    record = results.numbers | {"claims": claims(results), "settings": settings}
    shown = {
        "numbers": results.numbers,
        "claims": record["claims"],
        "settings": settings,
        "sources": trained.SOURCES,
        "generators": GENERATORS,
        "pictures": make_pictures(results),
        "counts": sorted(results.curves["randar"]),
    }
    return page.write(out, "trained.html.j2", record, make_overview(results), shown)


def claims(results: Results) -> list[dict[str, Any]]:
    """Return conclusions of the demo, each with its measured value.

    A difference holds where its interval lies above 0, a level where the measured value reaches it.
    """
    numbers = results.numbers
    likelihood, made = numbers["likelihood"]["randar"], []

    def claim(text: str, interval: Interval, holds: bool) -> None:
        made.append({"claim": text, "measured": interval.as_dict(), "holds": bool(holds)})

    k16 = likelihood["k16"]["top1"]
    claim("RandAR's likelihood over 16 orders classifies at least 97 % of the test digits", k16, k16.value >= 0.97)
    for name, row in likelihood.items():
        if name.startswith("k16_minus_"):
            other = name.removeprefix("k16_minus_").replace("k1", "1 order")
            difference = row["top1"]
            claim(f"RandAR's likelihood over 16 orders is better than {other}", difference, difference.low > 0)
    for measure, words in (("linear", "a linear probe"), ("knn", "k-NN"), ("fewshot5", "five labels a class")):
        difference = numbers[measure]["best_minus_raster_control"]["top1"]
        claim(
            f"reading the random-order model beats the raster-order control with {words}",
            difference,
            difference.low > 0,
        )
    agreement = numbers["samples"]["agreement"]
    claim("a classifier of real digits recognises at least 90 % of RandAR's samples", agreement, agreement.value >= 0.9)
    return made


def make_pictures(results: Results) -> dict[str, Markup]:
    """Return every picture of the page as a data URI."""
    raw, made = results.pictures, {}
    for name in GENERATORS:
        made[f"samples_{name}"] = png_uri(png(pictures.sheet(raw[f"samples_{name}"])))
    frames = [pictures.sheet([canvas]) for canvas in raw["watch"]]
    blank = pictures.sheet([torch.full_like(raw["watch"][0], 0.5)])
    made["watch"] = data_uri(gif([blank, *frames]), "gif")
    made["inpainting"] = png_uri(png(pictures.sheet(raw["inpainting"])))
    made["neighbours"] = png_uri(png(pictures.sheet(neighbour_rows(results))))
    made["heat"] = png_uri(heat_maps(results))
    made["learning"] = png_uri(
        pictures.learning_curves(
            {
                name: (history["train"], history["validation"])
                for name, model in results.models.items()
                for history in [model.training_record["history"]]
            }
        )
    )
    classifiers = {name: row["top1"].value for name, row in results.numbers["classifiers"].items()}
    made["likelihood"] = png_uri(
        pictures.accuracy_over_orders(
            {
                GENERATORS[name]: {k: (i.value, i.low, i.high) for k, i in curve.items()}
                for name, curve in results.curves.items()
            },
            classifiers,
        )
    )
    return made


def make_overview(results: Results) -> bytes:
    """Return samples, a decode, inpainting and search as one picture, PNG."""
    raw = results.pictures
    stages = raw["watch"][::-3][::-1]  # the last one is the finished image
    return pictures.overview(
        [
            ("samples of RandAR, one class a row", pictures.sheet(raw["samples_randar"])),
            ("ten digits come into being, each in a random order of its own", pictures.sheet(stages)),
            ("the lower half hidden; two completions by RandAR, two by ARPG", pictures.sheet(raw["inpainting"])),
            ("test digits (left) and their nearest training digits", pictures.sheet(neighbour_rows(results))),
        ]
    )


def neighbour_rows(results: Results) -> list[torch.Tensor]:
    """Return a row for each query: the query, a blank, and the images found."""
    return [
        torch.cat((query[None], torch.ones_like(query)[None], found)) for query, found in results.pictures["neighbours"]
    ]


def heat_maps(results: Results) -> bytes:
    """Draw held-out linear accuracy by order mode and layer, for each model and stream, as PNG."""
    maps: dict[str, dict[str, dict[int, float]]] = {}
    for text in results.sources["best"].tried:
        order, _, stream, layer = text.split("/")[:4]
        for source, title in HEAT_MAPS.items():
            rows = maps.setdefault(f"{title}\n{stream} stream", {})
            rows.setdefault(order, {})[int(layer[1:])] = results.sources[source].tried[text]
    return pictures.heat_maps(maps, len(HEAT_MAPS))
