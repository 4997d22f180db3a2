"""Measures one model or store by one probe, or by all that read vectors."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import EVERY, add_data, add_machine, add_protocol, add_specs


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = f"randfeat probe {name} (STORE | MODEL DATA | --train STORE --test STORE) -o DIR [options]"
    parser.add_argument("what", nargs="*", metavar="STORE | MODEL DATA", help="what is measured")
    parser.add_argument("--train", metavar="STORE", help="features to learn and to choose on")
    parser.add_argument("--test", metavar="STORE", help="features to score, once")
    add_specs(parser)
    add_data(parser)
    add_protocol(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    stores = [args.train, args.test]
    if (stores != [None, None]) == bool(args.what) or len(args.what) > 2 or stores.count(None) == 1:
        raise ValueError("give a STORE, a MODEL and DATA, or --train STORE --test STORE")
    for store in filter(None, stores):
        if "," in store or not Path(store).is_dir():
            raise ValueError(f"there is no feature store {store}: check the path")
    if args.online:
        if len(args.what) != 2:
            raise ValueError("--online needs a MODEL and DATA")
        from .online import measure_online

        return measure_online(args.what[0], args.what[1], args)
    from .tables import measure

    given = args.what or [",".join(stores)]
    tasks = EVERY if args.probe == "all" else (args.probe,)
    measure(given[:1], given[1] if len(given) == 2 else None, tasks, args)
