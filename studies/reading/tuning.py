"""The learning rate of each contender: the same are tried by all, for half of the training, on one set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from randfeat.utils import atomic
from randfeat.utils.parallel import run_all

from .contenders import CONTENDERS, RATES
from .material import read
from .units import Job, pretrain

SET, SHARE, SEED = "digits", 0.5, 1000  # what it is tried on, of the steps, and a seed that no unit has


def rates(jobs: Iterable[Job], tried: Sequence[float] = RATES, workers: int | None = None) -> dict[str, float]:
    """Return the rate with the lowest held-out loss, by contender; what was tried is kept beside the set.

    jobs: of the set that is tried on, one of each contender. workers: see `run_all`.
    """
    trained = [job for job in jobs if CONTENDERS[job.contender].trained]
    if len(tried) == 1:
        return {job.contender: tried[0] for job in trained}
    trials = {f"{job.contender} {rate:g}": partial(_try, replace(job, rate=rate)) for job in trained for rate in tried}
    found = run_all(trials, workers)
    return {job.contender: min(tried, key=lambda rate: found[f"{job.contender} {rate:g}"]) for job in trained}


def _try(job: Job, line: int = 0) -> float:
    kept = job.material.parent / job.contender / f"rate-{job.rate:g}.json"
    if kept.exists():
        return float(json.loads(kept.read_text("utf-8"))["loss"])
    contender, material = CONTENDERS[job.contender], read(job.set, job.material)
    job = replace(job, seed=SEED, folder=kept.with_name(f"rate-{job.rate:g}"))
    _, record = pretrain(contender, material, job, line, SHARE)
    loss = min(value for _, value in record["validation"])
    atomic.write_bytes(kept, json.dumps({"loss": loss, "validation": record["validation"]}).encode())
    shutil.rmtree(job.folder)
    return float(loss)
