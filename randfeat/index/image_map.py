"""Image map: images side by side that have similar features (t-SNE)."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

import numpy as np
from PIL import Image

from ..data.images import Array, CentreCrop, Picture, as_picture
from ..utils import drawing
from ..utils.checks import finite_rows

MOST = 1600  # images on a map: more are too small to see
SAME = 1e-6  # difference between normalised features that is rounding
GAP = 2  # pixels between two
ROOM = 2.5  # cells for each image, so that groups stand apart


def image_map(
    images: Sequence[Array | Picture] | Array, features: np.ndarray, size: int = 1600, seed: int = 0
) -> Image.Image:
    """Draw images at their places in two dimensions (t-SNE of cosine distances), as an RGB picture of `size` pixels.

    images: PIL images, paths or arrays (see `as_picture`). features: (n, F). Each image lies in a cell of a grid near
    its place, so that none hides another. At most 1,600 images are shown, evenly spread over the list.
    """
    images = images if isinstance(images, Sized) else list(images)
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != len(images) or not len(images):
        raise ValueError(f"a map takes features (n, F) of n images, got {features.shape} for {len(images)} images")
    bad = np.flatnonzero(~finite_rows(features))
    if len(bad):
        raise ValueError(f"the feature of image {bad[0]} (of {len(bad)}) is not finite: leave it out of the map")
    shown = np.linspace(0, len(images) - 1, min(len(images), MOST)).round().astype(int)
    cells = _cells(places(features[shown], seed))
    side = math.isqrt(round(ROOM * len(shown))) + 1
    width = size // side
    canvas = Image.new("RGB", (size, size), drawing.PAPER)
    for number, (column, row) in zip(shown, cells, strict=True):
        thumbnail = CentreCrop((width - GAP, width - GAP), 3)(as_picture(images[number]))
        canvas.paste(Image.fromarray(thumbnail), (int(column) * width, int(row) * width))
    return canvas


def places(features: np.ndarray, seed: int) -> np.ndarray:
    """Return points (n, 2) in the unit square for features (n, F): t-SNE (van der Maaten and Hinton, 2008) of their
    cosine distances, from 50 principal components. 10,000 take minutes.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    from .vectors import normalize

    rows = np.array(features, np.float32)
    normalize(rows)
    if np.ptp(rows, axis=0).max() < SAME or len(rows) < 4:
        return np.full((len(rows), 2), 0.5)  # all alike, or too few for t-SNE
    rows = np.pad(rows, ((0, 0), (0, max(0, 2 - rows.shape[1]))))
    if len(rows) > 50 and rows.shape[1] > 50:
        rows = PCA(50, random_state=seed).fit_transform(rows)
    points = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=seed).fit_transform(rows)
    low, high = points.min(0), points.max(0)
    return (points - low) / np.maximum(high - low, 1e-12)


def _cells(points: np.ndarray) -> np.ndarray:
    """Return a cell (column, row) of its own for each point, with the least sum of squared distances."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    side = math.isqrt(round(ROOM * len(points))) + 1
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    _, taken = linear_sum_assignment(cdist(points * (side - 1), cells, "sqeuclidean"))
    return cells[taken]
