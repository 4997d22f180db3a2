"""Each index type beside plain faiss with the same factory string, on the same rows.

    OMP_NUM_THREADS=1 python benchmarks/index.py --rows 1000000 --dim 256 --clusters 4096

Rows are a mixture of Gaussians of a fixed seed; queries are others of the same. Plain faiss is a few lines
of code: rows to length 1, train, add, write_index. Each side builds in a process of its own, --rounds times; then both
are searched in one process, in turns, with the nprobe or efSearch that our index found to be enough: ours from the
mapped files, in numbers (`nearest`) and with the paths of the matches (`search`), plain faiss from memory. Ratios are
of processor time, since other work may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timing import alternate, ratio

from randfeat.index import Index, benchmark, faiss_index
from randfeat.utils.faiss import faiss

PLAIN = """
import json, sys, time
import faiss, numpy as np
from randfeat.index.benchmark import peak
rows, target, factory = sys.argv[1:]
started, computed = time.perf_counter(), time.process_time()
x = np.array(np.load(rows, mmap_mode="r"))
faiss.normalize_L2(x)
index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
index.train(x)
index.add(x)
faiss.write_index(index, target)
took = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - computed}
print(json.dumps(took | {"memory": peak()}))
"""
OPEN = """
import sys, time
from randfeat import Index
started = time.perf_counter()
Index.open(sys.argv[1])
print(time.perf_counter() - started)
"""
NUMBERS = ("seconds", "processor_seconds", "memory")
HEAD = (
    "index type",
    "faiss",
    "built in processor seconds, ours / plain",
    "in seconds",
    "with GB",
    "opened in ms",
    "nprobe or efSearch",
    "recall@10, ours / plain",
    "queries/s, plain",
    "times slower, in numbers / with paths",
)


def plain(rows: Path, target: Path, factory: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PLAIN, str(rows), str(target), factory]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def compare(scratch: Path, rows: Path, queries: np.ndarray, truth: np.ndarray, variant: str, rounds: int) -> str:
    """Return the table's row of an index type."""
    count, dim = np.load(rows, mmap_mode="r").shape
    kind, memory = ("ivf", 2 * count * dim) if variant == "codes" else (variant, None)
    factory = faiss_index.choose(kind, count, dim, memory).factory
    place, target = scratch / "ours", scratch / "plain.faiss"
    job = {"do": "build", "rows": str(rows), "index": str(place), "variant": variant, "metric": "cosine"}
    ours, others = [], []
    for _ in range(rounds):
        if place.exists():
            shutil.rmtree(place)
        ours.append(benchmark.in_process(job))
        others.append(plain(rows, target, factory))
    of_ours = {name: statistics.median(run[f"build_{name}"] for run in ours) for name in NUMBERS}
    of_plain = {name: statistics.median(run[name] for run in others) for name in NUMBERS}
    opened = float(subprocess.run([sys.executable, "-c", OPEN, str(place)], stdout=subprocess.PIPE, check=True).stdout)

    index, other = Index.open(place), faiss.read_index(str(target))
    parameter = faiss_index.parameter(index.segments[0].index)
    if parameter is not None:
        faiss_index.set_parameter(other, parameter)
    if isinstance(other, faiss.IndexRefine):
        other.k_factor = index.segments[0].index.k_factor

    def search_plain() -> np.ndarray:
        unit = queries.copy()
        faiss.normalize_L2(unit)
        return other.search(unit, 10)[0]

    recalls = [
        faiss_index.recall(scores, truth, "cosine") for scores in (index.nearest(queries, 10)[1], search_plain())
    ]
    began = time.process_time()
    search_plain()
    often = max(1, round(1 / (time.process_time() - began)))  # times in a round
    ways = {
        "plain": search_plain,
        "ours": lambda: index.nearest(queries, 10),
        "named": lambda: index.search(queries, 10),
    }
    took = alternate({name: partial(_repeat, way, often) for name, way in ways.items()}, 5, time.process_time)
    slower = [ratio(took, name, "plain")["ratio"] for name in ("ours", "named")]
    cells = [
        variant,
        f"`{factory}`" + (f", {len(index.segments)} parts" if len(index.segments) > 1 else ""),
        f"{of_ours['processor_seconds']:.1f} / {of_plain['processor_seconds']:.1f} = "
        f"**{of_ours['processor_seconds'] / of_plain['processor_seconds']:.2f}**",
        f"{of_ours['seconds']:.1f} / {of_plain['seconds']:.1f}",
        f"{of_ours['memory'] / 1e9:.2f} / {of_plain['memory'] / 1e9:.2f}",
        f"{1e3 * opened:.0f}",
        str(parameter or "all"),
        f"**{recalls[0]:.3f}** / {recalls[1]:.3f}",
        f"{often * len(queries) / statistics.median(took['plain']):,.0f}",
        f"**{slower[0]:.2f}** / {slower[1]:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _repeat(call: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        call()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--types", nargs="+", default=benchmark.VARIANTS, choices=benchmark.VARIANTS)
    parser.add_argument("--rounds", type=int, default=1, help="of building")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="index") as scratch:
        rows = Path(scratch) / "rows.npy"
        queries = benchmark.synthetic(rows, args.rows, args.dim, args.clusters, args.queries)
        truth = benchmark.exact(rows, queries, 10, "cosine")
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
        for variant in args.types:
            place = Path(scratch) / variant
            place.mkdir()
            print(compare(place, rows, queries, truth, variant, args.rounds), flush=True)
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
