"""Measures several models and stores on the same images, in one table with paired differences."""

from __future__ import annotations

import argparse

from .options import EVERY, add_data, add_machine, add_protocol, add_specs


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe compare A B ... --data DATA -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="A", help="a MODEL; timm:NAME; random:MODEL; a store, or two as TRAIN,TEST"
    )
    parser.add_argument("--data", help="the images that all of them read (not needed for stores alone)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=(*EVERY, "attentive"),
        default=list(EVERY),
        metavar="TASK",
        help=f"of {', '.join(EVERY)} (all of these), attentive",
    )
    add_specs(parser)
    add_data(parser)
    add_protocol(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    if args.online:
        raise ValueError("--online is for `randfeat probe linear`: compare reads features once")
    from .tables import measure

    measure(args.what, args.data, tuple(dict.fromkeys(args.tasks)), args)
