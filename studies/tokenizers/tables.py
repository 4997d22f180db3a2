"""Tables and pictures of docs/results/tokenizers.md, made of what the study has found.

python -m studies.tokenizers.tables docs
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from randfeat.probes import holm

from randfeat import cli
from randfeat.commands.tokenizer.evaluation import RECORD, interval
from randfeat.utils import atomic
from studies.reading.tables import counted, of_fewer, percent

from . import photographs as small
from .__main__ import FOUND
from .arms import ARMS
from .reconstruction import SETS, SHEET
from .results import COLUMNS, Compared, Results, every

CLAIMS = (
    ("learned", "patches"),
    ("shifted", "patches"),
    ("equivariant", "patches"),
    ("shifted", "learned"),
    ("equivariant", "learned"),
)
BOUNDS = {"fashion": 0.8, "letters": 0.7, "photographs": 0.7}  # largest ratio of mean squared errors aimed at
Row = list[str]


def scores(results: Results) -> Iterator[Row]:
    """Yield the rows of a set: each tokenizer in each measure, in per cent."""
    seeds = max(len(found) for found in results.records.values())
    yield [f"{results.set}, {len(results.groups)} test images, {counted(seeds)}", *COLUMNS]
    for arm in results.records:
        runs = [results.right(arm, name) for name in COLUMNS.values()]
        yield [ARMS[arm].title, *(percent(results.interval(one)) + of_fewer(len(one), seeds) for one in runs)]


def differences(found: Iterable[Results]) -> Iterator[Row]:
    """Yield the rows of paired differences, in points, bold where they hold after Holm's correction over their set."""
    yield ["paired, in points", *COLUMNS]
    for results in found:
        made: dict[tuple[str, str], Compared] = {}
        for ours, other in CLAIMS:
            for title, name in COLUMNS.items():
                if {ours, other} <= {*results.records} and (one := results.difference(ours, other, name)):
                    made[f"{ARMS[ours].title} − {ARMS[other].title}", title] = one
        if not made:
            continue
        held = holm({"|".join(key): one.difference.p for key, one in made.items()})
        for claim in dict.fromkeys(claim for claim, _ in made):
            cells, seeds = [], made[claim, next(iter(COLUMNS))].seeds
            for title in COLUMNS:
                bold = "**" if held[f"{claim}|{title}"].holds else ""
                cells.append(f"{bold}{percent(made[claim, title].difference)}{bold}")
            yield [f"{results.set}: {claim}, {counted(seeds)}", *cells]


def costs(found: Iterable[Results]) -> Iterator[Row]:
    """Yield the rows of means over seeds: error, codes used, nats of the generator, time of the tokenizer."""
    yield ["", "tokens", "MSE on test", "codes used on test", "nats a token", "tokenizer, processor s"]
    for results in found:
        for arm, records in results.records.items():
            every_seed = [*records.values()]
            used = np.mean([one["codes_used_on_test"] / one["codes"] for one in every_seed])
            nats = np.mean([one["generator"]["nats"] for one in every_seed])
            seconds = np.mean([one["tokenizer_seconds"] for one in every_seed])
            errors = np.mean([one["mse_on_test"] for one in every_seed])
            cells = [
                str(every_seed[0]["tokens"]),
                f"{errors:.5f}",
                f"{100 * used:.1f} %",
                f"{nats:.2f}",
                f"{seconds:.0f}",
            ]
            yield [f"{results.set}, {ARMS[arm].title}", *cells]


def reconstructions(folder: Path) -> Iterator[Row]:
    """Yield the rows of reconstructions of test images: errors, their ratio, codes used, and borders of tokens."""
    yield [
        "test images",
        "tokens, codes",
        "MSE, patches",
        "MSE, learned",
        "learned / patches",
        "aimed at",
        "PSNR, dB, patches",
        "PSNR, dB, learned",
        "codes used",
        "border ratio, patches",
        "border ratio, learned",
        "of real images",
        "steps",
        "training, processor s",
    ]
    for name in SETS:
        path = folder / name / RECORD
        if not path.exists():
            continue
        record = json.loads(path.read_text("utf-8"))
        patches, learned = (record["tokenizers"][ARMS[arm].title] for arm in ("patches", "learned"))
        borders = (patches["border_ratio"], learned["border_ratio"], learned["real_border_ratio"])
        yield [
            f"{name}, {record['data']['images']} of {' x '.join(map(str, record['data']['size']))} pixels",
            f"{learned['tokens_an_image']}, {learned['codes']['vocab_size']}",
            interval(patches["mse"], "mse"),
            interval(learned["mse"], "mse"),
            interval(record["comparisons"][0]["mse_ratio"], "ratio"),
            f"{BOUNDS[name]:g}",
            interval(patches["psnr"], "psnr"),
            interval(learned["psnr"], "psnr"),
            f"{100 * learned['codes']['usage']:.1f} %",
            *(interval(one, "ratio") for one in borders),
            str(record["settings"]["steps"]),
            f"{record['settings']['seconds']['learned']:.0f}",
        ]


def photographs(folder: Path) -> Iterator[Row]:
    """Yield the rows of small photographs: errors of reconstructions, codes used, and borders of tokens, by tokenizer,
    the learned one first.
    """
    record = json.loads((folder / RECORD).read_text("utf-8"))
    borders = json.loads((folder / small.RECORD).read_text("utf-8"))
    tokenizers = [*record["tokenizers"].values()]
    yield ["photographs", *small.MODELS, small.REAL]
    for key, title in (("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("mse", "MSE")):
        yield [title, *(interval(one[key], key) for one in tokenizers), ""]
    yield ["codes used", *(f"{100 * one['codes']['usage']:.1f} %" for one in tokenizers), ""]
    ratios = [*(one["border_ratio"] for one in tokenizers), tokenizers[0]["real_border_ratio"]]
    yield ["border ratio of reconstructions", *(interval(one, "ratio") for one in ratios)]
    for part in ("samples", "inpaintings"):
        ratios = [borders[name].get(part) for name in (*small.MODELS, small.REAL)]
        yield [f"border ratio of {part}", *(interval(one, "ratio") for one in ratios)]


def as_csv(rows: Iterable[Row]) -> bytes:
    """Return rows as the bytes of a CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def main() -> None:
    """Write results/tokenizers_*.csv and images/tokenizers_*.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, metavar="DOCS", help="folder of the documentation")
    parser.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    args = parser.parse_args()
    found, compared, crops = every(args.found), args.found / "reconstruction", args.found / small.PART
    made = {results.set: scores(results) for results in found}
    made |= {"differences": differences(found), "costs": costs(found), "reconstruction": reconstructions(compared)}
    if all((crops / name).exists() for name in (RECORD, small.RECORD)):
        made[small.PART] = photographs(crops)
    for folder in ("results", "images"):
        (args.docs / folder).mkdir(parents=True, exist_ok=True)
    for name, rows in made.items():
        path = args.docs / "results" / f"tokenizers_{name}.csv"
        atomic.write_bytes(path, as_csv(rows))
        print(path)
    for sheet in (*sorted(compared.glob(f"*/{SHEET}")), *crops.glob(small.SHEET)):
        path = args.docs / "images" / f"tokenizers_{sheet.parent.name}.png"
        shutil.copyfile(sheet, path)
        print(path)


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.tokenizers.tables", main, "Nothing was written."))
