"""Sources and encoders small enough to be interrupted anywhere."""

from __future__ import annotations

import numpy as np
from PIL import Image

from randfeat.data.decode import UnreadableImage
from randfeat.data.sources import Source
from randfeat.features.encoder import Encoder


class Squares(Source):
    """Images of one colour each, those in `damaged` unreadable; labels in turn."""

    def __init__(self, count, damaged=(), classes=("even", "odd")):
        self.damaged = frozenset(damaged)
        labels = None if classes is None else [number % len(classes) for number in range(count)]
        paths = [f"folder/{number}.png" for number in range(count)]
        super().__init__("squares", paths, labels, None if classes is None else list(classes))

    def sizes(self):
        return [0 if number in self.damaged else 100 for number in range(len(self))]

    def read(self, i):
        if i in self.damaged:
            raise UnreadableImage("truncated" if i % 2 else "an empty file")
        return Image.new("RGB", (4, 4), (i % 256, i // 256 % 256, 7))

    def values(self, i):
        return np.asarray(self.read(i))


def prepare(picture):
    return np.asarray(picture.convert("RGB").resize((2, 2), Image.Resampling.NEAREST))


class Means(Encoder):
    """Two features of a picture: its number as its colour says it, and a dense map."""

    name, specs = "means", ("number", "map")

    def __init__(self, specs=("number", "map")):
        self.specs = tuple(specs)
        self.prepare = prepare
        self.seen = []

    def encode(self, batch):
        pixels = batch.numpy().astype(np.float32)
        number = pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1]
        self.seen += number.tolist()
        both = {"number": np.stack([number, -number, number**2], 1), "map": pixels.transpose(0, 3, 1, 2)}
        return [both[spec] for spec in self.specs]

    def with_specs(self, specs):
        return Means(specs)

    def dense(self):
        return Means(["map"])

    def record(self):
        return {"weights": "none", "specs": [*self.specs], "preprocessing": "2 x 2", "dtype": "float32"}
