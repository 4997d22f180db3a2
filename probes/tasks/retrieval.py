"""Retrieval by exact cosine ranking, one score per query.

Each score is a function of `relevant` (n, m): whether the i-th nearest image shares the query's label. Every row needs
at least one True. All scores lie in 0..1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_labels, as_matrix
from ..neighbors import cosine_costs, exclude_self, unit

Relevant = NDArray[np.bool_]
Scores = NDArray[np.float64]


def retrieval_scores(
    queries: ArrayLike,
    query_labels: ArrayLike,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, Scores]:
    """Return per-query "precision_at_1", "recall_at_{k}", "r_precision", "map_at_r" and "average_precision".

    queries: (n, d), gallery: (m, d), both L2-normalised here. Without a gallery each query is searched among the other
    queries. Of equally near images the earlier in the gallery ranks first.

    A query without a positive has no score and is left out: each vector has one entry per True of
    `has_positive(query_labels, gallery_labels)`, in order. That depends on labels alone, so scores of two features over
    the same images stay paired. Raises a ValueError if no query has a positive.
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels come together; give both or neither.")
    if min(ks, default=1) < 1:
        raise ValueError(f"ks={tuple(ks)}: expected whole numbers from 1.")
    x = as_matrix(queries, "queries")
    y = as_labels(query_labels, len(x), "query labels")
    bank = x if gallery is None else as_matrix(gallery, "gallery")
    if bank.shape[1] != x.shape[1]:
        raise ValueError(f"queries have {x.shape[1]} dimensions, the gallery {bank.shape[1]}; use one feature.")
    bank_labels = y if gallery_labels is None else as_labels(gallery_labels, len(bank), "gallery labels")
    kept = has_positive(y, gallery_labels)
    if not kept.any():
        raise ValueError("no query has an image of its label to find; give galleries that share labels.")
    blocks = []
    for rows, costs in cosine_costs(unit(x), unit(bank)):
        if gallery is None:
            exclude_self(costs, rows)
        order = np.argsort(costs, axis=1, kind="stable")[:, : len(bank) - (gallery is None)]
        relevant = bank_labels[order] == y[rows, None]
        blocks.append(_all_scores(relevant[kept[rows]], ks))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def has_positive(query_labels: ArrayLike, gallery_labels: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Return whether queries (n,) have an image of their label in the gallery, or among the other queries if None."""
    y = np.asarray(query_labels)
    if gallery_labels is not None:
        return np.isin(y, np.asarray(gallery_labels))
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    return counts[codes] > 1


def precision_at_1(relevant: Relevant) -> Scores:
    """Return 1 if the nearest image is relevant, else 0, (n,)."""
    return relevant[:, 0].astype(np.float64)


def recall_at_k(relevant: Relevant, k: int) -> Scores:
    """Return 1 if any of the `k` nearest is relevant, else 0: the Recall@k of metric learning (CUB, Cars, SOP)."""
    return np.asarray(relevant[:, :k].any(axis=1), dtype=np.float64)


def r_precision(relevant: Relevant) -> Scores:
    """Return the share of relevant images among the R nearest, where R is the number of relevant images."""
    return (relevant & _within_r(relevant)).sum(axis=1) / _r(relevant)


def map_at_r(relevant: Relevant) -> Scores:
    """Return MAP@R (Musgrave et al. 2020, arXiv 2003.08505): sum of precisions at relevant ranks up to R, over R."""
    hits = relevant & _within_r(relevant)
    return (_precisions(relevant) * hits).sum(axis=1) / _r(relevant)


def average_precision(relevant: Relevant) -> Scores:
    """Return the mean of the precisions at the ranks of all relevant images."""
    return (_precisions(relevant) * relevant).sum(axis=1) / _r(relevant)


def _all_scores(relevant: Relevant, ks: Sequence[int]) -> dict[str, Scores]:
    return {
        "precision_at_1": precision_at_1(relevant),
        **{f"recall_at_{k}": recall_at_k(relevant, k) for k in ks},
        "r_precision": r_precision(relevant),
        "map_at_r": map_at_r(relevant),
        "average_precision": average_precision(relevant),
    }


def _r(relevant: Relevant) -> NDArray[np.intp]:
    r = relevant.sum(axis=1)
    if not r.all():
        raise ValueError(f"query {r.argmin()} has no relevant image; leave it out, see has_positive.")
    return r


def _within_r(relevant: Relevant) -> Relevant:
    return np.arange(relevant.shape[1]) < _r(relevant)[:, None]


def _precisions(relevant: Relevant) -> Scores:
    return np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
