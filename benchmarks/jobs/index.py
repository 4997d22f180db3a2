"""Each index type beside plain faiss with the same factory string, and an index exported to LanceDB beside ours.

Rows are a mixture of Gaussians of a fixed seed; queries are others of the same. Plain faiss is a few lines of code:
rows to length 1, train, add, write_index. Each side builds in a process of its own; then both are searched in one
process, with the nprobe or efSearch that our index found to be enough: ours from the mapped files, in numbers
(`nearest`) and with paths (`search`), plain faiss from memory.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, Setting, Spent
from benchmarks.measure import python
from randfeat.index import Index, benchmark, faiss_index, lance
from randfeat.utils.faiss import faiss

PLAIN = """
import json, sys, time
import faiss, numpy as np
rows, target, factory = sys.argv[1:]
started, computed = time.perf_counter(), time.process_time()
x = np.array(np.load(rows, mmap_mode="r"))
faiss.normalize_L2(x)
index = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
index.train(x)
index.add(x)
faiss.write_index(index, target)
print(json.dumps([time.perf_counter() - started, time.process_time() - computed]))
"""


class Bench:
    """Rows, queries and indexes in files, which are made when they are asked for."""

    def __init__(self, setting: Setting, variant: str) -> None:
        small, quick, full = (2_000, 16, 16, 20), (20_000, 64, 100, 200), (1_000_000, 256, 4096, 500)
        rows, dim, clusters, queries = setting.pick(small, quick, full)
        self.folder, self.variant = setting.scratch / "index", variant
        self.size, self.clusters, self.asked = (rows, dim), clusters, queries
        self.folder.mkdir(exist_ok=True)
        self.rows, self.ours, self.plain = (self.folder / name for name in ("rows.npy", variant, f"{variant}.faiss"))

    def queries(self) -> np.ndarray:
        kept = self.folder / "queries.npy"
        if not kept.exists():
            np.save(kept, benchmark.synthetic(self.rows, *self.size, self.clusters, self.asked))
        return np.load(kept)

    @property
    def factory(self) -> str:
        kind, memory = ("ivf", 2 * self.size[0] * self.size[1]) if self.variant == "codes" else (self.variant, None)
        return faiss_index.choose(kind, *self.size, memory).factory

    def build(self) -> Spent:
        self.queries()
        shutil.rmtree(self.ours, ignore_errors=True)
        job = {"do": "build", "rows": str(self.rows), "index": str(self.ours), "variant": self.variant}
        found = benchmark.in_process(job | {"metric": "cosine"})
        return Spent(found["build_seconds"], found["build_processor_seconds"])

    def build_plain(self) -> Spent:
        self.queries()
        command = python("-c", PLAIN, str(self.rows), str(self.plain), self.factory)
        return Spent(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout))

    def open(self) -> Index:
        if not self.ours.exists():
            self.build()
        return Index.open(self.ours)

    def open_plain(self) -> Any:
        """Return plain faiss with the nprobe or efSearch of our index."""
        if not self.plain.exists():
            self.build_plain()
        ours, other = self.open().segments[0].index, faiss.read_index(str(self.plain))
        parameter = faiss_index.parameter(ours)
        if parameter is not None:
            faiss_index.set_parameter(other, parameter)
        if isinstance(other, faiss.IndexRefine):
            other.k_factor = ours.k_factor
        return other

    def searching(self, how: str) -> Callable[[], Any]:
        queries = self.queries()
        if how != "plain faiss":
            index = self.open()
            return partial(index.nearest if how == "in numbers" else index.search, queries, 10)
        other = self.open_plain()

        def search() -> np.ndarray:
            unit = queries.copy()
            faiss.normalize_L2(unit)
            return other.search(unit, 10)[0]

        return search

    def facts(self) -> Mapping[str, Any]:
        truth = benchmark.exact(self.rows, self.queries(), 10, "cosine")
        scores = {"ours": self.searching("in numbers")()[1], "plain faiss": self.searching("plain faiss")()}
        found: dict[str, Any] = {f"recall@10, {k}": faiss_index.recall(v, truth, "cosine") for k, v in scores.items()}
        size = sum(file.stat().st_size for file in self.ours.iterdir())
        effort = faiss_index.parameter(self.open().segments[0].index)
        return found | {"nprobe or efSearch": effort or "all", "MB": size // 10**6}


def index(setting: Setting) -> Iterator[Case]:
    """Yield building, opening and searching by type."""
    for variant in setting.pick(("ivf",), ("flat", "ivf"), benchmark.VARIANTS):
        bench = Bench(setting, variant)
        label = f"{variant} `{bench.factory}`, {bench.size[0]:,} x {bench.size[1]}"
        plain = {"plain faiss": lambda bench=bench: bench.build_plain}
        yield Case(f"{label}, build", lambda bench=bench: bench.build, plain, bench.size[0], "rows")
        yield Case(f"{label}, open", lambda bench=bench: partial(Index.open, _built(bench)), unit="indexes")
        for how in ("in numbers", "with paths"):
            ours, other = partial(bench.searching, how), partial(bench.searching, "plain faiss")
            facts = bench.facts if how == "in numbers" else dict
            yield Case(f"{label}, search {how}", ours, {"plain faiss": other}, bench.asked, "queries", facts=facts)


def _built(bench: Bench) -> Path:
    bench.open()
    return bench.ours


def lancedb(setting: Setting) -> Iterator[Case]:
    """Yield one query at a time in ours and in its export."""
    bench = Bench(setting, "ivf")
    recalls: dict[str, float] = {}

    def searching(side: str) -> Callable[[], Any]:
        queries, index = bench.queries(), bench.open()
        target = bench.folder / "lance"
        if side == "LanceDB" and target.exists():
            shutil.rmtree(target)
        table: Any = index if side == "ours" else lance.export(index, f"lancedb:{target}")
        return lambda: [table.search(query[None], 10)[0] for query in queries]

    def facts() -> Mapping[str, Any]:
        nearest = benchmark.exact(bench.rows, bench.queries(), 10, "cosine")
        for side in ("ours", "LanceDB"):
            began, call = time.perf_counter(), searching(side)
            made = time.perf_counter() - began
            scores = np.array([[match.score for match in found] for found in call()])
            recalls[f"recall@10, {side}"] = float((scores >= nearest[:, -1:] - 1e-5).mean())
        return {**recalls, "seconds of the export": made}

    label = f"{bench.size[0]:,} x {bench.size[1]}, a query at a time"
    ours, other = partial(searching, "ours"), partial(searching, "LanceDB")
    yield Case(label, ours, {"LanceDB": other}, bench.asked, "queries", facts=facts)
