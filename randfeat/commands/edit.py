"""Paints the masked part of a picture anew as something of a class: `inpaint` with guidance towards it.

Guidance is the model's own, or 2 where it has none; --guidance says another. DIR, the picture, the mask and the fits
are those of `randfeat inpaint --help`.

examples:
  randfeat edit MODEL photo.jpg --mask mask.png --class "tabby cat"
  randfeat edit MODEL photo.jpg --box 100 40 180 200 --class 281 --guidance 4 --samples 8 --gif
  randfeat edit MODEL photo.jpg --mask mask.png --class otter --control drawing.png --control-type image
"""

from __future__ import annotations

import argparse
from functools import partial

from . import edit_images
from .edit_images import HOW_TO_RESUME as HOW_TO_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = edit_images.add_common(parser, "edit", "(--mask MASK | --box L T R B) --class CLASS ")
    edit_images.add_mask(what)
    what.add_argument("--class", dest="cls", required=True, metavar="CLASS", help="index or name of what it shall be")
    edit_images.add_framing(parser, "around")
    edit_images.add_how(parser)
    parser.set_defaults(guess=0)


def run(args: argparse.Namespace) -> None:
    edit_images.run_job(args, partial(edit_images.mask_job, guided=True))
