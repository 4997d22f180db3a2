"""Draws pictures like one that there is: a share of its tokens stays, the others are drawn anew.

MODEL is what randfeat.load takes, IMAGE a picture of any size, which is seen as a whole, at the model's size. Each
result's seed draws the places of the tokens that stay. DIR is filled as by `randfeat inpaint --help`.

examples:
  randfeat vary MODEL photo.jpg --samples 8
  randfeat vary MODEL photo.jpg --keep 0.2 --class otter --guidance 3
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import edit_images
from .edit_images import HOW_TO_RESUME as HOW_TO_RESUME

if TYPE_CHECKING:
    import numpy as np

    from ..pipeline.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = edit_images.add_common(parser, "vary", "")
    what.add_argument("--keep", type=float, default=0.5, metavar="SHARE", help="of the tokens that stays (0.5)")
    what.add_argument("--class", dest="cls", metavar="CLASS", help="index or name of what it shall be (none)")
    edit_images.add_how(parser, watched=False)


def run(args: argparse.Namespace) -> None:
    edit_images.run_job(args, job)


def job(args: argparse.Namespace, model: Pipeline, picture: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    from ..pipeline import painting

    painting.check_keep(args.keep)
    sampling, label, image = edit_images.sampling_of(args, model.sampling), args.cls, Image.fromarray(picture)

    def paint(seeds: Any) -> list[Image.Image]:
        return model.variations(image, args.keep, label, len(seeds), seeds, sampling, args.batch_size)

    return {
        "paint": paint,
        "before": {"original": image},
        "settings": {"keep": args.keep, "label": model.classes.index(label), "sampling": sampling},
    }
