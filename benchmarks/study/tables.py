"""What the units found, as tables with intervals: over seeds of pretraining, then groups, then images.

python -m benchmarks.study.tables OUT/data1-split1 > tables.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from randfeat.probes import Difference, Interval, bootstrap, holm, paired

from .material import Material, read
from .scoring import MEASURES

DRAWS = 8000  # of the bootstrap: enough for Holm's correction of 40 claims and more
SUPERVISED = {
    "randar-labels": "RandAR with labels",
    "arpg-labels": "ARPG with labels",
    "vit-labels": "ViT, trained on the labels",
}
TITLES = {
    "randar": "RandAR",
    "arpg": "ARPG",
    "raster": "raster-order control",
    "masked": "masked tokens",
    "pixels-mae": "masked autoencoder, pixels",
    "random-weights": "RandAR, random weights",
}


@dataclass(frozen=True)
class Found:
    """The finished units of one contender on one set, seed by seed."""

    records: tuple[dict[str, Any], ...]
    scores: tuple[Mapping[str, np.ndarray], ...]

    def right(self, name: str) -> np.ndarray:
        """How right each image is: (seeds, n), see `units.measure` for the names."""
        return np.stack([one[name] for one in self.scores]).astype(np.float64)


class Results:
    """Everything of one set in a folder that the study left."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.set = folder, folder.name

    @cached_property
    def material(self) -> Material:
        return read(self.set, self.folder / "material.npz")

    @cached_property
    def groups(self) -> np.ndarray:
        """Of the tested images."""
        return self.material.groups[self.material.tested]

    def contender(self, name: str, seeds: int | None = None) -> Found | None:
        """Its units in the order of their seeds, or None where there is none."""
        folders = sorted(
            (path.parent for path in (self.folder / name).glob("*/record.json")), key=lambda p: int(p.name)
        )
        folders = folders[:seeds]
        if not folders:
            return None
        return Found(
            tuple(json.loads((folder / "record.json").read_text("utf-8")) for folder in folders),
            tuple(dict(np.load(folder / "scores.npz")) for folder in folders),
        )

    @cached_property
    def found(self) -> dict[str, Found]:
        """Every contender, over the seeds that all trained ones have."""
        names = [name for name in TITLES if self.contender(name)]
        most = min(len(self.contender(name).records) for name in names)  # type: ignore[union-attr]
        return {name: self.contender(name, most) for name in names}  # type: ignore[misc]

    @cached_property
    def classical(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        folder = self.folder / "classical"
        return json.loads((folder / "record.json").read_text("utf-8")), dict(np.load(folder / "scores.npz"))

    def interval(self, right: np.ndarray) -> Interval:
        return bootstrap(right, self.groups, DRAWS)

    def difference(self, a: np.ndarray, b: np.ndarray) -> Difference:
        return paired(a, b, self.groups, DRAWS)

    def strongest(self, measure: str) -> tuple[str, np.ndarray]:
        """The classical baseline that did best on train, and its scores on test (n,)."""
        record, scores = self.classical
        return record["chosen"][f"{measure}|any"], scores[f"{measure}|any"].astype(np.float64)


def main_table(results: Results, kind: str = "any") -> Iterator[str]:
    """Rows of Markdown: every contender and baseline in every measure, in per cent."""
    seeds = len(next(iter(results.found.values())).records)
    yield f"| {results.set}, {len(results.groups)} test images, {seeds} seeds | {' | '.join(MEASURES)} |"
    yield "|---" * (len(MEASURES) + 1) + "|"
    for name, found in results.found.items():
        cells = [_cell(results.interval(found.right(f"{measure}|{kind}"))) for measure in MEASURES]
        yield f"| {TITLES[name]} | {' | '.join(cells)} |"
    record, scores = results.classical
    for name in dict.fromkeys(key.split("|")[1] for key in scores if not key.startswith("train|")):
        if name != "any":
            cells = [_cell(results.interval(scores[f"{measure}|{name}"].astype(np.float64))) for measure in MEASURES]
            stars = ["†" if record["chosen"][f"{measure}|any"] == name else "" for measure in MEASURES]
            yield f"| *{name}* | {' | '.join(cell + star for cell, star in zip(cells, stars, strict=True))} |"


def supervised_table(results: Results) -> Iterator[str]:
    """Rows of Markdown: who saw the labels in training, and classifies without a probe."""
    yield f"| {results.set}: saw labels | accuracy |"
    yield "|---|---|"
    for name, title in SUPERVISED.items():
        if found := results.contender(name):
            for how in found.scores[0]:
                yield f"| {title}: {how} | {_cell(results.interval(found.right(how)))} |"


def claims(results: Results) -> dict[str, Difference]:
    """The differences that the bars speak of, by what they say."""
    made: dict[str, Difference] = {}
    found = results.found
    for measure in MEASURES:
        for ours in ("randar", "arpg"):
            if ours not in found:
                continue
            best = found[ours].right(f"{measure}|any")
            for other in ("raster", "masked", "pixels-mae"):
                if other in found:
                    made[f"{TITLES[ours]} − {TITLES[other]}, {measure}"] = results.difference(
                        best, found[other].right(f"{measure}|any")
                    )
            name, baseline = results.strongest(measure)
            made[f"{TITLES[ours]} − {name}, {measure}"] = results.difference(best, baseline)
            one = found[ours].right(f"{measure}|one")
            made[f"{TITLES[ours]}: both sides − one pass, {measure}"] = results.difference(
                found[ours].right(f"{measure}|both"), one
            )
            made[f"{TITLES[ours]}: both sides − one pass at its cost, {measure}"] = results.difference(
                found[ours].right(f"{measure}|both, equal"), one
            )
    return made


def claims_table(results: Results) -> Iterator[str]:
    made = claims(results)
    held = holm({name: one.p for name, one in made.items()})
    yield f"| {results.set}: claim | difference, points | p after Holm |"
    yield "|---|---|---|"
    for name, one in made.items():
        bold = "**" if held[name].holds else ""
        yield f"| {name} | {bold}{_cell(one)}{bold} | {held[name].adjusted:.3f} |"


def error_ratio(results: Results, measure: str) -> float:
    """Of RandAR's errors to the raster control's."""
    ours, theirs = (1 - results.found[name].right(f"{measure}|any").mean() for name in ("randar", "raster"))
    return float(ours / theirs)


def readings_table(results: Results, contender: str) -> Iterator[str]:
    """Every reading on train: what it costs, and each measure beside the centre's, over seeds, groups and images."""
    found, material = results.found[contender], results.material
    groups, costs = material.groups[material.probed], found.records[0]["reading_flops"]
    centre = next(iter(costs))
    chosen = [record["chosen"] for record in found.records]
    yield f"| {TITLES[contender]} on {results.set} | MFLOP | {' | '.join(MEASURES)} | chosen |"
    yield "|---" * (len(MEASURES) + 3) + "|"
    for spec, cost in costs.items():
        cells = []
        for measure in MEASURES:
            right = found.right(f"train|{measure}|{spec}")
            if spec == centre:
                cells.append(f"{100 * right.mean():.1f}")
            else:
                one = paired(right, found.right(f"train|{measure}|{centre}"), groups, 2000)
                cells.append(f"{'**' if one.excludes_zero else ''}{_cell(one)}{'**' if one.excludes_zero else ''}")
        times = sum(one[f"{measure}|any"] == spec for one in chosen for measure in MEASURES)
        yield f"| `{spec}` | {cost / 1e6:.0f} | {' | '.join(cells)} | {times or ''} |"


def costs_table(results: Results) -> Iterator[str]:
    yield f"| {results.set} | training, TFLOP | steps | learning rate | parameters |"
    yield "|---|---|---|---|---|"
    for name, found in results.found.items():
        record = found.records[0]
        training = record.get("training", {})
        yield (
            f"| {TITLES[name]} | {record['flops'] / 1e12:.2f} | {training.get('steps', 0)} | "
            f"{training.get('learning_rate', 0):g} | {record['parameters']:,} |"
        )


def _cell(one: Interval) -> str:
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT/dataD-splitS", help="what the study left")
    parser.add_argument("--readings", action="store_true", help="every reading, too")
    args = parser.parse_args()
    for path in sorted(args.folder.glob("*/classical/record.json")):
        results = Results(path.parents[1])
        if not any(results.contender(name) for name in TITLES):
            continue
        parts = [main_table(results), supervised_table(results), claims_table(results), costs_table(results)]
        if "raster" in results.found and "randar" in results.found:
            ratios = ", ".join(f"{measure} {error_ratio(results, measure):.2f}" for measure in MEASURES)
            parts.append(iter([f"Errors of RandAR to those of the raster control: {ratios}."]))
        if args.readings:
            parts += [readings_table(results, name) for name in results.found]
        print("\n\n".join("\n".join(part) for part in parts), end="\n\n")


if __name__ == "__main__":
    main()
