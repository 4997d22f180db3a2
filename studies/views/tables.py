"""Tables of docs/results/likelihood.md about views, made of what the study has found.

python -m studies.views.tables docs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from randfeat.probes import bootstrap, holm, paired

from randfeat import cli
from randfeat.utils import atomic
from studies.reading.tables import percent
from studies.tokenizers.tables import as_csv

from .__main__ import ARMS, FOUND, PLAIN

DRAWS = 4000
NAMES = {"fashion": "Fashion-MNIST", "letters": "letters in unseen typefaces"}


def rows(found: Path) -> Iterator[list[str]]:
    """Yield the accuracy of each set in each view, with the paired difference to the image as it stands, bold where it
    holds after Holm's correction over the table.
    """
    yield ["", "test images", "accuracy, %", "points more than as it stands", "passes an image"]
    made, differences = [], {}
    for name, arms in ARMS.items():
        for arm in arms:
            path = found / name / f"{arm}.json"
            if not path.exists():
                continue
            record = json.loads(path.read_text("utf-8"))
            with np.load(path.with_suffix(".npz")) as file:
                right, groups = file["right"].astype(float), file["groups"]
            if arm == PLAIN:
                plain = right
            else:
                differences[f"{name}, {arm}"] = paired(right, plain, groups, draws=DRAWS)
            made.append((name, arm, record, bootstrap(right, groups, draws=DRAWS)))
    holds = holm({key: one.p for key, one in differences.items()})
    for name, arm, record, accuracy in made:
        gap = percent(differences[f"{name}, {arm}"]) if arm != PLAIN else ""
        gap = f"**{gap}**" if gap and holds[f"{name}, {arm}"].holds else gap
        cells = [f"{record['images']:,}", percent(accuracy), gap, f"{record['passes']:.0f}"]
        yield [f"{NAMES[name]}, {arm}", *cells]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("docs", type=Path, metavar="DOCS", help="folder of the documentation")
    parser.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    args = parser.parse_args()
    atomic.write_bytes(args.docs / "results" / "likelihood_views.csv", as_csv(rows(args.found)))


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.views.tables", main, "The same command goes on where this ended."))
