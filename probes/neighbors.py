"""Exact nearest neighbours with bounded memory; used by k-NN and retrieval."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 23  # entries of one block of the cost matrix: 64 MB in float64


def unit(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows of `x` (n, d) at Euclidean norm 1; a zero row stays zero and so resembles nothing."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


def cosine_costs(
    queries: NDArray[np.floating], bank: NDArray[np.floating]
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Blocks of rows of queries with minus their cosine (rows, m) to a bank; both hold unit rows (n, d)."""
    for rows in _blocks(len(queries), len(bank)):
        yield rows, -queries[rows] @ bank.T


def euclidean_costs(
    queries: NDArray[np.floating], bank: NDArray[np.floating]
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """The same with squared distances less each query's squared norm, which does not change its ranking.

    In float64, where this expansion is exact for pixels of 0..255.
    """
    queries, bank = queries.astype(np.float64), bank.astype(np.float64)
    norms = np.einsum("md,md->m", bank, bank)
    for rows in _blocks(len(queries), len(bank)):
        yield rows, norms - 2 * queries[rows] @ bank.T


def exclude_self(costs: NDArray[np.floating], rows: slice) -> None:
    """Put the image itself last, in place: row i of this block is image `rows.start + i` of the bank."""
    here = np.arange(rows.start, rows.start + len(costs))
    costs[here - rows.start, here] = np.inf


def nearest(costs: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Columns (n, k) of the `k` lowest `costs` (n, m), lowest first; of equals the lower column first."""
    picked = np.argpartition(costs, k - 1, axis=1)[:, :k]
    picked.sort(axis=1)
    cost = np.take_along_axis(costs, picked, axis=1)
    best = np.take_along_axis(picked, np.argsort(cost, axis=1, kind="stable"), axis=1)
    # argpartition takes any of the columns that tie for the last place, so those rows are sorted in full
    tied = (costs <= cost.max(axis=1, keepdims=True)).sum(axis=1) > k
    best[tied] = np.argsort(costs[tied], axis=1, kind="stable")[:, :k]
    return best


def _blocks(n: int, m: int) -> Iterator[slice]:
    step = max(1, _BLOCK // m)
    for start in range(0, n, step):
        yield slice(start, start + step)
