"""The runner: the cases of jobs one after the other, and the memory of each side in a process of its own."""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import measure
from .cases import JOBS, Case, Setting


def cases(setting: Setting, job: str, only: Sequence[str] = ()) -> Iterator[Case]:
    """Yield the cases of a job whose names have all of these texts."""
    yield from (case for case in JOBS[job].cases(setting) if all(text in case.name for text in only))


def run(setting: Setting, jobs: Sequence[str], only: Sequence[str], rounds: int, memory: bool) -> dict[str, Any]:
    """Return the results of jobs; one that fails is named, and the others go on."""
    found: dict[str, Any] = {"machine": measure.machine(), "size": setting.size, "level": setting.level}
    found |= {"cases": [], "failures": []}
    for job in jobs:
        try:
            best = measure.limits(setting.dtypes)
            for case in cases(setting, job, only):
                began = time.perf_counter()
                long = measure.LONG if setting.level == "full" else measure.LONG / 10
                result = {"job": job, **measure.measure(case, rounds, long), "limits": best}
                for variant, one in result["variants"].items():
                    one["of the limit"] = measure.share_of_limit(one, case.dtype, best)
                    one["memory"] = measure.peak_memory(_command(setting, job, case.name, variant)) if memory else None
                found["cases"].append(result)
                ratios = ", ".join(f"{r['ratio']:.2f} x {name}" for name, r in result["ratios"].items())
                print(
                    f"{job}: {case.name}: {ratios} [{time.perf_counter() - began:.0f} s]", file=sys.stderr, flush=True
                )
        except Exception as error:  # the other jobs go on, and the exit code is 1
            found["failures"].append(f"{job} failed: {type(error).__name__}: {error}")
        clear(setting)
    return found


def clear(setting: Setting) -> None:
    """Remove the files and networks of a job."""
    from . import networks

    networks.plain.cache_clear()
    networks.prepacked.cache_clear()
    gc.collect()
    for place in setting.scratch.iterdir():
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def _command(setting: Setting, job: str, case: str, variant: str) -> list[str]:
    words = ["-m", "benchmarks", "--size", setting.size, "--level", setting.level, "--dtype", *setting.dtypes]
    for name, path in setting.peers.items():
        words += ["--peer", f"{name}={path}"]
    return measure.python(*words, "--memory-of", str(setting.scratch), job, case, variant)


def print_memory(setting: Setting, scratch: str, job: str, case: str, variant: str) -> None:
    """Print the memory of one side of a case, which this process is for; it finds the files of the run."""
    setting = replace(setting, scratch=Path(scratch))
    measure.print_memory(next(one for one in cases(setting, job) if one.name == case), variant)
