"""Benchmark of index types on the same rows: build time, memory, and recall against queries a second.

Each is built, and then searched, in a process of its own, whose peak memory is what it takes. Queries are rows that are
not in the index; the truth is the result of comparing all rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils import arrays
from ..utils.faiss import faiss
from . import faiss_index
from .index import Index
from .query import Filter
from .vectors import Vectors

VARIANTS = ("flat", "ivf", "codes", "hnsw")  # codes: ivf where the vectors do not fit into the memory
AT_LEAST = 0.5  # seconds that queries are timed for
BLOCK = 1 << 16  # rows at a time
ONE_BY_ONE = 100  # queries that are timed alone

COMMAND = "from randfeat.index import benchmark; benchmark.child()"


def synthetic(path: Path, rows: int, dim: int, clusters: int, queries: int, spread: float = 0.4) -> np.ndarray:
    """Write rows of a mixture of Gaussians to an .npy file; returns queries of the same mixture, all of a fixed seed.

    Centres are drawn from the unit sphere; spread: length of what is added to one, on average.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, dim), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def drawn(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, dim), np.float32) * np.float32(spread / dim**0.5)
        return centres[rng.integers(0, clusters, count)] + noise

    asked = drawn(queries)
    blocks = (drawn(min(BLOCK, rows - start)) for start in range(0, rows, BLOCK))
    arrays.write(path, (rows, dim), "<f4", blocks)
    return asked


def held_out(path: Path, index: Index, queries: int) -> np.ndarray:
    """Write the rows of an index to an .npy file but for some, at most a tenth, which are returned."""
    ids = np.array(index.ids(Filter()))
    count = min(queries, len(ids) // 10)
    if not count:
        raise ValueError(f"{index!r} is too small to be measured: 10 rows or more are needed")
    out = np.zeros(len(ids), bool)
    out[np.random.default_rng(0).choice(len(ids), count, replace=False)] = True
    kept = ids[~out]
    blocks = (index.vectors(kept[start : start + BLOCK].tolist()) for start in range(0, len(kept), BLOCK))
    arrays.write(path, (len(kept), index.dim), "<f4", blocks)
    return index.vectors(ids[out].tolist())


def exact(path: Path, queries: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Return scores (m, k) of the nearest rows of an .npy file, best first."""
    rows = np.load(path, mmap_mode="r")
    vectors = Vectors([rows], rows.shape[1], metric)
    asked, best = Vectors([queries], rows.shape[1], metric).take(0, len(queries)), np.empty((len(queries), 0))
    sign = 1 if metric == "l2" else -1
    for start in range(0, len(rows), BLOCK):
        block = vectors.take(start, min(len(rows), start + BLOCK))
        found, _ = faiss.knn(asked, block, min(k, len(block)), metric=faiss_index.METRICS[metric])
        best = sign * np.sort(sign * np.concatenate((best, found), 1), axis=1)[:, :k]
    return np.sqrt(best) if metric == "l2" else best


def measure(
    scratch: Path, rows: Path, queries: np.ndarray, k: int, metric: str, variants: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield for each variant the cost of building, opening and searching it, at every value of its search parameter.

    scratch: a directory that indexes are built in, one at a time.
    """
    np.save(scratch / "queries.npy", queries)
    np.save(scratch / "truth.npy", exact(rows, queries, k, metric))
    for variant in variants:
        place = scratch / f"{variant}.index"
        job = {"rows": str(rows), "index": str(place), "variant": variant, "metric": metric}
        built = in_process(job | {"do": "build"})
        size = sum(file.stat().st_size for file in place.iterdir())
        searched = in_process(job | {"do": "search", "asked": str(scratch), "k": k})
        yield {"variant": variant, **built, "bytes": size, **searched}
        for file in place.iterdir():
            file.unlink()
        place.rmdir()


def child() -> None:
    """Run the job in the last argument of this process, and print its result as one line of JSON."""
    job = json.loads(sys.argv[-1])
    before = peak()
    found = _build(job) if job["do"] == "build" else _search(job)
    print(json.dumps(found | {f"{job['do']}_memory": peak(), f"{job['do']}_memory_before": before}))


def in_process(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a job that `child` runs in a process of its own."""
    command = [sys.executable, "-c", COMMAND, json.dumps(job)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise RuntimeError(
            f"the process that was to {job['do']} a {job['variant']} index ended with {ended.returncode}"
        )
    return json.loads(ended.stdout.splitlines()[-1])


def _build(job: Mapping[str, Any]) -> dict[str, Any]:
    rows = np.load(job["rows"], mmap_mode="r")
    index_type = "ivf" if job["variant"] == "codes" else job["variant"]
    memory = rows.nbytes // 2 if job["variant"] == "codes" else None
    names = [str(row) for row in range(len(rows))]
    started, computed = time.perf_counter(), time.process_time()
    index = Index.build(
        job["index"], rows, names, index_type=index_type, metric=job["metric"], memory=memory, shown=True
    )
    return {
        "build_seconds": time.perf_counter() - started,
        "build_processor_seconds": time.process_time() - computed,
        "factory": faiss_index.choose(index_type, len(rows), index.dim, memory).factory,
        "rows": len(rows),
        "dimension": index.dim,
        "parts": len(index.segments),
    }


def _search(job: Mapping[str, Any]) -> dict[str, Any]:
    queries, truth = (np.load(Path(job["asked"]) / f"{name}.npy") for name in ("queries", "truth"))
    started = time.perf_counter()
    index = Index.open(job["index"])
    opened = time.perf_counter() - started
    faiss_of = index.segments[0].index
    name, default = faiss_index.parameter_name(faiss_of), faiss_index.parameter(faiss_of)
    points: list[dict[str, Any]] = []
    values: set[int | None] = {default, *faiss_index.parameter_values(faiss_of, job["k"])}
    for value in sorted(values, key=lambda value: value or 0):
        found = index.search(queries, job["k"], nprobe=value, ef_search=value)
        scores = np.array([[match.score for match in one] for one in found])
        recall = faiss_index.recall(scores, truth[:, : scores.shape[1]], job["metric"])
        points.append({"value": value, "recall": recall, "queries_per_second": _speed(index, queries, job["k"], value)})
        if (value or 0) > (default or 0) and (
            recall > 0.9999 or (len(points) > 4 and recall - points[-3]["recall"] < 1e-3)
        ):
            break
    some = queries[:ONE_BY_ONE]
    started = time.perf_counter()
    for query in some:
        index.search(query[None], job["k"])
    alone = (time.perf_counter() - started) / len(some)
    return {
        "k": job["k"],
        "open_seconds": opened,
        "parameter": name,
        "default": default,
        "one_query_seconds": alone,
        "points": points,
    }


def _speed(index: Index, queries: np.ndarray, k: int, value: int | None) -> float:
    """Return queries a second, all at once: the best of several runs, because the machine may do other things, too."""
    seconds: list[float] = []
    while sum(seconds) < AT_LEAST:
        started = time.perf_counter()
        index.search(queries, k, nprobe=value, ef_search=value)
        seconds.append(time.perf_counter() - started)
    return len(queries) / min(seconds)


def peak() -> int | None:
    """Return the peak memory of this process in bytes, mapped files included; None where the system does not say."""
    try:  # getrusage would count the parent before the fork, too
        status = Path("/proc/self/status").read_text()
        return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
