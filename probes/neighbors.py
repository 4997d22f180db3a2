"""Exact nearest neighbours in bounded memory, for k-NN and retrieval.

`faiss.knn` proposes candidates in float32 and float64 re-ranks them. Without the search in float64 of the queries that
rounding leaves in doubt the answer depends on chance: among 40 copies of each row 21 % of queries get other neighbours,
among nearly equal rows 99 % of neighbours differ. The check costs nothing measurable: of 50,000 x 512 the 20 nearest to
5,000 queries take 3.2 to 4.1 s on one core, faiss with a plain re-rank 3.5 to 4.0 s.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from randfeat.utils.faiss import faiss

_BLOCK = 1 << 23  # entries of one block of the cost matrix: 64 MB in float64
_CACHED = 1 << 16  # entries of candidates that are compared together: 512 KB in float64
_PIECE = 1 << 26  # bytes of the bank that are searched together
_QUERIES = 1 << 28  # bytes of queries, and of what is found for them, between which the bank is placed anew
_SHORT = 1e-30  # length of rows whose squares may vanish
_LARGEST = 1e150  # length of rows whose squares still are numbers
_SPARE = 16  # candidates beyond k, and one more for every eight

Features = NDArray[np.floating]
Found = tuple[NDArray[np.floating], NDArray[np.int64]]


class _Cosine:
    """Cosine similarity: vectors are normalised before they are multiplied; a zero vector stays zero."""

    faiss_metric, faiss_sign = faiss.METRIC_INNER_PRODUCT, 1

    def __init__(self, bank: Features) -> None:
        pass

    def place(self, x: Features) -> Features:
        return unit(x)

    def products(self, x: Any, bank: Any) -> Any:
        """Return similarities (n, m) of placed rows, as arrays or as tensors."""
        return x @ bank.T

    def exact(self, x: Features, rows: Features) -> Features:
        """Return similarities (n, k) of queries (n, d), each to its rows (n, k, d), none of them placed; equal rows get
        equal numbers.
        """
        flat, lengths = _with_lengths(rows.reshape(-1, rows.shape[2]))
        x, own = _with_lengths(x)
        return np.einsum("nkd,nd->nk", flat.reshape(rows.shape), x) / lengths.reshape(rows.shape[:2]) / own[:, None]

    def reach(self, x: Features) -> Features:
        """Return a bound (n,) of the sum of absolute terms of each query's similarity to any row of the bank."""
        return np.ones(len(x))


class _Euclidean:
    """Minus squared Euclidean distance: vectors are centred on the mean of the bank, where products cancel less."""

    faiss_metric, faiss_sign = faiss.METRIC_L2, -1

    def __init__(self, bank: Features) -> None:
        self.centre = sum(bank[rows].sum(axis=0, dtype=np.float64) for rows in _pieces(bank, np.float64)) / len(bank)
        self.radius, kept = 0.0, None
        for rows in _pieces(bank, np.float64):
            kept = _placed(self, bank[rows], np.float64, kept)
            self.radius = np.maximum(self.radius, _lengths(kept).max())  # nan where the mean overflows
        if not self.radius < _LARGEST:
            raise ValueError(f"features reach {self.radius:.3g}: squared distances overflow; scale them first.")

    def place(self, x: Features) -> Features:
        return x - self.centre

    def products(self, x: Any, bank: Any) -> Any:
        return 2 * (x @ bank.T) - (x * x).sum(1)[:, None] - (bank * bank).sum(1)

    def exact(self, x: Features, rows: Features) -> Features:
        away = rows - x[:, None]
        return -np.einsum("nkd,nkd->nk", away, away)

    def reach(self, x: Features) -> Features:
        return np.square(_lengths(_placed(self, x, np.float64)) + self.radius)


_Space = _Cosine | _Euclidean
_SPACES: dict[str, type[_Cosine] | type[_Euclidean]] = {"cosine": _Cosine, "euclidean": _Euclidean}
METRICS = tuple(_SPACES)


