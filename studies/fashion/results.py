"""Results of the study: 95 % intervals over test images, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import Difference, Interval, bootstrap, paired

from . import inpainting, judge, likelihood, samples

FOUND = Path(__file__).parent / "found"
DRAWS = 4000  # of the bootstrap
OURS = {"arpg": "ARPG, label-free", "randar": "RandAR, label-free"}  # in the package, beside those with labels
FREE = OURS | {"arpg_14x14": "ARPG, label-free, 14 × 14 tokens"}
CONTROLS = {
    "raster": "RandAR in raster order, equal steps",
    "raster_14x14": "ARPG in raster order, 14 × 14 tokens, equal steps and agreement",
    "masked": "masked tokens, equal cost",
    "pixel_autoencoder": "masked autoencoder of pixels, equal cost",
    "random_weights": "ARPG, random weights",
}
CLASSICAL = {
    "pixels": "pixels",
    "pca": "PCA of pixels",
    "patch_counts": "k-means patch counts",
    "coates_ng": "k-means patches, triangle (Coates and Ng)",
    "hog": "HOG",
}
SVM = "svm"
TITLES = FREE | CONTROLS | CLASSICAL | {SVM: "RBF-SVM on pixels"}
MEASURES = {
    "linear": "linear",
    "knn": "k-NN",
    "fewshot5": "5-shot",
    "attentive": "attentive",
    "retrieval": "MAP@R",
}


@dataclass(frozen=True)
class Scored:
    """A record with its scores by name, each (n,) or (draws, n)."""

    record: dict[str, Any]
    scores: dict[str, np.ndarray]

    def interval(self, name: str = "right") -> Interval:
        """Return the mean of some scores with its interval, over draws too where there are several."""
        return bootstrap(self.scores[name], draws=DRAWS)


class Results:
    """All that the study has found so far, in the folder `found`."""

    def __init__(self, found: Path) -> None:
        self.found = found

    def scored(self, part: str, name: str) -> Scored | None:
        """Return a record with its scores, None where it is not there."""
        path = self.found / part / f"{name}.json"
        if not path.exists():
            return None
        with np.load(path.with_suffix(".npz")) as file:
            scores = {key: x.astype(np.float64) for key, x in file.items()}
        return Scored(json.loads(path.read_text("utf-8")), scores)

    @cached_property
    def readers(self) -> dict[str, dict[str, Scored]]:
        """Readers with their measures."""
        found = {}
        for name in TITLES:
            made = {one: scored for one in (*MEASURES, SVM) if (scored := self.scored(name, one)) is not None}
            if made:
                found[name] = made
        return found

    def best(self, measure: str, among: Sequence[str] = tuple(FREE)) -> Scored | None:
        """Return the one of some readers that was best on the validation part, None where none was measured."""
        made = [self.readers[name][measure] for name in among if measure in self.readers.get(name, {})]
        return max(made, key=lambda one: one.record["accuracy"], default=None)

    def difference(self, measure: str, other: str) -> Difference | None:
        """Return our best reading less another reader in a measure, None where one of them was not measured."""
        ours, theirs = self.best(measure), self.readers.get(other, {}).get(measure)
        if ours is None or theirs is None:
            return None
        return paired(ours.scores["right"], theirs.scores["right"], draws=DRAWS)

    def generators(self, part: str) -> dict[str, Scored]:
        """Return what was measured of generators in a part: likelihood, samples or inpainting."""
        paths = sorted((self.found / part).glob("*.json"))
        made = {path.stem: self.scored(part, path.stem) for path in paths}
        return {name: one for name, one in made.items() if one is not None}

    def numbers(self) -> dict[str, Any]:
        """Return all numbers as JSON, each with value, low, high and n, by the keys of the demo's report."""
        tops: dict[str, Any] = {}
        for measure in MEASURES:
            kind = "map_at_r" if measure == "retrieval" else "top1"
            rows: dict[str, Any] = {}
            if (ours := self.best(measure)) is not None:
                rows["best"] = _told(ours, kind)
            for name, made in self.readers.items():
                if measure in made:
                    rows["raster_control" if name == "raster" else name] = _told(made[measure], kind)
            for other in (*CONTROLS, *CLASSICAL):
                if (gap := self.difference(measure, other)) is not None:
                    rows.setdefault("best_minus", {})[other] = gap.as_dict()
            if rows:
                tops[measure] = rows
        if SVM in self.readers:
            tops[SVM] = {"pixels": _told(self.readers[SVM][SVM], "top1")}
        if (judged := self.scored(judge.PART, judge.PART)) is not None:
            tops[judge.PART] = {"top1": judged.interval().as_dict()}
        made = tops | {part: self._of_generators(part) for part in (likelihood.PART, samples.PART, inpainting.PART)}
        return {part: rows for part, rows in made.items() if rows} | {"seconds": self.seconds()}

    def _of_generators(self, part: str) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for name, one in self.generators(part).items():
            numbers = {key: one.interval(key).as_dict() for key in one.scores}
            if part == likelihood.PART:
                rows[name] = {key: {"top1": number} for key, number in numbers.items()}
            else:
                rows[name] = numbers | {key: one.record[key] for key in FRECHET if key in one.record}
        if part == samples.PART and rows:  # those of the model that is best on the validation part, without its name
            tried = {name: max(one.record["tried"].values()) for name, one in self.generators(part).items()}
            rows |= {"best": (best := max(tried, key=tried.__getitem__)), **rows[best]}
        return rows

    def seconds(self) -> dict[str, float]:
        """Return the processor seconds of each part."""
        paths = sorted(self.found.glob("*/*.json"))
        return {f"{path.parent.name}/{path.stem}": json.loads(path.read_text("utf-8"))["seconds"] for path in paths}


FRECHET = ("frechet", "frechet_of_train", "reconstructed")


def _told(one: Scored, kind: str) -> dict[str, Any]:
    chosen = {key: one.record[key] for key in ("variant", "setting", "accuracy")}
    return {kind: one.interval().as_dict(), "reader": one.record["reader"], **chosen}
