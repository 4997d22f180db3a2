"""Our exact search and k-NN beside plain faiss, and at a smaller size beside scikit-learn, in turns; and peak memory.

Seconds are processor time: on one thread, the time it takes on an idle machine.

OMP_NUM_THREADS=1 python benchmarks/probes_knn.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import sklearn
import timing
import torch
from randfeat.probes import KNN, top_k
from sklearn.neighbors import KNeighborsClassifier

CLASSES = 1000


def clustered(count: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (count, dim) float32 around one centre per class, and their labels."""
    centres = np.random.default_rng(0).standard_normal((CLASSES, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    features = rng.standard_normal((count, dim), dtype=np.float32)
    features *= 4
    features += centres[labels]
    return features, labels


def memory(folder: Path) -> None:
    """Print the peak memory of k-NN with four k, in GiB, beyond the features."""
    bank, labels, queries = (np.load(folder / f"{name}.npy") for name in ("bank", "labels", "queries"))
    KNN(5).fit(bank[:100], np.arange(100)).predict(queries[:100])  # so that libraries load what they need
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    KNN().fit(bank, labels).predict_each(queries)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 - before) / 2**30)


def beyond_the_data(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("bank", bank), ("labels", labels), ("queries", queries)):
            np.save(Path(folder) / f"{name}.npy", array)
        command = [sys.executable, __file__, "--memory", folder]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def beside_faiss(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, rounds: int) -> dict[str, Any]:
    """Return the comparison with faiss; our times include the normalisation of both sides, those of faiss do not."""
    index = faiss.IndexFlatIP(bank.shape[1])
    normalised = bank.copy()
    faiss.normalize_L2(normalised)
    index.add(normalised)
    del normalised
    unit_queries = queries.copy()
    faiss.normalize_L2(unit_queries)
    last: dict[str, Any] = {}

    def keep(name: str, call: Callable[[], Any]) -> Callable[[], None]:
        return lambda: last.update({name: call()})

    model = KNN().fit(bank, labels)
    seconds = timing.alternate(
        {
            "faiss, k=20": keep("faiss", lambda: index.search(unit_queries, 20)),
            "top_k, k=20": keep("top_k", lambda: top_k(queries, bank, 20)),
            "faiss, k=200": keep("faiss 200", lambda: index.search(unit_queries, 200)),
            "KNN, k=10, 20, 100, 200": keep("labels", lambda: model.predict_each(queries)),
        },
        rounds,
        time.process_time,
    )
    return {
        "slower than faiss, k=20": timing.ratio(seconds, "top_k, k=20", "faiss, k=20"),
        "slower than faiss, k=200": timing.ratio(seconds, "KNN, k=10, 20, 100, 200", "faiss, k=200"),
        "neighbours as faiss": float((last["top_k"][1] == last["faiss"][1]).mean()),
        "seconds": seconds,
    }


def beside_sklearn(dim: int, rounds: int) -> dict[str, Any]:
    (bank, labels), (queries, _) = clustered(20_000, dim, 1), clustered(1_000, dim, 2)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(bank, labels)
    ours = KNN(20).fit(bank, labels)
    variants = {"sklearn": lambda: theirs.predict(queries), "KNN": lambda: ours.predict(queries)}
    seconds = timing.alternate(variants, rounds, time.process_time)
    return {
        "faster than scikit-learn, 1,000 queries, 20,000 rows": timing.ratio(seconds, "sklearn", "KNN"),
        "labels as scikit-learn": float((ours.predict(queries) == theirs.predict(queries)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        memory(args.memory)
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    (bank, labels), (queries, _) = clustered(args.bank, args.dim, 1), clustered(args.queries, args.dim, 2)
    result = {
        "queries": args.queries,
        "bank": args.bank,
        "dim": args.dim,
        "GiB beyond the features": beyond_the_data(bank, labels, queries),
        **beside_sklearn(args.dim, 2 * args.rounds + 1),
        **beside_faiss(bank, labels, queries, args.rounds),
        "threads": faiss.omp_get_max_threads(),
        "versions": {"faiss": faiss.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__},
    }
    print(timing.table({name: value for name, value in result.items() if isinstance(value, dict) and "ratio" in value}))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
