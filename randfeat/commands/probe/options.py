"""The options that probes share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from randfeat.probes import Protocol

RECIPES = ("mae", "dinov2", "capi")
EVERY = ("knn", "linear", "fewshot", "retrieval", "cluster")


def add_specs(parser: argparse.ArgumentParser) -> None:
    """How models are read."""
    parser.add_argument(
        "--spec",
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="how models are read, see `randfeat extract --help`; of several the best one is chosen on train. Those "
        "like `pooled` and `L6/mean` are for models of timm, the others for randfeat's",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Which images are read, and which of them are test."""
    data = parser.add_argument_group("images")
    data.add_argument(
        "--split",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        help="parts of DATA (train, and test or else val, where it has such parts)",
    )
    data.add_argument(
        "--test-share",
        type=float,
        metavar="X",
        help="of images that are in no parts, how many are test (0.3; retrieval and cluster alone: all)",
    )
    data.add_argument("--labels", type=Path, metavar="FILE", help="labels that do not lie with the images")
    data.add_argument("--label-column", metavar="NAME", help="the column of labels in a table, if none is called label")
    data.add_argument(
        "--group",
        metavar="COLUMN",
        help="images that belong together (writer, patient, photograph), which no choice and no resampling tears "
        "apart: a column of the list that DATA is, or `parent`, the folder of each image",
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """How it is measured."""
    how = parser.add_argument_group("how to measure")
    how.add_argument(
        "--baselines",
        action="store_true",
        help="add what has to be beaten: pixels, recentred pixels, PCA, HOG, colours, patches, tokens, random weights, "
        "RBF-SVM, each with the same search",
    )
    how.add_argument("--no-search", action="store_true", help="the first candidate of each search, as in calibrations")
    how.add_argument("--recipe", choices=RECIPES, help="train linear probes as published, in place of L-BFGS")
    how.add_argument(
        "--online",
        action="store_true",
        help="linear probes by a recipe on random crops, read anew in every epoch, as the published numbers were made",
    )
    how.add_argument("--held-out", type=float, default=0.2, metavar="X", help="share of train to choose on (0.2)")
    how.add_argument("--shots", type=int, default=5, metavar="N", help="images of each class of fewshot (5)")
    how.add_argument("--seed", type=int, default=0, help="of splits and draws (0)")
    how.add_argument("--draws", type=int, default=2000, metavar="N", help="resamples of a bootstrap (2000)")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Where things go, and what computes."""
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write")
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--stores", type=Path, metavar="DIR", help="where features are kept (DIR/stores)")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--workers", type=int, metavar="N", help="processes that decode (one for each processor)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks")


def protocol(args: argparse.Namespace) -> Protocol:
    """What the options say."""
    from randfeat.probes import Protocol
    from randfeat.utils import devices

    return Protocol(
        seed=args.seed,
        draws=args.draws,
        held_out=args.held_out,
        search=not args.no_search,
        shots=args.shots,
        recipe=args.recipe,
        device=str(devices.pick(args.device)),
    )
