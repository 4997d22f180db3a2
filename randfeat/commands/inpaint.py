"""Paints the masked part of a picture anew, given the rest, which comes back bit for bit.

MODEL is what randfeat.load takes. IMAGE and MASK are pictures of one size, any size; paint where the mask is white or
transparent. DIR then holds

  images/000000.png ...   the results, each with a seed of its own
  sheet.png               the original, what is masked, and the results
  settings.json           everything that decided how they look
  watch.gif, order.png    with --gif: how the first one comes to be, and the step that made each token

The same command makes what is missing, with more --samples what is new; other settings need another DIR.

fits, what of the picture the model sees:
  around   the smallest window of its aspect around the mask and a margin, at least of its own size, scaled to that
  whole    all of it, scaled
  tile     at its own scale, windows of its size slide over the mask; each sees what those before it made

examples:
  randfeat inpaint MODEL photo.jpg --mask mask.png --samples 8 --guess 4
  randfeat inpaint MODEL photo.jpg --box 100 40 180 200 --class otter --feather 4
  randfeat inpaint MODEL photo.jpg --mask mask.png --fit tile --gif
  randfeat inpaint MODEL photo.jpg --mask mask.png --class otter --control photo.jpg   (what is hidden keeps its edges)

`randfeat sample --help` explains the schedules.
"""

from __future__ import annotations

import argparse

from . import edit_images
from .edit_images import HOW_TO_RESUME as HOW_TO_RESUME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = edit_images.add_common(parser, "inpaint", "(--mask MASK | --box L T R B) ")
    edit_images.add_mask(what)
    edit_images.add_class(what)
    edit_images.add_framing(parser, "around")
    edit_images.add_how(parser)


def run(args: argparse.Namespace) -> None:
    edit_images.run_job(args, edit_images.mask_job)
