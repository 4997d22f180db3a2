"""Probes on features with labels: of one model or store, or of several compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from .online import measure_online
from .options import VECTOR_TASKS
from .tables import measure


def run(args: argparse.Namespace) -> int:
    """Measure what the arguments name, by one probe or by all that take vectors; return the exit code."""
    if args.probe == "compare":
        if args.online:
            raise ValueError("--online is for `randfeat probe linear`: compare extracts features once")
        return measure(args.what, args.data, tuple(dict.fromkeys(args.tasks)), args)
    stores = [args.train, args.test]
    if (stores != [None, None]) == bool(args.what) or len(args.what) > 2 or stores.count(None) == 1:
        raise ValueError("give a STORE, a MODEL and DATA, or --train STORE --test STORE")
    for store in filter(None, stores):
        if "," in store or not Path(store).is_dir():
            raise ValueError(f"there is no feature store {store}: check the path")
    if args.online:
        if len(args.what) != 2:
            raise ValueError("--online needs a MODEL and DATA")
        measure_online(args.what[0], args.what[1], args)
        return 0
    given = args.what or [",".join(stores)]
    tasks = VECTOR_TASKS if args.probe == "all" else (args.probe,)
    return measure(given[:1], given[1] if len(given) == 2 else None, tasks, args)
