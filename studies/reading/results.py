"""Results of the study's units, and intervals and differences over seeds of pretraining, then groups, then images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import Difference, Interval, bootstrap, paired

from . import attended, moved
from .material import GROUPS
from .models import MODELS
from .scoring import MEASURES
from .units import RANKED
from .warped import ALPHA, some

WARPED = f"PCK@{ALPHA:g}"  # of the points of an image in a warp of itself: see `warped`
ALL = (*MEASURES, attended.MEASURE, WARPED)
DRAWS = 8000  # of the bootstrap: enough for Holm's correction of 40 claims and more
SUPERVISED = {
    "randar-labels": "RandAR with labels",
    "arpg-labels": "ARPG with labels",
    "vit-labels": "ViT, trained on the labels",
}
TITLES = {  # of the compared models
    "randar": "RandAR",
    "arpg": "ARPG",
    "raster": "raster-order control",
    "masked": "masked tokens",
    "pixels-mae": "masked autoencoder, pixels",
    "random-weights": "RandAR, random weights",
}
HOW = {  # titles of the variants
    "prefix": "unmasked contexts",
    "noise": "wrong tokens",
    "crops": "crops",
    "agree": "orders agree",
    "agree-crops": "crops agree",
}
VARIANTS = {
    name: f"{TITLES[one.plain]}, {HOW[name.removeprefix(f'{one.plain}-')]}"
    for name, one in MODELS.items()
    if one.plain is not None
}

Runs = dict[int | None, np.ndarray]  # score of each image (n,), by seed; the seed is None for baselines


@dataclass(frozen=True)
class Found:
    """Finished units of one model on one set, by seed: records and scores.

    Scores have names: "MEASURE|KIND" on test, "train|MEASURE|SPEC", and "moved|MEASURE|VIEW" of moved images, where
    "best" is the view that was best on train.
    """

    units: Mapping[int | None, tuple[dict[str, Any], Mapping[str, np.ndarray]]]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of the units."""
        return [record for record, _ in self.units.values()]

    @property
    def ranked(self) -> bool:
        """True where the scores on train are there, which an archive leaves out."""
        return any(name.startswith("train|") for _, scores in self.units.values() for name in scores)

    def right(self, name: str) -> Runs:
        """Return the scores of a name, by seed, of the units that have them."""
        of, _, kind = name.rpartition("|")
        names = {
            seed: f"{of}|{record['moved']['views'][of.removeprefix('moved|')]}" if kind == "best" else name
            for seed, (record, _) in self.units.items()
            if kind != "best" or "moved" in record
        }
        had = {seed: self.units[seed][1].get(one) for seed, one in names.items()}
        return {seed: right.astype(np.float64) for seed, right in had.items() if right is not None}


@dataclass(frozen=True)
class Compared:
    """A difference, and the number of seeds that it is over."""

    difference: Difference
    seeds: int


class Results:
    """Results of one set."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.set = folder, folder.name

    @cached_property
    def groups(self) -> np.ndarray:
        """Groups of the test images."""
        return self._groups("tested")

    @cached_property
    def ranked_groups(self) -> np.ndarray:
        """Groups of the training images that feature specs were ranked by."""
        return self._groups("ranked")

    def _groups(self, rows: str) -> np.ndarray:
        with np.load(self.folder / GROUPS) as file:
            return np.asarray(file[rows])

    @cached_property
    def found(self) -> dict[str, Found]:
        """Every model with finished units, those trained with labels and the variants included."""
        loaded = {}
        for name in (*TITLES, *SUPERVISED, *VARIANTS):
            folders = {int(path.parent.name): path.parent for path in (self.folder / name).glob("*/record.json")}
            if folders:
                loaded[name] = Found(
                    {seed: (_record(folders[seed]), _scores(folders[seed])) for seed in sorted(folders)}
                )
        return loaded

    @cached_property
    def classical(self) -> Found:
        """Scores of all baselines, by "MEASURE|NAME"."""
        folder = self.folder / "classical"
        return Found({None: (_record(folder), _scores(folder))})

    def strongest(self, measure: str) -> tuple[str, Runs]:
        """Return name and scores of the baseline that was best on train; "" and no scores where there is none."""
        name = self.classical.records[0]["chosen"].get(f"{measure}|any", "")
        return name, self.classical.right(f"{measure}|{name}")

    def interval(self, runs: Runs) -> Interval:
        """Return the mean of some runs with its bootstrap interval."""
        right = np.stack([*runs.values()])
        return bootstrap(right, matching(self.groups, right), DRAWS)

    def difference(self, a: Runs, b: Runs, groups: np.ndarray | None = None, draws: int = DRAWS) -> Compared | None:
        """Return the paired difference over the seeds that both have, or None where they share none.

        A baseline is compared with every seed. groups: of the images, where they are not the test images.
        """
        if None in b:
            b = dict.fromkeys(a, b[None])
        seeds = [seed for seed in a if seed in b]
        if not seeds:
            return None
        left, right = (np.stack([runs[seed] for seed in seeds]) for runs in (a, b))
        made = paired(left, right, matching(self.groups if groups is None else groups, left), draws)
        return Compared(made, len(seeds))


def every(folder: Path) -> list[Results]:
    """Return the results of each set in OUT/dataD-splitS where baselines and a model are done.

    Raises a FileNotFoundError where there is none.
    """
    done = [Results(path.parents[1]) for path in sorted(folder.glob("*/classical/record.json"))]
    if not (found := [one for one in done if any(name in TITLES for name in one.found)]):
        raise FileNotFoundError(f"{folder} holds no finished unit: give the folder OUT/dataD-splitS of a study")
    return found


def matching(groups: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the groups of the scored images: all, or those of the correspondence task."""
    return groups if right.shape[-1] == len(groups) else some(groups)


def _record(folder: Path) -> dict[str, Any]:
    """Return the choices of `units`, `warped`, `attended` and `moved`."""
    record = json.loads((folder / "record.json").read_text("utf-8"))
    if (path := folder / "warped.json").exists():
        chosen = json.loads(path.read_text("utf-8"))
        record["chosen"] |= {f"{WARPED}|{kind}": name for kind, name in chosen.items()}
    if (path := folder / attended.RECORD).exists():
        chosen = json.loads(path.read_text("utf-8"))["chosen"]
        record["chosen"] |= {f"{attended.MEASURE}|{kind}": name for kind, name in chosen.items()}
    if (path := folder / moved.RECORD).exists():
        record["moved"] = json.loads(path.read_text("utf-8"))
    return record


def _scores(folder: Path) -> dict[str, np.ndarray]:
    """Return their scores: of train as "train|MEASURE|SPEC", of views as "moved|MEASURE|VIEW".

    Correspondence scores only some of the images, see `warped.some`.
    """
    scores = dict(np.load(folder / "scores.npz"))
    if (path := folder / RANKED).exists():
        scores |= {f"train|{name}": right for name, right in np.load(path).items()}
    if (path := folder / "warped.npz").exists():
        for name, right in np.load(path).items():
            train, _, last = name.rpartition("|")
            scores[f"train|{WARPED}|{last}" if train else f"{WARPED}|{last}"] = right
    if (path := folder / attended.SCORES).exists():
        scores |= {f"{attended.MEASURE}|{kind}": right for kind, right in np.load(path).items()}
    if (path := folder / moved.SCORES).exists():
        scores |= {f"moved|{name}": right for name, right in np.load(path).items()}
    return scores
