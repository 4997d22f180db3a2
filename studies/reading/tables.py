"""Tables of the study, with intervals over seeds of pretraining, then groups, then images.

python -m studies.reading.tables OUT/data1-split1 --specs > docs/reading-tables.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from randfeat.probes import Interval, holm

from randfeat import cli

from . import attended, moved
from .models import MODELS
from .results import ALL, MEASURES, SUPERVISED, TITLES, VARIANTS, Compared, Found, Results, Runs, every
from .units import EQUAL

Claims = dict[tuple[str, str], Compared]  # by claim and measure
OURS = ("randar", "arpg")
CONTROLS = ("raster", "masked", "pixels-mae")


def main_table(results: Results) -> Iterator[str]:
    """Yield the rows, in Markdown, of every model and baseline in every measure, in per cent.

    † marks the best baseline on train.
    """
    having = {name: results.found[name] for name in TITLES if name in results.found}
    seeds = most(found.right(f"{measure}|any") for found in having.values() for measure in ALL)
    yield from heading((f"{results.set}, {len(results.groups)} test images, {counted(seeds)}", *ALL))
    for name, found in having.items():
        yield f"| {TITLES[name]} | {' | '.join(cell(results, found.right(f'{m}|any'), seeds) for m in ALL)} |"
    (scores,) = (of for _, of in results.classical.units.values())
    for name in dict.fromkeys(key.split("|")[1] for key in scores if key.startswith(ALL)):
        if name != "any":
            cells = [
                cell(results, results.classical.right(f"{measure}|{name}"), 1)
                + "†" * (results.strongest(measure)[0] == name)
                for measure in ALL
            ]
            yield f"| *{name}* | {' | '.join(cells)} |"


def equal_table(results: Results) -> Iterator[str]:
    """Yield the rows of each model's best spec and of the strongest baseline, in `EQUAL` principal components."""
    seeds = most(found.right(f"linear|any|{EQUAL}") for name, found in results.found.items() if name in TITLES)
    yield from heading((f"{results.set}, {EQUAL} dimensions, {counted(seeds)}", *MEASURES))
    for name, title in TITLES.items():
        if found := results.found.get(name):
            cells = (cell(results, found.right(f"{measure}|any|{EQUAL}"), seeds) for measure in MEASURES)
            yield f"| {title} | {' | '.join(cells)} |"
    cells = (cell(results, results.classical.right(f"{measure}|any|{EQUAL}"), 1) for measure in MEASURES)
    yield f"| *strongest baseline* | {' | '.join(cells)} |"


def equal_claims(results: Results) -> Claims:
    """Return the differences at equal dimension."""
    made: dict[tuple[str, str], Compared | None] = {}
    for measure in MEASURES:
        at = f"{measure}|any|{EQUAL}"
        for name in OURS:
            if ours := results.found.get(name):
                others = {TITLES[one]: results.found[one] for one in CONTROLS if one in results.found}
                for title, other in (others | {"strongest baseline": results.classical}).items():
                    difference = results.difference(ours.right(at), other.right(at))
                    made[f"{TITLES[name]} − {title}", measure] = difference
    return {claim: one for claim, one in made.items() if one is not None}


def heading(cells: Iterable[str]) -> list[str]:
    """Return the first rows of a Markdown table."""
    titles = [*cells]
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def most(runs: Iterable[Runs]) -> int:
    """Return the largest number of seeds."""
    return max(map(len, runs), default=0)


def counted(seeds: int) -> str:
    """Return a number of seeds in words."""
    return f"{seeds} seed{'s' * (seeds != 1)}"


def cell(results: Results, runs: Runs, seeds: int) -> str:
    """Return per cent with an interval, and the number of seeds where it is not `seeds`."""
    if not runs:
        return ""
    return percent(results.interval(runs)) + of_fewer(len(runs), seeds)


def of_fewer(seeds: int, most: int) -> str:
    """Return a remark where a cell has fewer seeds than its table."""
    return "" if seeds == most else f" ({counted(seeds)})"


def supervised_table(results: Results) -> Iterator[str]:
    """Yield the rows of models trained with labels, which classify without a probe.

    The last rows compare an attentive probe of a generator trained without labels with the supervised ViT.
    """
    yield from heading(("", "accuracy"))
    for name, title in SUPERVISED.items():
        if found := results.found.get(name):
            for how in next(iter(found.units.values()))[1]:
                runs = found.right(how)
                yield f"| {title}: {how}, {counted(len(runs))} | {percent(results.interval(runs))} |"
    for name in OURS:
        if {name, "vit-labels"} <= {*results.found}:
            probed, classifier = results.found[name].right(f"{attended.MEASURE}|any"), results.found["vit-labels"]
            if one := results.difference(probed, classifier.right("itself")):
                title = f"{TITLES[name]} without labels, attentive probe − ViT, {counted(one.seeds)}"
                yield f"| {title} | {percent(one.difference)} |"