def top_k(queries: Features | None, bank: Features, k: int, metric: str = "cosine", device: str = "cpu") -> Found:
    """Return the `k` rows of `bank` (m, d) nearest to each of `queries` (n, d): similarities and rows, both (n, k).

    The nearest comes first; of equally near rows the earlier in the bank.

    queries: None searches the bank itself, each row among the others. Both hold finite float16, float32 or float64 and
    are read piece by piece, so the bank may be a memory map that is larger than memory. k is clipped to what there is.
    metric: "cosine", or "euclidean" for minus the squared distance.
    device: "cpu" is faiss on all of its threads, any other goes through torch.

    The answer is that of float64, whatever the device, the number of threads and the type of the bank. Products in
    float32 propose somewhat more candidates than k, and float64 ranks them. If the rounding of float32 could have kept
    one of the k nearest out of the candidates, the query is searched again in float64.
    """
    if metric not in _SPACES:
        raise ValueError(f"metric {metric!r} is unknown, expected one of {', '.join(METRICS)}.")
    if k < 1:
        raise ValueError(f"k={k}: expected k >= 1.")
    k = min(k, len(bank) - (queries is None))
    if k < 1:
        raise ValueError(f"the bank holds {len(bank)} images, none to find beside the query; add images.")
    if queries is not None and queries.shape[1] != bank.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, the bank {bank.shape[1]}; use one feature.")
    space = _SPACES[metric](bank)
    if queries is None:
        queries, own = bank, np.arange(len(bank))
    else:
        own = np.full(len(queries), -1)
    best = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    for rows in _blocks(len(queries), 4 * bank.shape[1] + 64 * k, _QUERIES):
        best[0][rows], best[1][rows] = _search(space, queries[rows], own[rows], bank, k, device)
    return best


def _search(space: _Space, x: Features, own: NDArray[np.int64], bank: Features, k: int, device: str) -> Found:
    """Return the k nearest to queries (n, d). own: (n,), row of each query in the bank, to leave it out, or -1."""
    count = k + k // 8 + _SPARE
    if count < len(bank):
        near, ids = _candidates(space, x, bank, count, device)
        exact, error = _ranked(space, x, own, bank, near, ids, k)
        others = near[:, -1] + error
    else:
        ids = np.tile(np.arange(len(bank)), (len(x), 1))
        exact = _rescored(space, x, bank, ids)
        others = np.full(len(x), -np.inf)
    exact[ids == own[:, None]] = -np.inf
    order = np.lexsort((ids, -exact))[:, :k]
    best = np.take_along_axis(exact, order, axis=1), np.take_along_axis(ids, order, axis=1)
    again = np.flatnonzero(~(best[0][:, -1] > others))
    if len(again):
        best[0][again], best[1][again] = _search_in_double(space, x[again], own[again], bank, k)
    return best


def _ranked(
    space: _Space,
    x: Features,
    own: NDArray[np.int64],
    bank: Features,
    near: Features,
    ids: NDArray[np.int64],
    k: int,
) -> tuple[Features, Features]:
    """Return similarities (n, count) in float64 of queries to their candidates, and a bound (n,) of the error of those
    in float32, `near`. Candidates too far by that bound to be among the k nearest are not compared in float64: -inf.
    """
    exact, first = np.full(ids.shape, -np.inf), k + 1  # one more than k: the query itself may be among them
    exact[:, :first] = _rescored(space, x, bank, ids[:, :first])
    # a device may multiply in less than float32 (TF32); these candidates show how far that is off
    off = 2 * np.abs(near[:, :first] - exact[:, :first]).max(axis=1)
    error = np.maximum(_error(space, x, np.float32), off)
    others = np.where(ids[:, :first] == own[:, None], -np.inf, exact[:, :first])
    least = np.partition(others, -k, axis=1)[:, -k]
    undecided = ~(near + error[:, None] < least[:, None])
    undecided[:, :first] = False
    rows = np.flatnonzero(undecided.any(axis=1))
    if len(rows):
        last = np.flatnonzero(undecided.any(axis=0))[-1] + 1
        exact[rows, first:last] = _rescored(space, x[rows], bank, ids[rows, first:last])
    return exact, error


