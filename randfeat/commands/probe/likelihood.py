"""Zero-shot classification by likelihood for several numbers of orders, in one table with probes of the same model."""

from __future__ import annotations

import argparse
import os

from .options import EVERY, add_data, add_machine, add_protocol, add_specs


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe likelihood MODEL DATA [--orders K ...] [--race] -o DIR [options]"
    parser.add_argument("model", metavar="MODEL", help="a model that was trained with labels")
    parser.add_argument("data", metavar="DATA", help="images whose classes are called as the model's")
    parser.add_argument(
        "--orders",
        nargs="+",
        type=int,
        default=[1, 4, 16],
        metavar="K",
        help="the orders that log p is averaged over (1 4 16). The largest number holds several "
        "sets of a smaller one, whose score is their mean",
    )
    parser.add_argument(
        "--race", action="store_true", help="read only the classes in front to the end: for many classes"
    )
    parser.add_argument(
        "--beside",
        nargs="*",
        choices=EVERY,
        default=["knn", "linear"],
        metavar="TASK",
        help=f"probes of the same model and images, of {', '.join(EVERY)} (knn linear)",
    )
    add_specs(parser)
    add_data(parser)
    add_protocol(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    from .zero_shot import measure_likelihood

    if args.online or args.recipe:
        raise ValueError("--online and --recipe are for `randfeat probe linear`: leave them out")
    if args.baselines and not args.beside:
        raise ValueError("--baselines are for the probes of --beside: name one")
    if min(args.orders) < 1:
        raise ValueError(f"a likelihood needs at least one order, got {min(args.orders)}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("likelihoods are measured in one process: leave torchrun out")
    measure_likelihood(args)
