"""Ratios that must not fall: measured again, and compared with those committed for this kind of processor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import measure, runner
from .cases import Case, Setting

COMMITTED = Path(__file__).with_name("ratios.json")
FALLEN = 0.7  # share of the committed ratio that is a fall
TRIES = 3  # a fall by noise does not come three times
ROUNDS, LONG = 3, 0.1  # of a try; seconds of a turn


def committed(ratios: Mapping[str, Mapping[str, float]], processor: str) -> dict[str, float]:
    """Return the ratios of a processor, or where it has none the lowest of those that others have."""
    if processor in ratios:
        return dict(ratios[processor])
    names = {name for of_one in ratios.values() for name in of_one}
    return {name: min(of_one[name] for of_one in ratios.values() if name in of_one) for name in sorted(names)}


def chosen(setting: Setting, jobs: Mapping[str, Any]) -> Iterator[tuple[str, Case]]:
    """Yield the name and the case of each ratio, with the peers that it names; a ValueError for one that is no more."""
    for job, of_job in jobs.items():
        own, wanted = replace(setting, size=of_job["size"], level=of_job["level"]), dict(of_job["cases"])
        for case in runner.cases(own, job):
            if case.name in wanted:
                peers = {peer: case.peers[peer] for peer in wanted.pop(case.name) if peer in case.peers}
                yield f"{job}: {case.name}", replace(case, peers=peers, facts=dict)
        if wanted:
            raise ValueError(f"{job} has no case {', '.join(wanted)}: rename it in {COMMITTED.name}, too")
        runner.clear(setting)


def best_of(attempt: Callable[[], Mapping[str, float]], least: Mapping[str, float]) -> dict[str, float]:
    """Return the best ratios of up to three attempts, by peer: no more when none has fallen."""
    found: dict[str, float] = {}
    for _ in range(TRIES):
        found = {peer: max(ratio, found.get(peer, 0.0)) for peer, ratio in attempt().items()}
        if all(found.get(peer, 0.0) >= FALLEN * value for peer, value in least.items()):
            break
    return found


def ratios(case: Case) -> dict[str, float]:
    return {peer: one["ratio"] for peer, one in measure.measure(case, ROUNDS, LONG)["ratios"].items()}


def run(setting: Setting, commit: bool = False, path: Path = COMMITTED) -> int:
    """Measure the ratios of a file again; returns 1 where one fell, else 0. commit: write those of one try instead.

    On a processor that has no ratios in the file a fall is told, but is none: ratios differ between processors.
    """
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    processor, now, fallen = measure.machine()["processor"], dict[str, float](), 0
    least, known = {} if commit else committed(stored["ratios"], processor), processor in stored["ratios"]
    if not commit and not known:
        print(f"no ratios of {processor} are committed: beside the lowest of other processors, nothing fails")
    for name, case in chosen(setting, stored["jobs"]):
        wanted = {key.rpartition(" / ")[2]: value for key, value in least.items() if key.rpartition(" / ")[0] == name}
        best = best_of(partial(ratios, case), wanted)
        for peer, ratio in best.items():
            now[f"{name} / {peer}"] = round(ratio, 2)
            print(f"{name} / {peer}: {ratio:.2f}, committed {wanted.get(peer, 'not yet')}", flush=True)
        for peer, value in wanted.items():
            if best.get(peer, 0.0) < FALLEN * value:
                fallen += 1
                print(f"FELL by more than {1 - FALLEN:.0%}: {name} / {peer}, {value} before", file=sys.stderr)
    if commit:
        stored["ratios"][processor] = now
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 1 if fallen and known else 0
