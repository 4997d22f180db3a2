"""Tables, numbers and pictures of docs/results/fashion.md, made of what the study has found.

python -m studies.fashion.tables docs
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from randfeat.probes import holm

from randfeat import cli
from randfeat.utils import atomic
from studies.reading.tables import percent
from studies.tokenizers.tables import as_csv

from . import inpainting, judge, likelihood, samples, trials
from .results import CLASSICAL, CONTROLS, FOUND, MEASURES, SVM, TITLES, Results

Row = list[str]
# numbers of others on the same test images, in per cent, with their source; none of them was run here
ZALANDO = "benchmark of the authors"
PUBLISHED: dict[tuple[str, str], tuple[str, str]] = {
    ("pixels", "knn"): ("85.4 to 86.1", ZALANDO),
    (SVM, SVM): ("89.7 to 90.7", ZALANDO),
}
FURTHER = (
    ("gradient boosting on pixels", "89.8 to 90.9", ZALANDO),
    ("HOG and SVM", "92.6", "listed by the authors, not tested by them"),
    ("convolutional network below 100,000 parameters", "92.5", "listed by the authors, not tested by them"),
    ("WRN-40-4", "96.7", "listed by the authors, not tested by them"),
    ("people", "83.5", "study of the authors"),
)
GENERATORS = {
    "arpg": "ARPG, labels",
    "randar": "RandAR, labels",
    "arpg_free": "ARPG, label-free",
    "randar_free": "RandAR, label-free",
}


def features(results: Results) -> Iterator[Row]:
    """Yield the rows of every reader in every measure, in per cent."""
    yield ["in %", *MEASURES.values(), "published"]
    for name, made in results.readers.items():
        cells = [percent(made[one].interval()) if one in made else "" for one in MEASURES]
        if name == SVM:
            cells[0] = percent(made[SVM].interval())
        told = [f"{MEASURES.get(one, '')} {value}".strip() for (of, one), (value, _) in PUBLISHED.items() if of == name]
        yield [TITLES[name], *cells, ", ".join(told)]


def differences(results: Results) -> Iterator[Row]:
    """Yield the rows of our best reading less every other reader, in points, bold where it holds after Holm's
    correction.
    """
    yield ["best label-free reading less ..., in points", *MEASURES.values()]
    others = [name for name in (*CONTROLS, *CLASSICAL) if name in results.readers]
    made = {
        (other, one): gap for other in others for one in MEASURES if (gap := results.difference(one, other)) is not None
    }
    if not made:
        return
    held = holm({"|".join(key): gap.p for key, gap in made.items()})
    for other in dict.fromkeys(other for other, _ in made):
        cells = []
        for one in MEASURES:
            gap = made.get((other, one))
            bold = "**" if gap is not None and held[f"{other}|{one}"].holds else ""
            cells.append("" if gap is None else f"{bold}{percent(gap)}{bold}")
        yield [TITLES[other], *cells]


def choices(results: Results) -> Iterator[Row]:
    """Yield the rows of what was chosen for each reader and measure."""
    yield ["reader", "measure", "chosen", "setting", "dimensions", "on the validation part, %", "processor s"]
    for name, made in results.readers.items():
        for measure, one in made.items():
            told = one.record
            setting = ", ".join(f"{key} {value}" for key, value in told["setting"].items())
            cells = [told["variant"], setting, f"{told['dimensions']:,}", f"{100 * told['accuracy']:.1f}"]
            yield [TITLES[name], MEASURES.get(measure, measure), *cells, f"{told['seconds']:.0f}"]


def likelihoods(results: Results) -> Iterator[Row]:
    """Yield the rows of accuracy by likelihood, in per cent."""
    found = results.generators(likelihood.PART)
    kinds = {f"k{count}": f"K = {count}" for count in likelihood.COUNTS}
    kinds |= {f"k{count}_copies": f"K = {count}, over copies" for count in likelihood.COUNTS[1:]}
    yield ["class by likelihood, in %", *kinds.values(), "passes at K = 16", "test images"]
    for name, one in found.items():
        cells = [percent(one.interval(kind)) for kind in kinds]
        yield [GENERATORS[name], *cells, f"{one.record['passes']:.0f}", f"{one.record['test']:,}"]


def sampled(results: Results) -> Iterator[Row]:
    """Yield the rows of samples, beside training images and what tokens can show."""
    yield ["", "recognised, %", "coverage of test, %", "nearest train / test's", "Fréchet distance", "sampling"]
    for name, one in results.generators(samples.PART).items():
        told, how = one.record, one.record["sampling"]
        ratio = one.interval("nearest_train_ratio")
        setting = f"guidance {how['guidance']['scale']:g}, sweeps {how['sweeps']}, temperature {how['temperature']:g}"
        shares = [percent(one.interval(key)) for key in ("agreement", "recall")]
        near = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        yield [f"{GENERATORS[name]}: {told['samples']:,} samples", *shares, near, f"{told['frechet']:.2f}", setting]
        kept = told["reconstructed"]
        yield ["its tokens of test images", f"{100 * kept['agreement']:.1f}", "", "", f"{kept['frechet']:.2f}", ""]
        shares = [percent(one.interval(key)) for key in ("agreement_of_test", "recall_of_train")]
        yield ["test images; as many training images", *shares, "", f"{told['frechet_of_train']:.2f}", ""]


def inpainted(results: Results) -> Iterator[Row]:
    """Yield the rows of inpainted lower halves, in per cent."""
    yield ["lower half painted", "recognised, %", "test images"]
    for name, one in results.generators(inpainting.PART).items():
        for key in one.scores:
            title = GENERATORS.get(name, key)
            yield [title, percent(one.interval(key)), f"{one.record['test']:,}"]


def published(results: Results) -> Iterator[Row]:
    """Yield the rows of numbers of others."""
    yield ["others, test accuracy", "%", "source"]
    for (name, _), (value, source) in PUBLISHED.items():
        yield [f"k-NN on {TITLES[name]}" if name == "pixels" else TITLES[name], value, source]
    yield from ([*row] for row in FURTHER)


def bars(results: Results) -> Iterator[Row]:
    """Yield the rows of bars and aims, what was measured, and whether it reached them."""
    yield ["", "bar", "aim", "measured", "bar met", "aim met"]
    for measure, bar, aim in (("linear", 0.906, 0.926), ("knn", 0.88, 0.899)):
        if (ours := results.best(measure)) is not None:
            reached = ours.interval()
            yield [f"{MEASURES[measure]}, %", *_shares(bar, aim), percent(reached), *_met(reached.value, bar, aim)]
    for measure in MEASURES:
        for other in ("hog", "raster", "raster_14x14", "masked", "pixel_autoencoder"):
            if (gap := results.difference(measure, other)) is not None:
                title = f"{MEASURES[measure]}, less {TITLES[other]}, points"
                yield [title, "interval above 0", "", percent(gap), "yes" if gap.low > 0 else "no", ""]
    for name, one in results.generators(likelihood.PART).items():
        reached, bar, aim = one.interval("k16"), 0.87, 0.909
        title = f"likelihood, K = 16, {GENERATORS[name]}, %"
        yield [title, *_shares(bar, aim), percent(reached), *_met(reached.value, bar, aim)]
    if (critic := results.scored(judge.PART, judge.PART)) is not None:
        reached = critic.interval()
        yield [
            "judge of samples, on test images, %",
            *_shares(judge.LEAST, None),
            percent(reached),
            *_met(reached.value, judge.LEAST, None),
        ]
    for name, one in results.generators(samples.PART).items():
        reached, bar = one.interval("agreement"), 0.92
        title = f"samples recognised, {GENERATORS[name]}, %"
        yield [title, *_shares(bar, None), percent(reached), *_met(reached.value, bar, None)]
        short = one.scores["recall_of_train"].mean() - one.scores["recall"].mean()
        title = f"coverage below that of training images, {GENERATORS[name]}, points"
        yield [title, "at most 10", "", f"{100 * short:.1f}", *_met(-short, -0.1, None)]


def _shares(bar: float, aim: float | None) -> tuple[str, str]:
    """Return a bar and an aim in per cent."""
    return f"{100 * bar:.1f}", "" if aim is None else f"{100 * aim:.1f}"


def _met(value: float, bar: float, aim: float | None) -> tuple[str, str]:
    """Return whether a value reaches a bar and an aim, as words."""
    return "yes" if value >= bar else "no", "" if aim is None else "yes" if value >= aim else "no"


TABLES = {
    "features": features,
    "differences": differences,
    "choices": choices,
    "likelihood": likelihoods,
    "samples": sampled,
    "inpainting": inpainted,
    "published": published,
    "bars": bars,
    "trials": lambda results: trials.rows(results.found / trials.PART),
}


def write(found: Path, docs: Path) -> list[Path]:
    """Write results/fashion.json, results/fashion_*.csv and images/fashion_*.png; return their paths."""
    results, made = Results(found), []
    for folder in ("results", "images"):
        (docs / folder).mkdir(parents=True, exist_ok=True)
    for name, rows in TABLES.items():
        made.append(docs / "results" / f"fashion_{name}.csv")
        atomic.write_bytes(made[-1], as_csv(rows(results)))
    made.append(docs / "results" / "fashion.json")
    atomic.write_bytes(made[-1], json.dumps(results.numbers(), indent=1).encode() + b"\n")
    for sheet in sorted((found / samples.PART).glob("*.png")):
        made.append(docs / "images" / f"fashion_samples_{sheet.stem}.png")
        shutil.copyfile(sheet, made[-1])
    return made


def main() -> None:
    """Write what the page shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, metavar="DOCS", help="folder of the documentation")
    parser.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    args = parser.parse_args()
    for path in write(args.found, args.docs):
        print(path)


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.fashion.tables", main, "Nothing was written."))
