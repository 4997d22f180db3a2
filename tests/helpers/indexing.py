"""Rows, names and indexes of tests, and nearest rows by hand."""

from __future__ import annotations

import numpy as np

from randfeat import Index


def rows(count, seed=0, dim=5):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


NAMES = [f"folder/{i}.png" for i in range(40)]
LABELS = [("cat", "dog", None, 7)[i % 4] for i in range(40)]
EVERY = ["flat", "ivf", "codes", "hnsw"]


def clustered(count, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    return (rows(30, 99, dim)[rng.integers(0, 30, count)] + 0.3 * rng.normal(size=(count, dim))).astype(np.float32)


def build(path, kind, bank, labels=None, **how):
    """codes: ivf of a memory that the rows do not fit into."""
    memory = bank.nbytes // 2 if kind == "codes" else None
    names = [str(row) for row in range(len(bank))]
    return Index.build(path, bank, names, labels, index_type="ivf" if kind == "codes" else kind, memory=memory, **how)


def nearest(bank, query, k, metric="cosine"):
    """Rows and scores by hand, in float64."""
    bank, query = np.asarray(bank, np.float64), np.asarray(query, np.float64)
    if metric == "l2":
        scores = np.linalg.norm(bank - query, axis=1)
        return np.argsort(scores, kind="stable")[:k], np.sort(scores)[:k]
    scores = bank @ query
    if metric == "cosine":
        scores /= np.linalg.norm(bank, axis=1) * np.linalg.norm(query)
    return np.argsort(-scores, kind="stable")[:k], -np.sort(-scores)[:k]
