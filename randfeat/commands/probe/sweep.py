"""Reads one model in many ways, ranks the readings on train, and scores the best of them on test."""

from __future__ import annotations

import argparse

from .options import add_data, add_machine, add_protocol

TASKS = ("knn", "linear")
AXES = {  # option -> default, what it is; every model is read in those combinations that it can do
    "orders": (("raster", "raster+reversed", "random*4"), "orders of the passes"),
    "contexts": (("causal", "echo", "full", "after", "bare"), "what a token may see"),
    "streams": (("token", "query"), "whose states are read"),
    "layers": ((*(f"L{k / 8:g}" for k in range(1, 8)), "L-1"), "blocks, as numbers or shares of the depth"),
    "pools": (("mean", "grid2"), "how positions become one vector (of timm's models also cls)"),
    "merges": (("mean",), "how passes become one vector"),
    "shifts": (("1",), "at how many places a side the picture is read, parts of a token apart"),
}


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe sweep MODEL DATA -o DIR [options]"
    parser.add_argument("what", nargs="+", metavar="MODEL DATA", help="what is read; or a STORE of many readings")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help="of knn, linear")
    axes = parser.add_argument_group("readings: every combination that the model can do, see `randfeat extract --help`")
    for axis, (default, what) in AXES.items():
        axes.add_argument(f"--{axis}", nargs="+", metavar="X", help=f"{what} ({' '.join(default)})")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="of train, each held out once (5)")
    add_data(parser)
    add_protocol(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    if len(args.what) > 2:
        raise ValueError("give one MODEL and DATA, or one STORE: a sweep is over the readings of one model")
    if args.online or args.recipe:
        raise ValueError("a sweep ranks readings by logistic regression and k-NN: leave --recipe and --online out")
    from .sweeping import measure

    measure(args.what[0], args.what[1] if len(args.what) == 2 else None, args)
