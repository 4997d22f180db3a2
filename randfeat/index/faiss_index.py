"""Index types: the faiss index of each, the choice among them, and searches. No other module names types of faiss."""

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
INDEX_TYPES = ("auto", "flat", "ivf", "hnsw")

QUICK = 1 << 27  # bytes of vectors that one query is compared with in some 20 ms
PER_LIST = 64  # vectors of the sample for each centroid
CODE_SAMPLE = 1 << 16  # vectors of the sample for a product quantizer
COMPRESSED_FROM = 10_000  # vectors; fewer are too few to train a product quantizer
TARGET, TUNED_AT, TUNED_BY = 0.97, 10, 256  # recall at k of so many queries that the default parameter must reach
LONGEST = 4096  # candidates of a graph; with more, comparing all rows is not slower
_MAPPING = Lock()


@dataclass(frozen=True)
class Choice:
    """Index to make. index_type: flat, ivf or hnsw. factory: string of faiss' index factory. reason: in a sentence."""

    index_type: str
    factory: str
    reason: str


def choose(index_type: str, count: int, dim: int, memory: int | None = None) -> Choice:
    """Choose the index for `count` vectors of `dim` numbers.

    index_type: one of INDEX_TYPES. memory: bytes that it may take, by default half of the machine's.
    """
    memory = default_memory() if memory is None else memory
    size = 4 * count * dim
    what = f"{count:,} x {dim} numbers are {size / 1e9:.2g} GB"
    if index_type == "flat" or (index_type == "auto" and size <= QUICK):
        return Choice("flat", "Flat", f"{what}: " + ("looking at all is quick" if size <= QUICK else "looking at all"))
    if index_type == "hnsw":
        return Choice("hnsw", "HNSW32,Flat", f"{what}: a graph of neighbours")
    lists = max(1, min(2 ** round(math.log2(4 * math.sqrt(max(1, count)))), count // PER_LIST))
    quick = f"{what}: {lists:,} lists, of which a query looks at a few"
    if size <= memory or count < COMPRESSED_FROM:
        return Choice("ivf", f"IVF{lists},Flat", f"{quick}; they fit into {memory / 1e9:.2g} GB")
    why = f"{quick}, as codes, since they do not fit into {memory / 1e9:.2g} GB; the best are compared exactly"
    return Choice("ivf", f"IVF{lists},{coder(dim)},RFlat", why)


def coder(dim: int) -> str:
    """Return faiss' name for codes of vectors: a byte for four numbers, or for one where there are no equal parts."""
    parts = max((number for number in range(1, dim // 4 + 1) if dim % number == 0), default=1)
    return f"PQ{parts}np" if 16 * parts >= dim else "SQ8"  # np: not polysemous, which takes long to learn


def default_memory() -> int:
    """Return half of the machine's memory, in bytes; 4 GB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return 4 << 30


def sample_size(factory: str) -> int:
    """Return the number of vectors to train an index on, 0 for one without training."""
    if not factory.startswith("IVF"):
        return 0
    lists = int(factory.partition(",")[0].removeprefix("IVF"))
    return max(PER_LIST * lists, CODE_SAMPLE if "PQ" in factory else 0)


def make(factory: str, dim: int, metric: str, sample: np.ndarray) -> FaissIndex:
    """Return an empty index, trained on a sample (n, dim) where it needs training."""
    index = faiss.index_factory(dim, factory, METRICS[metric])
    if factory.startswith("IVF"):
        ivf = faiss.extract_index_ivf(index)
        for trained in (ivf, *([ivf.pq] if hasattr(ivf, "pq") else [])):
            trained.cp.min_points_per_centroid = 1  # faiss would warn on standard error
        if getattr(faiss, "get_num_gpus", int)():  # 0 in a faiss without them
            ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlat(dim, METRICS[metric]))
        index.train(sample)
    return index


def is_exact(index: FaissIndex) -> bool:
    """Return whether an index compares every row."""
    return isinstance(index, faiss.IndexFlat)


def type_of(index: FaissIndex) -> str:
    """Return flat, ivf or hnsw."""
    return "flat" if is_exact(index) else "hnsw" if isinstance(index, faiss.IndexHNSW) else "ivf"


def search(
    index: FaissIndex, queries: np.ndarray, k: int, selector: Any = None, value: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and row numbers (m, k); -1 where no more was found.

    selector: of faiss, of the rows to search among. value: of the search parameter, see `parameter_name`.
    """
    parameters = None if selector is None and value is None else _parameters(index, selector, value)
    if isinstance(index, faiss.IndexRefine) and k <= TUNED_AT:  # tuned with this k
        scores, rows = index.search(queries, TUNED_AT + 1, params=parameters)
        return np.ascontiguousarray(scores[:, :k]), np.ascontiguousarray(rows[:, :k])
    return index.search(queries, k, params=parameters)


def search_all(index: FaissIndex, queries: np.ndarray, k: int, selector: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of a search that compares every row."""
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


def parameter_name(index: FaissIndex) -> str | None:
    """Return faiss' name of the parameter that trades speed for recall, None for an index that compares every row.

    It is `nprobe`, lists that a query looks at (ivf), or `efSearch`, length of its list of candidates (hnsw).
    """
    return {"flat": None, "ivf": "nprobe", "hnsw": "efSearch"}[type_of(index)]


def parameter(index: FaissIndex) -> int | None:
    """Return the value of the search parameter that a search takes by default."""
    if isinstance(index, faiss.IndexHNSW):
        return index.hnsw.efSearch
    return None if is_exact(index) else faiss.extract_index_ivf(index).nprobe


def set_parameter(index: FaissIndex, value: int) -> None:
    """Set the value of the search parameter that a search takes by default."""
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = value
    else:
        faiss.extract_index_ivf(index).nprobe = value


def parameter_values(index: FaissIndex, k: int) -> list[int]:
    """Return values of the search parameter from the least to the most, each twice the one before."""
    if is_exact(index):
        return []
    least, most = (k, LONGEST) if isinstance(index, faiss.IndexHNSW) else (1, faiss.extract_index_ivf(index).nlist)
    steps = [least << step for step in range(16)]
    return [*(step for step in steps if step < most), most]


def tune(index: FaissIndex, vectors: np.ndarray, metric: str) -> None:
    """Give an index of these vectors the least search parameter that finds TARGET of the nearest of some of them."""
    if is_exact(index) or len(vectors) <= TUNED_AT:
        return
    some = np.sort(np.random.default_rng(0).choice(len(vectors), min(TUNED_BY, len(vectors)), replace=False))
    queries, k = vectors[some], TUNED_AT + 1  # each finds itself
    truth, _ = faiss.knn(queries, vectors, k, metric=METRICS[metric])

    def enough(value: int) -> bool:
        return (recall(search(index, queries, k, value=value)[0], truth, metric) * k - 1) / (k - 1) >= TARGET

    steps = parameter_values(index, k)
    if isinstance(index, faiss.IndexRefine):  # first, how many codes must be compared exactly
        many = steps[len(steps) * 2 // 3]
        index.k_factor = next((factor for factor in (2, 4, 8, 16, 32) if _with_factor(index, factor, enough, many)), 64)
    reached = next((at for at, step in enumerate(steps) if enough(step)), len(steps) - 1)
    low, high = steps[max(0, reached - 1)], steps[reached]
    while high - low > max(1, high // 8):
        low, high = (low, middle) if enough(middle := (low + high) // 2) else (middle, high)
    set_parameter(index, high)


def recall(scores: np.ndarray, truth: np.ndarray, metric: str) -> float:
    """Return the share of the nearest rows that was found, in 0..1. Among equal scores any one will do.

    scores: of what was found (m, k). truth: scores of the nearest (m, k), best first.
    """
    tolerance = 1e-5 * np.abs(truth).max(initial=1e-30)
    last = truth[:, -1:]
    near = scores <= last + tolerance if metric == "l2" else scores >= last - tolerance
    return float(near.mean())


def _with_factor(index: Any, factor: int, enough: Any, value: int) -> bool:
    index.k_factor = factor
    return enough(value)


def _parameters(index: FaissIndex, selector: Any, value: int | None) -> Any:
    among = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexRefine):
        of_base = _parameters(faiss.downcast_index(index.base_index), selector, value)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=of_base)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=value or index.hnsw.efSearch, **among)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(value or index.nprobe, index.nlist), **among)
    return faiss.SearchParameters(**among)


def _stored(index: FaissIndex) -> FaissIndex:
    """Return the part of an index that keeps the vectors uncompressed."""
    if isinstance(index, faiss.IndexRefine):
        return faiss.downcast_index(index.refine_index)
    return faiss.downcast_index(index.storage) if isinstance(index, faiss.IndexHNSW) else index
