"""Each kind of index beside plain faiss with the same factory string, on the same rows.

    OMP_NUM_THREADS=1 python benchmarks/index.py --rows 1000000 --dim 256 --clusters 4096

Rows are a mixture of Gaussians of a fixed seed; queries are others of the same. Plain faiss is what one writes in a few
lines: rows to length 1, train, add, write_index. Each side builds in a process of its own, in turns, --rounds times;
then both are searched in one process, in turns, with the effort that our index found to be enough, ours from the mapped
files with the paths of what it finds, plain faiss from memory without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import alternate, ratio

from randfeat.faiss_library import faiss
from randfeat.index import Index, bench, kinds

PLAIN = """
import json, sys, time
import faiss, numpy as np
from randfeat.index.bench import _peak
rows, target, factory = sys.argv[1:]
started = time.perf_counter()
x = np.array(np.load(rows, mmap_mode="r"))
faiss.normalize_L2(x)
index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
index.train(x)
index.add(x)
faiss.write_index(index, target)
print(json.dumps({"seconds": time.perf_counter() - started, "memory": _peak()}))
"""


def plain(rows: Path, target: Path, factory: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PLAIN, str(rows), str(target), factory]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def compare(scratch: Path, rows: Path, queries: np.ndarray, truth: np.ndarray, variant: str, rounds: int) -> None:
    count, dim = np.load(rows, mmap_mode="r").shape
    kind = "ivf" if variant == "codes" else variant
    factory = kinds.choose(kind, count, dim, 2 * count * dim if variant == "codes" else None).factory
    place, target = scratch / "ours", scratch / "plain.faiss"
    job = {"do": "build", "rows": str(rows), "index": str(place), "variant": variant, "metric": "cosine"}
    built: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for number in range(rounds):
        if number:
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
        ours, other = bench._in_process(job), plain(rows, target, factory)
        built["ours"].append({"seconds": ours["build_seconds"], "memory": ours["build_memory"]})
        built["plain"].append(other)
    seconds = {side: statistics.median(one["seconds"] for one in runs) for side, runs in built.items()}
    memory = {side: max(one["memory"] for one in runs) / 1e9 for side, runs in built.items()}

    code = "import sys, time; from randfeat import Index; t = time.perf_counter(); Index.open(sys.argv[1]); print(time.perf_counter() - t)"  # noqa: E501
    opened = float(subprocess.run([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, check=True).stdout)
    index, alone = Index.open(place), faiss.read_index(str(target))
    effort = kinds.effort(index.segments[0].index)
    if effort is not None:
        kinds._set_effort(alone, effort)
    if isinstance(alone, faiss.IndexRefine):
        alone.k_factor = index.segments[0].index.k_factor
    asked = queries.copy()
    faiss.normalize_L2(asked)
    scores = np.array([[match.score for match in one] for one in index.search(queries, 10)])
    recalls = kinds.recall(scores, truth, "cosine"), kinds.recall(alone.search(asked, 10)[0], truth, "cosine")
    if len(index.segments) > 1:
        print(f"{variant}: {len(index.segments)} segments", file=sys.stderr)

    def search_plain() -> None:
        unit = queries.copy()
        faiss.normalize_L2(unit)
        alone.search(unit, 10)

    began = time.perf_counter()
    search_plain()
    often = max(1, round(1 / (time.perf_counter() - began)))
    took = alternate(
        {
            "ours": lambda: [index.search(queries, 10) for _ in range(often)],
            "plain": lambda: [search_plain() for _ in range(often)],
        },
        5,
        time.process_time,
    )
    speed = ratio(took, "ours", "plain")
    per_second = {side: often * len(queries) / statistics.median(each) for side, each in took.items()}
    print(
        f"| {variant} | `{factory}` | {seconds['ours']:.1f} / {seconds['plain']:.1f} = "
        f"{seconds['ours'] / seconds['plain']:.2f} | {memory['ours']:.2f} / {memory['plain']:.2f} | {1e3 * opened:.0f} | "
        f"{effort or 'all'} | {recalls[0]:.3f} / {recalls[1]:.3f} | {per_second['ours']:,.0f} / {per_second['plain']:,.0f} | "
        f"{speed['ratio']:.2f} [{speed['lowest']:.2f}, {speed['highest']:.2f}] |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=4096)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", default=bench.VARIANTS, choices=bench.VARIANTS)
    parser.add_argument("--rounds", type=int, default=1, help="of building")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="index") as scratch:
        rows = Path(scratch) / "rows.npy"
        queries = bench.synthetic(rows, args.rows, args.dim, args.clusters, args.queries)
        truth = bench.exact(rows, queries, 10, "cosine")
        print(
            "| kind | faiss | built in s, ours / plain | peak GB | opened in ms | effort | recall@10 | queries/s | slower |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for variant in args.kinds:
            place = Path(scratch) / variant
            place.mkdir()
            compare(place, rows, queries, truth, variant, args.rounds)


if __name__ == "__main__":
    main()
