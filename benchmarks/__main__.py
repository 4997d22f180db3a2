"""Measure what this library costs, beside other code and beside the limits of this machine.

    OMP_NUM_THREADS=1 python -m benchmarks --quick                       # every job, small: a look, in minutes
    OMP_NUM_THREADS=1 python -m benchmarks --jobs sampling extraction --only float32 "batch 1,"
    OMP_NUM_THREADS=1 python -m benchmarks --peer randar=RandAR --peer arpg=ARPG --peer llamagen=LlamaGen
    OMP_NUM_THREADS=1 python -m benchmarks --jobs growth --plots docs/images
    OMP_NUM_THREADS=1 python -m benchmarks --check                       # is a ratio lower than it was?

A job has cases. In a case ours and its peers do the same work in turns; a ratio says how many times faster ours is, by
the medians of processor seconds, with the lowest and highest round in brackets. A matrix product and a copy are
measured in the same run: "of the limit" is the share of the speed at which the operations of a case, or the bytes that
they read and write, could be done. Memory is the peak of a process that does one side of a case twice, without what it
held before.

Peers are the official code, where --peer names a checkout, and libraries: timm, faiss, scikit-learn, LanceDB, torch.

    git clone https://github.com/ziqipang/RandAR                 (at d374a721)
    git clone https://github.com/hp-l33/ARPG                     (at 1a1758c3)
    git clone https://github.com/FoundationVision/LlamaGen       (at ce98ec4)
    pip install einops transformers

Written to --out: results.json, with every round; table.md; a plot of ratios, and one of each series of `growth`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch

from . import check, report, runner
from .cases import JOBS, LEVELS, SIZES, Setting
from .official import CHECKOUTS


def peer(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in CHECKOUTS or not Path(path).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no peer: give NAME=PATH with a NAME of {', '.join(CHECKOUTS)} and the folder of its checkout"
        )
    return name, Path(path).resolve()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m benchmarks", None, __doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--list", action="store_true", help="name the jobs")
    made.add_argument("--jobs", nargs="+", choices=JOBS, metavar="JOB", default=[*JOBS], help="some of them")
    made.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cases whose names have all of these")
    made.add_argument("--level", choices=LEVELS, default="full", help="of the work (full); tiny is for tests")
    made.add_argument("--quick", dest="level", action="store_const", const="quick", help="less, and without memory")
    made.add_argument("--size", choices=SIZES, default="S", help="of the networks (S)")
    made.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"], help="of weights")
    made.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=PATH", help="official code")
    made.add_argument("--memory", action=argparse.BooleanOptionalAction, help="of each side, in a process of its own")
    made.add_argument("--rounds", type=int, metavar="N", help="of each case (5; 2 with --quick)")
    made.add_argument("--out", type=Path, default=Path("measured"), metavar="DIR", help="(measured)")
    made.add_argument("--plots", type=Path, metavar="DIR", help="where plots are written (--out)")
    made.add_argument(
        "--check",
        action="store_true",
        help=f"measure the ratios of {check.COMMITTED.name} again; "
        "exit 1 where one is more than 30 %% lower, three times in turn",
    )
    made.add_argument("--commit", action="store_true", help="write the ratios of this processor there")
    made.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    return made


def main(words: list[str] | None = None) -> int:
    args = parser().parse_args(words)
    if args.list:
        print("\n".join(f"{name:<15} {job.about}" for name, job in JOBS.items()))
        return 0
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    with tempfile.TemporaryDirectory(prefix="benchmarks") as scratch:
        setting = Setting(args.size, tuple(args.dtype), args.level, dict(args.peer), Path(scratch))
        if args.memory_of:
            runner.print_memory(setting, *args.memory_of)
            return 0
        if args.check or args.commit:
            return check.run(setting, commit=args.commit)
        rounds = args.rounds or (2 if args.level == "quick" else 5)
        memory = args.level == "full" if args.memory is None else args.memory
        measured = runner.run(setting, args.jobs, args.only, rounds, memory)
    report.write(measured, args.out, args.plots or args.out)
    print(f"{args.out / 'table.md'}, results.json and plots are written")
    for failure in measured["failures"]:
        print(failure, file=sys.stderr)
    return 1 if measured["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
