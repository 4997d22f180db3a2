"""Records of a folder that a probe wrote."""

import csv
from pathlib import Path

from randfeat.probes import Record


def load_all(folder):
    """Return the records in the order of results.csv; a record whose replacement was interrupted has no file."""
    with (Path(folder) / "results.csv").open(encoding="utf-8", newline="") as file:
        files = [Path(folder) / row["record"] for row in csv.DictReader(file)]
    return [Record.load(file) for file in files if file.exists()]
