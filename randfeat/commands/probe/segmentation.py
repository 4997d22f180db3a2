"""Linear segmentation of one model or several on images with a label map each."""

from __future__ import annotations

import argparse

from .options import add_machine


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.usage = "randfeat probe segmentation MODEL [MODEL ...] DATA -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models that read dense maps, see `randfeat probe --help`"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with the layout of Pascal VOC (JPEGImages, SegmentationClass, ImageSets/Segmentation) or of "
        "ADE20K (images/training, annotations/training), or the one that --images and --maps are in",
    )
    parser.add_argument(
        "--spec",
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="how models are read, with the pool `none`; of several the best one is chosen on train",
    )
    parser.add_argument(
        "--split", nargs=2, metavar=("TRAIN", "TEST"), help="parts of DATA (train val, of ADE20K training validation)"
    )
    parser.add_argument(
        "--images", nargs=2, metavar=("TRAIN", "TEST"), help="folders of images in DATA, where it has another layout"
    )
    parser.add_argument(
        "--maps", nargs=2, metavar=("TRAIN", "TEST"), help="their label maps: PNG files of the same names"
    )
    parser.add_argument("--ignore", type=int, metavar="N", help="the label in --maps that means none (255)")
    parser.add_argument(
        "--baselines", action="store_true", help="add pixels, edges, colours, tokens, the place and random weights"
    )
    parser.add_argument("--no-search", action="store_true", help="the first learning rate, without a choice")
    parser.add_argument("--held-out", type=float, default=0.2, metavar="X", help="share of train to choose on (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of splits, training and draws (0)")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="resamples of a bootstrap (2000)")
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    from .mapped import measure

    measure(args)
