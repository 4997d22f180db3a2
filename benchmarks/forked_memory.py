"""Memory of the series of `growth`: the peak of a forked process for each size, after two calls.

    OMP_NUM_THREADS=1 python -m benchmarks.forked_memory --size XS --only reading

`python -m benchmarks --jobs growth --memory` starts an interpreter for each size; this forks one that has imported all
and computed nothing, which takes a tenth of the time. A size counts what is resident beyond the start of its process:
its weights, its data and the peak of the call.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from . import growth
from .cases import OURS, SIZES, Case, Setting
from .jobs.growth import growth as cases
from .measure import status

RESET_PEAK = "5"  # for /proc/self/clear_refs


def peak(case: Case) -> float:
    """Return MiB that a case takes beyond what the process had before it."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            Path("/proc/self/clear_refs").write_text(RESET_PEAK)
            base = status("VmRSS")
            call = case.variants[OURS]()
            for _ in range(2):
                call()
            os.write(write, str((status("VmHWM") - base) / 1024).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read()
    if os.waitpid(child, 0)[1] or not found:
        raise RuntimeError(f"{case.name} failed")
    return float(found)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.forked_memory", None, __doc__)
    parser.add_argument("--size", choices=SIZES, default="XS", help="of the networks (XS)")
    parser.add_argument("--level", default="quick", help="of the work (quick)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="series whose names have one of these")
    args = parser.parse_args(words)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    gc.freeze()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="memory") as scratch:
        for case in cases(Setting(args.size, ("float32",), args.level, {}, Path(scratch))):
            if case.axis is not None and any(text in case.name for text in args.only):
                found.setdefault(case.axis.series, []).append((case.axis.value, peak(case)))
                print(f"{case.name}: {found[case.axis.series][-1][1]:.1f} MiB", file=sys.stderr, flush=True)
    for name, rows in found.items():
        print(json.dumps({"series": name, "exponent": str(growth.fit(*zip(*rows, strict=True))), "MiB": rows}))


if __name__ == "__main__":
    main()