def _candidates(space: _Space, x: Features, bank: Features, count: int, device: str) -> Found:
    """Return the `count` nearest by products in float32, the best first."""
    propose = _by_faiss if device.startswith("cpu") else _by_torch
    placed = _placed(space, x, np.float32)
    best = _nothing(len(x))
    kept: Features | None = None  # fresh memory for each piece takes longer than placing the rows
    for rows in _pieces(bank, np.float32):
        piece = kept = _placed(space, bank[rows], np.float32, kept)
        near, ids = propose(space, placed, piece, min(count, len(piece)), device)
        best = _merge(best, (near, ids + rows.start), count)
    return best


def _search_in_double(space: _Space, x: Features, own: NDArray[np.int64], bank: Features, k: int) -> Found:
    """Return the k nearest by ranking, of all products in float64, those within rounding of the k-th."""
    best = _nothing(len(x))
    placed = _placed(space, x, np.float64)
    error = _error(space, x, np.float64)
    for rows in _pieces(bank, np.float64):
        piece = _placed(space, bank[rows], np.float64)
        # equal rows, such as those of a collapsed model, are compared once
        _, first, group = np.unique(_as_bytes(bank[rows]), return_index=True, return_inverse=True)
        count = min(k, len(piece))
        found = np.empty((len(x), count)), np.empty((len(x), count), dtype=np.int64)
        for some in _blocks(len(x), len(piece)):
            near = space.products(placed[some], piece)
            itself = own[some, None] == np.arange(rows.start, rows.start + len(piece))
            near[itself] = -np.inf
            floor = np.partition(near, -count, axis=1)[:, -count] - 2 * error[some]
            for i, enough in enumerate(near >= floor[:, None], some.start):
                ids = np.flatnonzero(enough)
                groups, back = np.unique(group[ids], return_inverse=True)
                exact = _similarities(space, x[i : i + 1], bank, first[groups][None] + rows.start)[0, back]
                ids += rows.start
                exact[ids == own[i]] = -np.inf
                order = np.argsort(-exact, kind="stable")[:count]
                found[0][i], found[1][i] = exact[order], ids[order]
        best = _merge(best, found, k)
    return best


def _by_faiss(space: _Space, x: Features, bank: Features, k: int, device: str) -> Found:
    found, ids = faiss.knn(x, bank, k, metric=space.faiss_metric)
    return space.faiss_sign * found, ids


def _by_torch(space: _Space, x: Features, bank: Features, k: int, device: str) -> Found:
    import torch

    best = np.empty((len(x), k), dtype=np.float32), np.empty((len(x), k), dtype=np.int64)
    there = torch.from_numpy(bank).to(device)
    for rows in _blocks(len(x), len(bank)):
        found = space.products(torch.from_numpy(x[rows]).to(device), there).topk(k)
        best[0][rows], best[1][rows] = found.values.cpu(), found.indices.cpu()
    return best


def _error(space: _Space, x: Features, dtype: DTypeLike) -> Features:
    """Return a bound (n,) of the error of similarities of queries (n, d) by products in `dtype`.

    A sum of d products in any order is off by at most d/2 eps of their absolute sum (Higham 2002, section 3.1);
    placing, and the other terms of a squared distance, add a few eps. It is infinite if numbers overflow or underflow.
    """
    limits = np.finfo(dtype)
    reach = space.reach(x)
    known = (reach > limits.tiny / limits.eps**2) & (reach < limits.max / 16)
    return np.where(known, 0.55 * (x.shape[1] + 8) * limits.eps * reach, np.inf)


