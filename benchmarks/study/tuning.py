"""The learning rate of each contender: the same three are tried by all, for half of the training, on one set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from randfeat.pretrain import Step, train

from randfeat import files, progress
from randfeat.commands.demo.workers import run_all

from .contenders import CONTENDERS, RATES, build, labels_for, recipe, seen_by, tuned
from .material import read

SET, SHARE, SEED = "digits", 0.5, 1000  # what it is tried on, of the steps, and a seed that no unit has


def rates(material: Path, steps: int, contenders: Sequence[str]) -> dict[str, float]:
    """The rate with the lowest held-out loss, by contender; what was tried is kept beside the set."""
    trained = [name for name in contenders if CONTENDERS[name].trained]
    found = run_all(
        {f"{name} {rate:g}": partial(_try, name, rate, steps, material) for name in trained for rate in RATES}
    )
    return {name: min(RATES, key=lambda rate: found[f"{name} {rate:g}"]) for name in trained}


def _try(name: str, rate: float, steps: int, path: Path, line: int) -> float:
    kept = path.parent / name / f"rate-{rate:g}.json"
    if kept.exists():
        return float(json.loads(kept.read_text("utf-8"))["loss"])
    contender, material = CONTENDERS[name], read(SET, path)
    how = tuned(contender, recipe(contender, material, steps, rate, SEED), SHARE)
    network, seen = build(contender, material, SEED), seen_by(contender, material)
    with progress.bar(how.steps, f"{name} rate {rate:g}", "step", line) as bar:

        def tick(done: Step) -> None:
            bar.update()

        labels, watched = (labels_for(contender, material, rows) for rows in (material.fit, material.held_out))
        held_out = (seen[material.held_out].long(), watched)
        history = train(network, seen[material.fit], labels, held_out, how, objective=contender.objective, on_step=tick)
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(kept, json.dumps({"loss": history.best, "validation": history.validation}).encode())
    return history.best
