"""Pairs of images with keypoints, and dense maps on which it is known what matches."""

from pathlib import Path

import numpy as np
from randfeat.probes import KeypointPair


def pair(source_points, target_points, box=(0, 0, 40, 20), size=(40, 40), category="cat"):
    points = [np.array(p, dtype=float).reshape(-1, 2) for p in (source_points, target_points)]
    return KeypointPair(Path("a"), Path("b"), category, *points, box, box, size, size)


def one_hot(cells):
    """A map whose every cell is a feature of its own, in the order of `cells` (h, w)."""
    return np.eye(cells.size, dtype=np.float32)[cells].transpose(2, 0, 1)


CELLS = np.arange(16).reshape(4, 4)  # of 10 x 10 pixels in a picture of 40 x 40


def right_and_wrong_pairs():
    """Return maps and pairs: two cats with 1 of 1 and 1 of 3 points right, a dog with 0 of 2, an owl without points."""
    maps = {Path("a"): one_hot(CELLS), Path("b"): one_hot(CELLS)}
    right, wrong = (4, 4), (34, 34)
    return maps, [
        pair([right], [right]),
        pair([right] * 3, [right, wrong, wrong]),
        pair([right] * 2, [wrong] * 2, category="dog"),
        pair([], [], category="owl"),
    ]