def _rescored(space: _Space, x: Features, bank: Features, ids: NDArray[np.int64]) -> Features:
    """Return similarities (n, k) in float64 of queries (n, d) to the rows `ids` (n, k) of the bank."""
    out = np.empty(ids.shape)

    def fill(rows: slice) -> None:
        out[rows] = _similarities(space, x[rows], bank, ids[rows])

    _in_threads(fill, len(x), step=max(1, _CACHED // (ids.shape[1] * x.shape[1])))
    return out


def _similarities(space: _Space, x: Features, bank: Features, ids: NDArray[np.int64]) -> Features:
    """Return similarities (n, k) in float64 of a few queries (n, d), each to the rows `ids` (n, k) of the bank."""
    x = x.astype(np.float64)
    parts = [ids[:, start : start + 4096] for start in range(0, ids.shape[1], 4096)]
    return np.concatenate([space.exact(x, bank[part].astype(np.float64)) for part in parts], axis=1)


def _placed(space: _Space, x: Features, dtype: DTypeLike, kept: Features | None = None) -> Features:
    """Return the rows of x (n, d) placed. kept: an array of at least n rows, which are overwritten."""
    out = np.empty(x.shape, dtype) if kept is None else kept[: len(x)]

    def fill(rows: slice) -> None:
        with np.errstate(over="ignore"):  # an overflow is infinite in `_error`, so it is searched again
            out[rows] = space.place(x[rows].astype(np.float64))

    _in_threads(fill, len(x), step=256)
    return out


def _in_threads(fill: Callable[[slice], None], n: int, step: int) -> None:
    """Call `fill` for each `step` of `n` rows, in as many threads as faiss has."""
    parts = (slice(start, min(start + step, n)) for start in range(0, n, step))
    if (
        threads := faiss.omp_get_max_threads()
    ) == 1:  # a second thread would only free its memory and allocate it again
        for rows in parts:
            fill(rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, parts))


def _as_bytes(x: Features) -> NDArray[np.void]:
    """Return each row of (n, d) as one value (n,), for comparisons bit by bit."""
    return np.ascontiguousarray(x).view(np.dtype((np.void, x.shape[1] * x.itemsize)))[:, 0]


def _nothing(n: int) -> Found:
    return np.empty((n, 0)), np.empty((n, 0), dtype=np.int64)


def _merge(a: Found, b: Found, k: int) -> Found:
    """Return the k best of two results; of equals those of `a` come first."""
    similarities, ids = (np.concatenate(both, axis=1) for both in zip(a, b, strict=True))
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _lengths(x: Features) -> Features:
    return np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))


def _with_lengths(x: Features) -> tuple[Features, Features]:
    """Return the rows of `x` (n, d) and their lengths (n,) to divide by, 1 for a zero row.

    Rows so long or short that squares or lengths could overflow or vanish are divided by their largest entry first.
    """
    with np.errstate(over="ignore", under="ignore"):  # such rows are the ones that are scaled
        lengths = _lengths(x)
    odd = ~((lengths > _SHORT) & (lengths < 1 / _SHORT))
    if odd.any():
        largest = np.abs(x[odd]).max(axis=1, keepdims=True)
        x = x.copy()
        x[odd] /= np.where(largest > 0, largest, 1)
        lengths = _lengths(x)
    return x, np.where(lengths > 0, lengths, 1).astype(np.result_type(x.dtype, np.float32))


def _pieces(x: Features, dtype: DTypeLike) -> Iterator[slice]:
    return _blocks(len(x), x.shape[1] * np.dtype(dtype).itemsize, _PIECE)


def unit(x: Features) -> Features:
    """Return the rows of `x` (n, d) at Euclidean norm 1; a zero row stays zero, so its cosine is 0."""
    x, lengths = _with_lengths(x)
    return x / lengths[:, None]


def cosine_costs(queries: Features, bank: Features) -> Iterator[tuple[slice, Features]]:
    """Yield blocks of rows of queries with minus their cosine (rows, m) to a bank; both hold unit rows (n, d)."""
    for rows in _blocks(len(queries), len(bank)):
        yield rows, -queries[rows] @ bank.T


def exclude_self(costs: Features, rows: slice) -> None:
    """Rank the image itself last, in place: row i of this block is image `rows.start + i` of the bank."""
    here = np.arange(rows.start, rows.start + len(costs))
    costs[here - rows.start, here] = np.inf


def _blocks(n: int, m: int, most: int | None = None) -> Iterator[slice]:
    """Yield slices of n rows of m numbers each that hold about `most` numbers."""
    step = max(1, (most or _BLOCK) // m)
    for start in range(0, n, step):
        yield slice(start, start + step)
