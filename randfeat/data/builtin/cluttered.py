"""Digits at random places, sizes and angles on a larger canvas, among pieces of other writers' digits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .base import BuiltinDataset
from .digits import make_digits

SIDE, COPIES = 16, 6
SCALES, ANGLE = (1.0, 1.4), 30.0
PIECES, PIECE = 4, 4  # number of pieces, and pixels of their side


def make_cluttered(seed: int = 0, split_seed: int | None = None) -> BuiltinDataset:
    """Return each digit six times on 16 x 16 pixels, with clutter.

    The digit is 8 to 11 pixels large, turned by up to 30 degrees, anywhere it fits. Clutter is four pieces of 4 x 4
    pixels with ink in them, cut from digits of other writers on the same side of the split, at places where they cover
    little of the digit; the brighter pixel wins.
    A group is a writer. split_seed: see `make_digits`. seed: of places, sizes, angles and pieces.
    """
    digits = make_digits(split_seed=split_seed)
    images = []
    for number in range(len(digits) * COPIES):
        rng = np.random.default_rng([seed, number])
        own = number // COPIES
        others = np.flatnonzero((digits.test == digits.test[own]) & (digits.groups != digits.groups[own]))
        canvas = placed(digits.images[own], rng)
        digit = canvas.astype(bool)
        for _ in range(PIECES):
            piece = _piece(digits.images[rng.choice(others)], rng)
            y, x = _clear_place(digit, rng)
            part = canvas[y : y + PIECE, x : x + PIECE]
            np.maximum(part, piece, out=part)
        images.append(canvas)
    each = np.arange(len(digits)).repeat(COPIES)
    return BuiltinDataset(
        np.stack(images),
        digits.labels[each],
        digits.groups[each],
        digits.test[each],
        digits.classes,
        digits.group_kind,
        digits.group_names,
    )


def placed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a square image, scaled and turned about its centre, at a random place on SIDE x SIDE pixels of black."""
    half, scale, angle = len(image) / 2, rng.uniform(*SCALES), np.deg2rad(rng.uniform(-ANGLE, ANGLE))
    reach = half * scale
    y, x = rng.uniform(reach, SIDE - reach, 2)
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    inverse = (c, s, half - c * x - s * y, -s, c, half + s * x - c * y)
    return np.array(
        Image.fromarray(image).transform((SIDE, SIDE), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    )


def _piece(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a square cut out around a pixel with ink."""
    rows, columns = np.nonzero(image > 127)
    at = rng.integers(len(rows))
    y, x = (min(max(int(place[at]) - PIECE // 2, 0), len(image) - PIECE) for place in (rows, columns))
    return image[y : y + PIECE, x : x + PIECE]


def _clear_place(digit: np.ndarray, rng: np.random.Generator, tries: int = 8) -> tuple[int, int]:
    """Return the corner, of some drawn at random, where a piece covers least of the digit."""
    corners = rng.integers(0, SIDE - PIECE + 1, (tries, 2))
    covered = [digit[y : y + PIECE, x : x + PIECE].sum() for y, x in corners]
    y, x = corners[int(np.argmin(covered))]
    return int(y), int(x)
