"""Archive of a study's scores of each test image: no weights, no pictures and no rankings on train, so it is small.

python -m studies.reading.archive OUT/data1-split1 studies/reading/found/data1-split1

Tables and figures can be made of an archive as of OUT itself, except those of all feature specs, which are of train.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from randfeat import cli

from . import attended, moved, warped
from .material import GROUPS
from .results import every
from .units import RECORD, SCORES, keep

PARTS = ((RECORD, SCORES), attended.FILES, moved.FILES, warped.FILES)


def archive(unit: Path, to: Path) -> None:
    """Copy the records of a unit, and its scores except those of train."""
    for record, scores in PARTS:
        if (unit / record).exists():
            with np.load(unit / scores) as found:
                keep(to / scores, {name: found[name] for name in found.files if not name.startswith("train|")})
            shutil.copyfile(unit / record, to / record)


def main() -> None:
    """Archive every unit of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT/dataD-splitS", help="results of the study")
    parser.add_argument("to", type=Path, metavar="DIR", help="folder of the archive; units in it are replaced")
    args = parser.parse_args()
    if args.to.resolve() == args.folder.resolve():
        raise ValueError(f"{args.to} is the folder to archive: give another one for the archive")
    for results in every(args.folder):
        units = sorted(path.parent for path in results.folder.glob(f"**/{RECORD}"))
        for unit in units:
            archive(unit, args.to / unit.relative_to(args.folder))
        shutil.copyfile(results.folder / GROUPS, args.to / results.set / GROUPS)
        print(f"{args.to / results.set}: {len(units)} units")


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.reading.archive", main, "The same command goes on where this ended."))
