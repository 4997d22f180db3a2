"""Study of tokenizers: does a learned one read better than k-means patches? All of docs/results/tokenizers.md by

    python -m studies.tokenizers read WORK              # trains and reads: an hour on one core
    python -m studies.tokenizers reconstruction WORK    # errors beside those of patches: an hour
    python -m studies.tokenizers.tables docs/results    # tables and pictures of what both have found

The same command resumes: finished units are kept, and a training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from randfeat import cli

from . import reconstruction, sets, units
from .arms import ARMS
from .units import Unit

FOUND = Path(__file__).parent / "found"
READ = [name for name, one in sets.SETTINGS.items() if one.steps]


def main() -> None:
    """Run a part of the study."""
    args = parser().parse_args()
    if args.part == "reconstruction":
        for name in args.sets or reconstruction.SETS:
            print(reconstruction.run(name, args.work, args.found))
        return
    for seed in args.seeds:  # one seed of everything before the next, so that first results come early
        for name in args.sets or READ:
            pictures = sets.make(name, args.work / name)
            sets.keep_groups(pictures, args.found / name)
            for arm in args.arms:
                place = Path(name, arm, str(seed))
                unit = Unit(pictures, arm, seed, args.work / place, args.found / place, pictures.setting.steps)
                print(units.run(unit), flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("part", choices=("read", "reconstruction"), help="what to measure")
    made.add_argument("work", type=Path, metavar="WORK", help="folder of pictures, weights and checkpoints")
    made.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    made.add_argument("--sets", nargs="+", choices=[*sets.SETTINGS], metavar="SET", help=", ".join(sets.SETTINGS))
    made.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS], metavar="ARM", help=", ".join(ARMS))
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="of all that is trained")
    return made


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.tokenizers", main, "The same command goes on where this ended."))
