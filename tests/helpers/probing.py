"""`randfeat probe` as tests call it, and pictures whose class is easily seen."""

from __future__ import annotations

import numpy as np
from PIL import Image
from records import load_all

from randfeat import cli

SPEC = "raster/causal/token/L2/mean/mean"
FAST = ["--workers", "0", "--device", "cpu", "--resamples", "100"]


def picture(label, seed):
    """Class 0 is bright at the left, 1 at the right, 2 nowhere."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, size=(8, 12, 3))
    if label < 2:
        pixels[:, 6 * label : 6 * label + 6] += 160
    return Image.fromarray(pixels.astype(np.uint8))


def fill(root, count, first=0, classes=("ant", "bee", "cat")):
    for number in range(first, first + count):
        label = number % len(classes)
        path = root / classes[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(label, number).save(path)
    return root


def probe(name, *what, out, more=()):
    return cli.main(["probe", name, *map(str, what), "-o", str(out), *FAST, *map(str, more)])


def by_name(out):
    return {(record.task, record.name): record for record in load_all(out)}