def claims(results: Results) -> Claims:
    """Return the differences of the study's main claims, by claim and measure."""
    made: dict[tuple[str, str], Compared | None] = {}
    for measure in ALL:
        for name in OURS:
            if name in results.found:
                made |= {(f"{TITLES[name]}{said}", measure): one for said, one in _claims(results, name, measure)}
    return {claim: one for claim, one in made.items() if one is not None}


def _claims(results: Results, ours: str, measure: str) -> Iterator[tuple[str, Compared | None]]:
    """Yield the differences of one model to controls, strongest baseline and one causal pass of its own."""
    mine = results.found[ours]
    best, one = mine.right(f"{measure}|any"), mine.right(f"{measure}|one")
    for other in CONTROLS:
        if other in results.found:
            yield f" − {TITLES[other]}", results.difference(best, results.found[other].right(f"{measure}|any"))
    yield " − strongest baseline", results.difference(best, results.strongest(measure)[1])
    yield ": both sides − one pass", results.difference(mine.right(f"{measure}|both"), one)
    yield ": both sides − one pass at its cost", results.difference(mine.right(f"{measure}|both, equal"), one)


def variant_claims(results: Results) -> Claims:
    """Return the differences of variants to their plain models, seed by seed, on plain images and in the best view."""
    made: dict[tuple[str, str], Compared | None] = {}
    for name, title in VARIANTS.items():
        if (changed := results.found.get(name)) and (plain := results.found.get(str(MODELS[name].plain))):
            scores = {f"{title} − plain": {measure: f"{measure}|any" for measure in ALL}}
            scores[f"{title} − plain, each at its best view"] = {
                measure: f"moved|{measure}|best" for measure in MEASURES
            }
            for claim, names in scores.items():
                for measure, of in names.items():
                    made[claim, measure] = results.difference(changed.right(of), plain.right(of))
    return {claim: one for claim, one in made.items() if one is not None}


def claims_table(results: Results, made: Claims) -> Iterator[str]:
    """Yield a row for each claim, in bold where it holds after Holm's correction over the table."""
    held = holm({f"{claim}, {measure}": one.difference.p for (claim, measure), one in made.items()})
    measures, seeds = dict.fromkeys(measure for _, measure in made), max(one.seeds for one in made.values())
    yield from heading((f"{results.set}, {counted(seeds)}", *measures))
    for claim in dict.fromkeys(claim for claim, _ in made):
        cells = []
        for measure in measures:
            if (one := made.get((claim, measure))) is None:
                cells.append("")
                continue
            bold = "**" if held[f"{claim}, {measure}"].holds else ""
            cells.append(f"{bold}{percent(one.difference)}{bold}{of_fewer(one.seeds, seeds)}")
        yield f"| {claim} | {' | '.join(cells)} |"


def moved_table(results: Results) -> Iterator[str]:
    """Yield the rows of each model in each view of the images; † marks the best view on train."""
    everyone = moved_found(results)
    seeds = most(found.right("moved|linear|best") for found in everyone.values())
    yield from heading((f"{results.set}, {counted(seeds)}", *MEASURES))
    for title, found in everyone.items():
        chosen = [record["moved"]["views"] for record in found.records if "moved" in record]
        for view in moved.VIEWS:
            cells = []
            for measure in MEASURES:
                runs = found.right(f"moved|{measure}|{view}")
                best = all(views[measure] == view for views in chosen)
                cells.append(cell(results, runs, 1 if None in runs else seeds) + "†" * best)
            yield f"| {title}, {view} | {' | '.join(cells)} |"


def moved_found(results: Results) -> dict[str, Found]:
    """Return every model and variant with scores of views, and HOG, by title."""
    everyone = {title: results.found[name] for name, title in (TITLES | VARIANTS).items() if name in results.found}
    everyone[moved.BASELINE] = results.classical
    return {title: one for title, one in everyone.items() if any("moved" in record for record in one.records)}


def moved_claims(results: Results) -> Claims:
    """Return the gains by shifts, and the differences of models, each in the view that was best on train."""
    found = moved_found(results)
    made: dict[tuple[str, str], Compared | None] = {}
    for measure in MEASURES:
        best = f"moved|{measure}|best"
        for name in (*OURS, *VARIANTS):
            if (title := (TITLES | VARIANTS)[name]) in found:
                as_it_is, four = (found[title].right(f"moved|{measure}|{view}") for view in [*moved.VIEWS][:2])
                made[f"{title}: 2 x 2 shifts − as it is", measure] = results.difference(four, as_it_is)
                for other in (*(TITLES[control] for control in CONTROLS), moved.BASELINE):
                    if other in found:
                        both = found[title].right(best), found[other].right(best)
                        made[f"{title} − {other}, each at its best view", measure] = results.difference(*both)
    return {claim: one for claim, one in made.items() if one is not None}


