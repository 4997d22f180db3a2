"""Paints around a picture, which comes back bit for bit inside.

MODEL is what randfeat.load takes, IMAGE a picture of any size. Where the result is larger than the model, windows of
its size slide outwards, at the picture's own scale; each knows the tokens of those before it. --fit whole scales the
result to the model's size instead. DIR is filled as by `randfeat inpaint --help`.

examples:
  randfeat outpaint MODEL photo.jpg --size 512x256
  randfeat outpaint MODEL photo.jpg --sides 128 0 128 0 --samples 8 --overlap 0.75 --gif
  randfeat outpaint MODEL photo.jpg --size 512x256 --control drawing.png --control-type image
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
    what = edit_images.add_common(parser, "outpaint", "(--size WxH | --sides L T R B) ")
    where = what.add_mutually_exclusive_group(required=True)
    where.add_argument("--size", type=edit_images.size, metavar="WxH", help="of the result, the picture in its middle")
    where.add_argument("--sides", nargs=4, type=int, metavar=("L", "T", "R", "B"), help="pixels to add on each side")
    edit_images.add_class(what)
    edit_images.add_framing(parser, "tile")
    edit_images.add_how(parser)


def run(args: argparse.Namespace) -> None:
    edit_images.run_job(args, job)


def job(args: argparse.Namespace, model: Pipeline, picture: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    from ..pipeline import painting
    from ..pipeline.edit_folder import hidden

    sides = painting.sides_of(picture, args.size, args.sides or (0, 0, 0, 0))
    left, top, right, bottom = sides
    extended, mask, corner = painting.extend(picture, sides)
    sampling = edit_images.steered(args, edit_images.sampling_of(args, model.sampling))
    control, steering = edit_images.control_of(args, model, extended)
    framing = edit_images.framing_of(args)
    image, label = Image.fromarray(picture), edit_images.label_of(args, model, extended, mask, framing, corner)

    def paint(seeds: Any) -> list[Image.Image]:
        how = sampling, framing, 0, args.batch_size
        return model.outpaint(image, None, left, top, right, bottom, label, len(seeds), seeds, *how, **control)

    def watch() -> Any:
        return painting.watch(model, image, None, label, args.seed, sampling, framing, 0, sides, **control)

    return {
        "paint": paint,
        "before": {"original": hidden(extended, mask), **edit_images.shown(control)},
        "watch": watch if args.gif else None,
        "settings": {
            "sides": list(sides),
            "label": model.classes.index(label),
            "guess": args.guess,
            "sampling": sampling,
            "framing": framing,
            "control": steering,
        },
    }
