"""What several actions take and say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from randfeat.data.sources import Source, TokenSource
    from randfeat.features.encoder import Encoder
    from randfeat.index import Index

SOME_SKIPPED = 3  # exit code
SHOWN = 10  # images that could not be read and are named


def add_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=Path, metavar="INDEX", help="the directory of the index")


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="the images")
    what = parser.add_argument_group("what to read")
    what.add_argument("--split", metavar="NAME", help="train, val, ... of data that has splits")
    what.add_argument("--labels", type=Path, metavar="FILE", help="labels that do not lie with the images")
    what.add_argument("--label-column", metavar="NAME", help="the column of labels in a table, if none is called label")


def add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--workers", type=int, metavar="N", help="processes that decode (one for each processor)")
    add_device(machine)


def add_device(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")


def add_moved_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="where the model lies that read the index, if it was moved")


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GB",
        help="that the vectors may take: more are compressed and cut into parts (half of the machine's)",
    )


def memory(args: argparse.Namespace) -> int | None:
    """In bytes."""
    if args.memory is not None and not args.memory > 0:
        raise ValueError(f"--memory must be more than 0, got {args.memory:g}")
    return None if args.memory is None else int(args.memory * 1e9)


def source(args: argparse.Namespace) -> Source | TokenSource:
    from randfeat.data.sources import open_source

    return open_source(args.data, args.split, args.labels, args.label_column)


def encoder(args: argparse.Namespace, index: Index) -> Encoder:
    """Return the one that read the index."""
    from randfeat.utils import devices

    return index.encoder(str(devices.pick(args.device)), args.model)


def say_skipped(skipped: Sequence[tuple[str, str]]) -> int:
    """Return a line for each of the first, and the exit code."""
    from randfeat.features.extract import reasons

    if not skipped:
        return 0
    print(f"{len(skipped):,} skipped, since they cannot be read: {reasons(skipped)}")
    for path, reason in skipped[:SHOWN]:
        print(f"  {path}: {reason}")
    if len(skipped) > SHOWN:
        print(f"  and {len(skipped) - SHOWN:,} more, in the .csv file of the index")
    return SOME_SKIPPED
