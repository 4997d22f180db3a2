"""The kinds of index: which faiss index each is, which to take, and how to search it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.faiss import faiss

if TYPE_CHECKING:
    from ..utils.faiss import FaissIndex

METRICS = {"cosine": faiss.METRIC_INNER_PRODUCT, "dot": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
KINDS = ("auto", "flat", "ivf", "hnsw")

QUICK = 1 << 27  # bytes of vectors that are gone through in some 20 ms, for each query
PER_LIST = 64  # vectors of the sample for each centroid
CODE_SAMPLE = 1 << 16  # vectors of the sample for a product quantizer
COMPRESSED_FROM = 10_000  # vectors, with fewer a product quantizer has nothing to learn from
TARGET, TUNED_AT, TUNED_BY = 0.97, 10, 256  # recall at k of so many queries that the default effort must reach
LONGEST = 4096  # list of candidates of a graph: with more, looking at all rows is not slower
_MAPPING = Lock()


@dataclass(frozen=True)
class Choice:
    """kind: flat, ivf or hnsw. factory: what faiss calls it. reason: in a sentence."""

    kind: str
    factory: str
    reason: str


def choose(kind: str, count: int, dim: int, memory: int | None = None) -> Choice:
    """Which index to make of so many vectors. memory: bytes that it may take, by default half of the machine's."""
    memory = default_memory() if memory is None else memory
    size = 4 * count * dim
    what = f"{count:,} x {dim} numbers are {size / 1e9:.2g} GB"
    if kind == "flat" or (kind == "auto" and size <= QUICK):
        return Choice("flat", "Flat", f"{what}: " + ("looking at all is quick" if size <= QUICK else "looking at all"))
    if kind == "hnsw":
        return Choice("hnsw", "HNSW32,Flat", f"{what}: a graph of neighbours")
    lists = max(1, min(2 ** round(math.log2(4 * math.sqrt(max(1, count)))), count // PER_LIST))
    quick = f"{what}: {lists:,} lists, of which a query looks at a few"
    if size <= memory or count < COMPRESSED_FROM:
        return Choice("ivf", f"IVF{lists},Flat", f"{quick}; they fit into {memory / 1e9:.2g} GB")
    why = f"{quick}, as codes, since they do not fit into {memory / 1e9:.2g} GB; the best are compared exactly"
    return Choice("ivf", f"IVF{lists},{coder(dim)},RFlat", why)


def coder(dim: int) -> str:
    """How faiss calls the codes of vectors: a byte for four numbers, or for one where there are no equal parts."""
    parts = max((number for number in range(1, dim // 4 + 1) if dim % number == 0), default=1)
    return f"PQ{parts}np" if 16 * parts >= dim else "SQ8"  # np: not polysemous, which takes long to learn


def default_memory() -> int:
    """Half of the machine's, in bytes; 4 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return 4 << 30


def sample_size(factory: str) -> int:
    """Return how many vectors to train on, 0 for an index that learns nothing."""
    if not factory.startswith("IVF"):
        return 0
    lists = int(factory.partition(",")[0].removeprefix("IVF"))
    return max(PER_LIST * lists, CODE_SAMPLE if "PQ" in factory else 0)


def make(factory: str, dim: int, metric: str, sample: np.ndarray) -> FaissIndex:
    """Return an empty index that has learned from a sample (n, dim), where it learns."""
    index = faiss.index_factory(dim, factory, METRICS[metric])
    if factory.startswith("IVF"):
        ivf = faiss.extract_index_ivf(index)
        for learned in (ivf, *([ivf.pq] if hasattr(ivf, "pq") else [])):
            learned.cp.min_points_per_centroid = 1  # faiss would warn on standard error
        if getattr(faiss, "get_num_gpus", int)():  # 0 in a faiss without them
            ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlat(dim, METRICS[metric]))
        index.train(sample)
    return index


def is_exact(index: FaissIndex) -> bool:
    """Return whether it looks at every row."""
    return isinstance(index, faiss.IndexFlat)


def kind_of(index: FaissIndex) -> str:
    """flat, ivf or hnsw."""
    return "flat" if is_exact(index) else "hnsw" if isinstance(index, faiss.IndexHNSW) else "ivf"


def search(
    index: FaissIndex, queries: np.ndarray, k: int, selector: Any = None, effort: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and row numbers (m, k); -1 where no more was found. selector: of faiss, among which rows."""
    parameters = None if selector is None and effort is None else _parameters(index, selector, effort)
    if isinstance(index, faiss.IndexRefine) and k <= TUNED_AT:  # it compares exactly a multiple of what is asked for
        scores, rows = index.search(queries, TUNED_AT + 1, params=parameters)
        return np.ascontiguousarray(scores[:, :k]), np.ascontiguousarray(rows[:, :k])
    return index.search(queries, k, params=parameters)


def search_all(index: FaissIndex, queries: np.ndarray, k: int, selector: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the same, looking at every row."""
    if isinstance(index, faiss.IndexIVF):
        return search(index, queries, k, selector, index.nlist)
    return search(_stored(index), queries, k, selector)


def reconstruct(index: FaissIndex, rows: np.ndarray) -> np.ndarray:
    """Return the vectors of these rows."""
    if isinstance(index, faiss.IndexIVF):
        with _MAPPING:
            if index.direct_map.type == faiss.DirectMap.NoMap:
                index.make_direct_map()
        return index.reconstruct_batch(rows)
    return _stored(index).reconstruct_batch(rows)


def effort(index: FaissIndex) -> int | None:
    """Lists that a query looks at (ivf), or the length of its list of candidates (hnsw); None where it looks at all."""
    if isinstance(index, faiss.IndexHNSW):
        return index.hnsw.efSearch
    return None if is_exact(index) else faiss.extract_index_ivf(index).nprobe


def efforts(index: FaissIndex, k: int) -> list[int]:
    """From the least to the most, each twice the one before."""
    if is_exact(index):
        return []
    least, most = (k, LONGEST) if isinstance(index, faiss.IndexHNSW) else (1, faiss.extract_index_ivf(index).nlist)
    steps = [least << step for step in range(16)]
    return [*(step for step in steps if step < most), most]


def tune(index: FaissIndex, vectors: np.ndarray, metric: str) -> None:
    """Give an index of these vectors the least effort that finds TARGET of the nearest of some of them."""
    if is_exact(index) or len(vectors) <= TUNED_AT:
        return
    some = np.sort(np.random.default_rng(0).choice(len(vectors), min(TUNED_BY, len(vectors)), replace=False))
    queries, k = vectors[some], TUNED_AT + 1  # each finds itself
    truth, _ = faiss.knn(queries, vectors, k, metric=METRICS[metric])

    def enough(value: int) -> bool:
        return (recall(search(index, queries, k, effort=value)[0], truth, metric) * k - 1) / (k - 1) >= TARGET

    steps = efforts(index, k)
    if isinstance(index, faiss.IndexRefine):  # first, how many codes must be compared exactly
        many = steps[len(steps) * 2 // 3]
        index.k_factor = next((factor for factor in (2, 4, 8, 16, 32) if _with_factor(index, factor, enough, many)), 64)
    reached = next((at for at, step in enumerate(steps) if enough(step)), len(steps) - 1)
    low, high = steps[max(0, reached - 1)], steps[reached]
    while high - low > max(1, high // 8):
        low, high = (low, middle) if enough(middle := (low + high) // 2) else (middle, high)
    set_effort(index, high)


def recall(scores: np.ndarray, truth: np.ndarray, metric: str) -> float:
    """Return the share of the nearest, whose scores are `truth` (m, k), that was found. Of equals any one will do."""
    tolerance = 1e-5 * np.abs(truth).max(initial=1e-30)
    last = truth[:, -1:]
    near = scores <= last + tolerance if metric == "l2" else scores >= last - tolerance
    return float(near.mean())


def _with_factor(index: Any, factor: int, enough: Any, effort: int) -> bool:
    index.k_factor = factor
    return enough(effort)


def set_effort(index: FaissIndex, value: int) -> None:
    """From now on the default; see `effort`."""
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = value
    else:
        faiss.extract_index_ivf(index).nprobe = value


def _parameters(index: FaissIndex, selector: Any, effort: int | None) -> Any:
    among = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexRefine):
        of_base = _parameters(faiss.downcast_index(index.base_index), selector, effort)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=of_base)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort or index.hnsw.efSearch, **among)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(effort or index.nprobe, index.nlist), **among)
    return faiss.SearchParameters(**among)


def _stored(index: FaissIndex) -> FaissIndex:
    """Return the vectors as they are."""
    if isinstance(index, faiss.IndexRefine):
        return faiss.downcast_index(index.refine_index)
    return faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
