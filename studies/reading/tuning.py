"""Search of each model's learning rate: all try the same rates, for half of the training, on one set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from randfeat.utils import atomic
from randfeat.utils.parallel import run_all

from .material import read
from .models import MODELS, RATES
from .units import Job, pretrain

SET, SHARE, SEED = "digits", 0.5, 1000  # set and share of steps of the trials, and a seed that no unit has


def rates(jobs: Iterable[Job], tried: Sequence[float] = RATES, workers: int | None = None) -> dict[str, float]:
    """Return the rate with the lowest validation loss, by model; trials are kept beside the set.

    jobs: of the trials' set, one for each model. workers: see `run_all`.
    """
    trained = [job for job in jobs if MODELS[job.model].trained]
    if len(tried) == 1:
        return {job.model: tried[0] for job in trained}
    trials = {f"{job.model} {rate:g}": partial(_try, replace(job, rate=rate)) for job in trained for rate in tried}
    found = run_all(trials, workers)
    return {job.model: min(tried, key=lambda rate: found[f"{job.model} {rate:g}"]) for job in trained}


def _try(job: Job, line: int = 0) -> float:
    kept = job.material.parent / job.model / f"rate-{job.rate:g}.json"
    if kept.exists():
        return float(json.loads(kept.read_text("utf-8"))["loss"])
    model, material = MODELS[job.model], read(job.set, job.material)
    job = replace(job, seed=SEED, folder=kept.with_name(f"rate-{job.rate:g}"))
    _, record = pretrain(model, material, job, line, SHARE)
    loss = min(value for _, value in record["validation"])
    atomic.write_bytes(kept, json.dumps({"loss": loss, "validation": record["validation"]}).encode())
    shutil.rmtree(job.folder)
    return float(loss)
