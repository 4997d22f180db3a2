"""Semantic correspondence of one model or several on the pairs of SPair-71k, or of anything with its layout."""

from __future__ import annotations

import argparse

from .options import add_machine


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe correspondence MODEL [MODEL ...] SPAIR -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models that read dense maps, see `randfeat probe --help`"
    )
    parser.add_argument("data", metavar="SPAIR", help="the folder with JPEGImages and PairAnnotation")
    parser.add_argument(
        "--spec",
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="how models are read, with the pool `none`; of several the best one is chosen on the pairs of --choose-on",
    )
    parser.add_argument("--pairs", default="test", metavar="PART", help="which pairs are scored (test)")
    parser.add_argument("--choose-on", default="val", metavar="PART", help="which pairs choose among specs (val)")
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.1, 0.05], metavar="X", help="of PCK (0.1 0.05)")
    parser.add_argument("--upsample", type=int, default=1, metavar="N", help="enlarge maps N times before matching (1)")
    parser.add_argument(
        "--baselines", action="store_true", help="add pixels, edges, colours, tokens, the same place and random weights"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random weights and draws (0)")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="resamples of a bootstrap (2000)")
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    from .pairs import measure

    measure(args)