def ratios_row(results: Results, name: str) -> str:
    """Return the row of a model's errors relative to the raster control's, over the seeds that both have."""
    ratios = []
    for measure in MEASURES:
        ours, theirs = (results.found[one].right(f"{measure}|any") for one in (name, "raster"))
        seeds = ours.keys() & theirs.keys()
        of_ours, of_theirs = (np.mean([1 - runs[seed].mean() for seed in seeds]) for runs in (ours, theirs))
        ratios.append(f"{of_ours / of_theirs:.2f}")
    return f"| {TITLES[name]} | {' | '.join(ratios)} |"


def specs_table(results: Results, model: str) -> Iterator[str]:
    """Yield a row for every feature spec on train: its cost, and the difference from the first spec in each measure."""
    found, groups = results.found[model], results.ranked_groups
    costs = found.records[0]["reading_flops"]
    centre = next(iter(costs))
    chosen = [record["chosen"] for record in found.records]
    yield from heading((f"{TITLES[model]}, {results.set}", "MFLOP", *ALL, "chosen"))
    for spec, cost in costs.items():
        cells = []
        for measure in ALL:
            runs, beside = (found.right(f"train|{measure}|{one}") for one in (spec, centre))
            if not runs:  # correspondence has no pooling
                cells.append("")
            elif spec == centre:
                cells.append(f"{100 * np.mean([*runs.values()]):.1f}")
            elif (one := results.difference(runs, beside, groups, 2000)) is not None:
                bold = "**" if one.difference.excludes_zero else ""
                cells.append(f"{bold}{percent(one.difference)}{bold}")
        times = sum(one.get(f"{measure}|any") == spec for one in chosen for measure in ALL)
        yield f"| `{spec}` | {cost / 1e6:.0f} | {' | '.join(cells)} | {times or ''} |"


def costs_table(results: Results) -> Iterator[str]:
    """Yield the rows of pretraining costs."""
    yield from heading((results.set, "training, TFLOP", "steps", "learning rate", "parameters"))
    for name, found in results.found.items():
        record = found.records[0]
        training = record.get("training", {})
        yield (
            f"| {(TITLES | SUPERVISED | VARIANTS)[name]} | {record['flops'] / 1e12:.2f} | {training.get('steps', 0)} | "
            f"{training.get('learning_rate', 0):g} | {record['parameters']:,} |"
        )


def percent(one: Interval) -> str:
    """Return an interval in per cent."""
    value, low, high = (f"{round(100 * x, 1) + 0:.1f}" for x in (one.value, one.low, one.high))  # never -0.0
    return f"{value} [{low}, {high}]".replace("-", "−")


HEAD = """# Tables of the study

The study is described in [reading.md](reading.md). All numbers are per cent or points, with 95 % intervals over seeds
of pretraining, then groups, then images; a cell of fewer seeds than its table says how many. Every model, baseline and
view is scored on test images once, with the choices that were best on training images.
"""


def sections(results: Results, specs: bool) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield title and rows of every table of a set. specs: include the tables of all feature specs."""
    yield "Models and baselines; † the strongest baseline on train", main_table(results)
    if made := claims(results):
        yield "Differences; in bold what holds after Holm's correction over this table", claims_table(results, made)
    yield f"Features reduced to {EQUAL} principal components", equal_table(results)
    if made := equal_claims(results):
        yield "Differences of these; in bold as above", claims_table(results, made)
    if any(name in results.found for name in SUPERVISED):
        yield "Models pretrained with labels, classifying by themselves", supervised_table(results)
    if made := moved_claims(results):
        yield "Views of the images; † the best view on train of all seeds", moved_table(results)
        yield "Differences of these; in bold as above", claims_table(results, made)
    if made := variant_claims(results):
        yield "Variants of pretraining, seed by seed; in bold as above", claims_table(results, made)
    yield "Costs of pretraining", costs_table(results)
    if ratios := [ratios_row(results, name) for name in OURS if {name, "raster"} <= {*results.found}]:
        yield "Errors as a share of the raster-order control's", [*heading(("", *MEASURES)), *ratios]
    for name in [name for name in TITLES if specs and name in results.found and results.found[name].ranked]:
        title = f"Every feature spec of {TITLES[name]}, on train: the first, and differences from it, in bold without 0"
        yield f"{title}; how often each was chosen", specs_table(results, name)


def main() -> None:
    """Print the tables of every set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT/dataD-splitS", help="results of the study")
    parser.add_argument("--specs", action="store_true", help="include the tables of all feature specs")
    args = parser.parse_args()
    found = every(args.folder)
    print(HEAD)
    for results in found:
        print(f"## {results.set}\n")
        for title, rows in sections(results, args.specs):
            print(f"### {title}\n", *rows, sep="\n", end="\n\n")


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.reading.tables", main, "Nothing was written."))
