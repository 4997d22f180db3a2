"""Nearest neighbours between two dense feature maps, at their own resolution or enlarged."""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating]


def match(source: Map, target: Map, at: NDArray[np.float64], upsample: int = 1) -> NDArray[np.float64]:
    """Where in `target` the feature most like that of `source` at each of `at` lies, by cosine: centres of cells.

    source (D, h, w), target (D, H, W). at, result: (p, 2) as shares 0..1 of width and height.
    upsample: by how much both maps are enlarged first, bilinearly, as torch does without align_corners.
    Of equally alike cells the first in raster order is taken; a zero feature is like nothing.
    """
    wanted = _features_at(source, at, upsample)
    down, across = (_enlarging(n, upsample) for n in target.shape[1:])
    # Enlarging is linear: products are enlarged in place of features, which would take upsample^2 the memory
    products = down @ np.einsum("pd,dhw->phw", wanted, target, optimize=True) @ across.T
    lengths = _lengths(target, down, across)
    likeness = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    row, column = np.unravel_index(likeness.reshape(len(at), lengths.size).argmax(axis=1), lengths.shape)
    return np.stack([(column + 0.5) / lengths.shape[1], (row + 0.5) / lengths.shape[0]], axis=1)


def _features_at(source: Map, at: NDArray[np.float64], upsample: int) -> Map:
    """Features (p, D) of the cells of the enlarged map that hold the points."""
    height, width = source.shape[1:]
    column, row = (np.floor(at * (width * upsample, height * upsample)).astype(np.intp)).T
    down, across = _enlarging(height, upsample)[row], _enlarging(width, upsample)[column]
    return np.einsum("ph,dhw,pw->pd", down, source, across, optimize=True)


def _lengths(target: Map, down: Map, across: Map) -> Map:
    """Euclidean lengths (rows, columns) of the features of an enlarged map."""
    rows = np.einsum("yh,dhw->ydw", down, target, optimize=True)
    # a column blends two neighbours: |a u + b v|^2 = a^2 |u|^2 + b^2 |v|^2 + 2 a b u.v
    own, neighbours = np.square(rows).sum(axis=1), (rows[..., :-1] * rows[..., 1:]).sum(axis=1)
    squares = own @ np.square(across).T + 2 * neighbours @ (across[:, :-1] * across[:, 1:]).T
    return np.sqrt(np.maximum(squares, 0))


def _enlarging(n: int, by: int) -> Map:
    """Return the matrix (n * by, n) that interpolates linearly between the centres of n cells."""
    place = np.clip((np.arange(n * by) + 0.5) / by - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(n))).astype(np.float32)
