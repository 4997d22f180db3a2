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

from . import attended, moved
from .material import Material, read
from .scoring import MEASURES
from .units import RANKED
from .warped import ALPHA, some

WARPED = f"PCK@{ALPHA:g}"  # of points in the image itself, warped: see `warped`
ALL = (*MEASURES, attended.MEASURE, WARPED)
DRAWS = 8000  # of the bootstrap: enough for Holm's correction of 40 claims and more
Claims = dict[tuple[str, str], Difference]  # by claim and measure
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

    def has(self, name: str) -> bool:
        return all(name in one for one in self.scores)


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
            tuple(_record(folder) for folder in folders),
            tuple(_scores(folder) for folder in folders),
        )

    @cached_property
    def found(self) -> dict[str, Found]:
        """Every contender, over the seeds that all trained ones have."""
        names = [name for name in TITLES if self.contender(name)]
        most = min((len(self.contender(name).records) for name in names), default=0)  # type: ignore[union-attr]
        return {name: self.contender(name, most) for name in names}  # type: ignore[misc]

    @cached_property
    def classical(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return _record(self.folder / "classical"), _scores(self.folder / "classical")

    def interval(self, right: np.ndarray) -> Interval:
        return bootstrap(right, matching(self.groups, right), DRAWS)

    def difference(self, a: np.ndarray, b: np.ndarray) -> Difference:
        return paired(a, b, matching(self.groups, a), DRAWS)

    def strongest(self, measure: str) -> tuple[str, np.ndarray]:
        """The classical baseline that did best on train, and its scores on test (n,)."""
        record, scores = self.classical
        name = record["chosen"][f"{measure}|any"]
        return name, scores[f"{measure}|{name}"].astype(np.float64)


def matching(groups: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The groups of the images that were scored: all, or those that points were looked for in."""
    return groups if right.shape[-1] == len(groups) else some(groups)


def _record(folder: Path) -> dict[str, Any]:
    """What `units`, `warped`, `attended` and `moved` chose."""
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
    """What they measured, of train as "train|MEASURE|READING", of moved images as "moved|MEASURE|VIEW"; of
    correspondence the first images are scored alone."""
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


def main_table(results: Results, kind: str = "any") -> Iterator[str]:
    """Rows of Markdown: every contender and baseline in every measure, in per cent."""
    seeds = len(next(iter(results.found.values())).records)
    yield f"| {results.set}, {len(results.groups)} test images, {seeds} seed{'s' * (seeds > 1)} | {' | '.join(ALL)} |"
    yield "|---" * (len(ALL) + 1) + "|"
    for name, found in results.found.items():
        cells = [percent(results.interval(found.right(f"{m}|{kind}"))) if found.has(f"{m}|{kind}") else "" for m in ALL]
        yield f"| {TITLES[name]} | {' | '.join(cells)} |"
    record, scores = results.classical
    for name in dict.fromkeys(key.split("|")[1] for key in scores if key.startswith(ALL)):
        if name != "any":
            cells = []
            for measure in ALL:
                right, star = scores.get(f"{measure}|{name}"), record["chosen"].get(f"{measure}|any") == name
                cell = "" if right is None else percent(results.interval(right.astype(np.float64)))
                cells.append(cell + "†" * star)
            yield f"| *{name}* | {' | '.join(cells)} |"


def supervised_table(results: Results) -> Iterator[str]:
    """Rows of Markdown: who saw the labels in training, and classifies without a probe."""
    yield f"| {results.set}: saw labels | accuracy |"
    yield "|---|---|"
    for name, title in SUPERVISED.items():
        if found := results.contender(name):
            for how in found.scores[0]:
                yield f"| {title}: {how} | {percent(results.interval(found.right(how)))} |"


def claims(results: Results) -> Claims:
    """The differences that the bars speak of, by what they say and the measure."""
    made: Claims = {}
    for measure in ALL:
        for ours in ("randar", "arpg"):
            if ours in results.found and results.found[ours].has(f"{measure}|any"):
                made |= {(f"{TITLES[ours]}{name}", measure): one for name, one in _claims(results, ours, measure)}
    return made


def _claims(results: Results, ours: str, measure: str) -> Iterator[tuple[str, Difference]]:
    """Of one model in one measure: beside the controls, the strongest baseline, and one causal pass of its own."""
    mine = results.found[ours]
    best, one = mine.right(f"{measure}|any"), mine.right(f"{measure}|one")
    for other in ("raster", "masked", "pixels-mae"):
        if other in results.found and results.found[other].has(f"{measure}|any"):
            yield f" − {TITLES[other]}", results.difference(best, results.found[other].right(f"{measure}|any"))
    if f"{measure}|any" in results.classical[0]["chosen"]:  # of tokens alone no baseline is attended to
        yield " − strongest baseline", results.difference(best, results.strongest(measure)[1])
    yield ": both sides − one pass", results.difference(mine.right(f"{measure}|both"), one)
    yield ": both sides − one pass at its cost", results.difference(mine.right(f"{measure}|both, equal"), one)


def claims_table(results: Results, made: Claims) -> Iterator[str]:
    """Rows of Markdown: a claim in every measure, in bold where it holds after Holm's correction over all of them."""
    held = holm({f"{claim}, {measure}": one.p for (claim, measure), one in made.items()})
    measures = dict.fromkeys(measure for _, measure in made)
    yield f"| {results.set}: difference in points | {' | '.join(measures)} |"
    yield "|---" * (len(measures) + 1) + "|"
    for claim in dict.fromkeys(claim for claim, _ in made):
        cells = []
        for measure in measures:
            one = made.get((claim, measure))
            bold = "**" if one is not None and held[f"{claim}, {measure}"].holds else ""
            cells.append("" if one is None else f"{bold}{percent(one)}{bold}")
        yield f"| {claim} | {' | '.join(cells)} |"


def moved_table(results: Results) -> Iterator[str]:
    """Rows of Markdown: what each is worth when images are moved before they are read; † the best view on train."""
    everyone = moved_found(results)
    seeds = max(len(found.records) for found in everyone.values())
    yield f"| {results.set}: images are read, {seeds} seed{'s' * (seeds > 1)} | {' | '.join(MEASURES)} |"
    yield "|---" * (len(MEASURES) + 1) + "|"
    for name, found in everyone.items():
        for view in moved.VIEWS:
            cells = []
            for measure in MEASURES:
                best = all(record["moved"]["views"][measure] == view for record in found.records)
                cells.append(percent(results.interval(found.right(f"moved|{measure}|{view}"))) + "†" * best)
            yield f"| {name}, {view} | {' | '.join(cells)} |"


def moved_found(results: Results) -> dict[str, Found]:
    """Of every contender that was read so, with the seeds that all of these have, and of HOG, by title."""
    having = {
        name: {i for i, record in enumerate(one.records) if "moved" in record} for name, one in results.found.items()
    }
    having = {name: there for name, there in having.items() if there}
    common = sorted(set.intersection(*having.values())) if having else []  # seeds
    found = {}
    for name in having if common else ():
        one = results.found[name]
        found[TITLES[name]] = Found(*(tuple(part[i] for i in common) for part in (one.records, one.scores)))
    record, scores = results.classical
    return found | ({moved.BASELINE: Found((record,), (scores,))} if "moved" in record else {})


def moved_claims(results: Results) -> Claims:
    """What shifts bring, and what is ahead of what when each is read in the view that was best on train."""
    found = moved_found(results)

    def best(title: str, measure: str) -> np.ndarray:
        one = found[title]
        views = (record["moved"]["views"][measure] for record in one.records)
        right = np.stack([each[f"moved|{measure}|{view}"] for each, view in zip(one.scores, views, strict=True)])
        return (right[0] if title == moved.BASELINE else right).astype(np.float64)

    made: Claims = {}
    for measure in MEASURES:
        for title in (TITLES[name] for name in ("randar", "arpg") if TITLES[name] in found):
            as_it_is, four = (found[title].right(f"moved|{measure}|{view}") for view in [*moved.VIEWS][:2])
            made[f"{title}: 2 x 2 shifts − as it is", measure] = results.difference(four, as_it_is)
            for other in (TITLES["raster"], TITLES["masked"], moved.BASELINE):
                if other in found:
                    pair = best(title, measure), best(other, measure)
                    made[f"{title} − {other}, each at its best view", measure] = results.difference(*pair)
    return made


def error_ratio(results: Results, measure: str) -> float:
    """Of RandAR's errors to the raster control's."""
    ours, theirs = (1 - results.found[name].right(f"{measure}|any").mean() for name in ("randar", "raster"))
    return float(ours / theirs)


def readings_table(results: Results, contender: str) -> Iterator[str]:
    """Every reading on train: what it costs, and each measure beside the centre's, over seeds, groups and images."""
    found, material = results.found[contender], results.material
    groups, costs = material.groups[material.ranked], found.records[0]["reading_flops"]
    centre = next(iter(costs))
    chosen = [record["chosen"] for record in found.records]
    yield f"| {TITLES[contender]} on {results.set} | MFLOP | {' | '.join(ALL)} | chosen |"
    yield "|---" * (len(ALL) + 3) + "|"
    for spec, cost in costs.items():
        cells = []
        for measure in ALL:
            if not found.has(name := f"train|{measure}|{spec}"):  # correspondence knows no pooling
                cells.append("")
            elif spec == centre:
                cells.append(f"{100 * found.right(name).mean():.1f}")
            else:
                right = found.right(name)
                one = paired(
                    right,
                    found.right(f"train|{measure}|{centre}"),
                    groups if right.shape[-1] == len(groups) else some(groups),
                    2000,
                )
                cells.append(f"{'**' if one.excludes_zero else ''}{percent(one)}{'**' if one.excludes_zero else ''}")
        times = sum(one.get(f"{measure}|any") == spec for one in chosen for measure in ALL)
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


def percent(one: Interval) -> str:
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
        parts = [main_table(results), claims_table(results, claims(results))]
        if any(results.contender(name) for name in SUPERVISED):
            parts.append(supervised_table(results))
        if made := moved_claims(results):
            parts += [moved_table(results), claims_table(results, made)]
        parts.append(costs_table(results))
        if "raster" in results.found and "randar" in results.found:
            ratios = ", ".join(f"{measure} {error_ratio(results, measure):.2f}" for measure in MEASURES)
            parts.append(iter([f"Errors of RandAR to those of the raster control: {ratios}."]))
        if args.readings:
            parts += [readings_table(results, name) for name in results.found]
        print("\n\n".join("\n".join(part) for part in parts), end="\n\n")


if __name__ == "__main__":
    main()
