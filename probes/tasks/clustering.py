"""Clustering of features without labels, and its accuracy against labels."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from randfeat.utils.faiss import faiss

from ..arrays import as_labels, as_matrix, two_or_more_classes
from ..neighbors import unit


def kmeans(
    x: ArrayLike, clusters: int, spherical: bool = False, redos: int = 10, iterations: int = 50, seed: int = 0
) -> NDArray[np.int64]:
    """Return the cluster (n,) in 0..clusters-1 of each row of `x` (n, d), by k-means over all rows (faiss).

    spherical: rows and centroids have norm 1, so the nearest centroid has the largest cosine. redos: random starts, of
    which the one with the lowest loss is kept. The same arguments give the same clusters. If fewer than `clusters` rows
    differ, some clusters stay empty.
    """
    rows = as_matrix(x)
    if not 1 <= clusters <= len(rows):
        raise ValueError(f"clusters={clusters} for {len(rows)} images: expected from 1 to one per image.")
    if redos < 1 or iterations < 1:
        raise ValueError(f"redos={redos}, iterations={iterations}: expected one or more of each.")
    # around the mean, where float32 loses least to cancellation
    placed = unit(rows) if spherical else rows - rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    points = np.ascontiguousarray(placed, dtype=np.float32)
    model = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=iterations,
        nredo=redos,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,  # faiss warns of small clusters by default
        max_points_per_centroid=len(points),  # faiss samples large data by default
    )
    model.train(points)
    return model.assign(points)[1]


def well_clustered(labels: ArrayLike, clusters: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each image's cluster is matched to its label (n,), with one label per cluster at most.

    The matching of clusters to labels is the one with the most hits (Kuhn 1955). With more clusters than labels some
    are matched to none, and their images count as wrong.
    """
    y = as_labels(labels, len(np.asarray(labels)))
    two_or_more_classes(y)
    found = as_labels(clusters, len(y), "clusters")
    _, codes = np.unique(y, return_inverse=True)
    _, places = np.unique(found, return_inverse=True)
    rows, columns = linear_sum_assignment(contingency_matrix(codes, places), maximize=True)
    label_of = np.full(places.max() + 1, -1)
    label_of[columns] = rows
    return label_of[places] == codes
