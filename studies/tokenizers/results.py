"""Results of the units, and intervals and paired differences over seeds, then groups, then images."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import Interval, bootstrap, paired

from studies.reading import attended
from studies.reading.results import Compared
from studies.reading.warped import some

from .arms import ARMS
from .sets import GROUPS
from .units import RECORD, SCORES, VIEWS

DRAWS = 8000  # of the bootstrap: enough for Holm's correction of a set's claims
COLUMNS = {  # of tables: names of scores, by title
    "linear": f"linear|{VIEWS[0]}",
    "linear, 2 x 2": f"linear|{VIEWS[1]}",
    "k-NN": f"knn|{VIEWS[0]}",
    "k-NN, 2 x 2": f"knn|{VIEWS[1]}",
    "5-shot": f"5-shot|{VIEWS[0]}",
    "5-shot, 2 x 2": f"5-shot|{VIEWS[1]}",
    "attentive": f"{attended.MEASURE}|{VIEWS[0]}",
    "PCK@0.1": f"PCK|{VIEWS[0]}",
    "PCK@0.1, 2 x 2": f"PCK|{VIEWS[1]}",
}
Runs = dict[int, np.ndarray]  # score of each test image (n,), by seed


class Results:
    """Finished units of one set. folder: found/SET."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.set = folder, folder.name

    @cached_property
    def groups(self) -> np.ndarray:
        """Groups of the test images."""
        with np.load(self.folder / GROUPS) as file:
            return np.asarray(file["tested"])

    @cached_property
    def records(self) -> dict[str, dict[int, dict[str, Any]]]:
        """Records by arm and seed, in the order of `ARMS`."""
        return {arm: found for arm in ARMS if (found := self._records(arm))}

    def _records(self, arm: str) -> dict[int, dict[str, Any]]:
        paths = sorted((self.folder / arm).glob(f"*/{RECORD}"), key=lambda path: int(path.parent.name))
        return {int(path.parent.name): json.loads(path.read_text("utf-8")) for path in paths}

    def right(self, arm: str, name: str) -> Runs:
        """Return the scores of an arm, by seed."""
        runs = {}
        for seed in self.records[arm]:
            with np.load(self.folder / arm / str(seed) / SCORES) as file:
                runs[seed] = file[name].astype(np.float64)
        return runs

    def interval(self, runs: Runs) -> Interval:
        """Return the mean of some runs with its interval."""
        right = np.stack([*runs.values()])
        return bootstrap(right, self._matching(right), DRAWS)

    def difference(self, a: str, b: str, name: str) -> Compared | None:
        """Return the paired difference of two arms over the seeds that both have, None where they share none."""
        ours, theirs = self.right(a, name), self.right(b, name)
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds:
            return None
        left, right = (np.stack([runs[seed] for seed in seeds]) for runs in (ours, theirs))
        return Compared(paired(left, right, self._matching(left), DRAWS), len(seeds))

    def _matching(self, right: np.ndarray) -> np.ndarray:
        return self.groups if right.shape[-1] == len(self.groups) else some(self.groups)


def every(found: Path) -> list[Results]:
    """Return the results of each set with a finished unit. Raises a FileNotFoundError where there is none."""
    made = [Results(path.parent) for path in sorted(found.glob(f"*/{GROUPS}"))]
    if not (done := [one for one in made if one.records]):
        raise FileNotFoundError(f"{found} holds no finished unit: run `python -m studies.tokenizers read` first")
    return done
