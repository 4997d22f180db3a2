"""What `inpaint`, `edit`, `outpaint` and `vary` have in common: flags, and the run around the job itself."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .sample import ORDER_HELP, add_control, add_machine, add_sampling, given, sampling_of, steered

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..data.labels import Label
    from ..inference.editing import Framing
    from ..pipeline.pipeline import Pipeline

HOW_TO_RESUME = "Run the same command again: images that are there are kept."
FITS = ("around", "whole", "tile")
FRAMING = {name: name for name in ("fit", "margin", "cover", "grow", "overlap", "feather")}


def add_common(parser: argparse.ArgumentParser, command: str, wanted: str) -> Any:
    """MODEL, IMAGE, what to paint (a group that the command may add to, which is returned), and on which machine."""
    parser.usage = f"randfeat {command} MODEL IMAGE {wanted}[options]"
    parser.add_argument("model", metavar="MODEL", help="the model to paint with")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a picture of any size")
    what = parser.add_argument_group("what to paint")
    what.add_argument(
        "-o", "--out", type=Path, default=Path(command), metavar="DIR", help=f"where to write ({command})"
    )
    what.add_argument("--samples", type=int, default=4, metavar="N", help="results (4)")
    what.add_argument("--seed", type=int, default=0, metavar="S", help="of the first result (0)")
    return what


def add_how(parser: argparse.ArgumentParser, watched: bool = True) -> None:
    how = parser.add_argument_group("how to sample (as the model was published)")
    add_sampling(how)
    how.add_argument("--order", metavar="MODE", help=ORDER_HELP)
    if watched:
        how.add_argument("--gif", action="store_true", help="show how the first result comes to be, and in which order")
        add_control(parser, "a picture as large as the result, which says what is there")
    add_machine(parser)


def add_mask(what: Any) -> None:
    where = what.add_mutually_exclusive_group(required=True)
    where.add_argument("--mask", type=Path, help="a picture of the image's size, white or transparent where to paint")
    where.add_argument("--box", nargs=4, type=int, metavar=("L", "T", "R", "B"), help="paint in this box, in pixels")


def add_class(what: Any) -> None:
    either = what.add_mutually_exclusive_group()
    either.add_argument("--class", dest="cls", metavar="CLASS", help="index or name of what it shall be (none)")
    either.add_argument("--guess", type=int, default=0, metavar="K", help="guess it from the rest, in K orders (0: no)")


def add_framing(parser: argparse.ArgumentParser, fit: str) -> None:
    what = parser.add_argument_group("how the picture meets the model's grid")
    what.add_argument("--fit", choices=FITS, default=fit, help=f"see above ({fit})")
    what.add_argument("--margin", type=float, metavar="SHARE", help="free on each side of the mask (0.5)")
    what.add_argument("--cover", type=float, metavar="SHARE", help="masked share above which a token is made anew (0)")
    what.add_argument("--grow", type=int, metavar="N", help="tokens around these that are made anew, too (0)")
    what.add_argument("--overlap", type=float, metavar="SHARE", help="of two windows of tile (0.5)")
    what.add_argument("--feather", type=int, metavar="N", help="pixels inside the mask over which the seam fades (0)")


def framing_of(args: argparse.Namespace) -> Framing:
    from ..inference.editing import Framing

    return Framing(**given(args, FRAMING))


def run_job(args: argparse.Namespace, paint_in: Callable[[argparse.Namespace, Pipeline, np.ndarray], Any]) -> None:
    """Load model and picture and writes the folder. paint_in: says what to do, as keywords of `painted_folder.write`,
    with `settings` those of the job.
    """
    import torch

    from ..pipeline import edit_folder, painting
    from ..pipeline.pipeline import load
    from ..utils import devices, rng

    painting.check_counts(samples=args.samples, batch_size=args.batch_size)
    seeds = rng.of_images(args.seed, args.samples).tolist()
    picture = painting.arrays(args.image)[0]
    device = devices.pick(args.device)
    model = load(args.model, device=device, dtype=getattr(torch, args.dtype))
    job = paint_in(args, model, picture)
    model.check_sampling(job["settings"]["sampling"])
    seen = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    settings = edit_folder.settings_of(
        model,
        args.model,
        args.command,
        picture=seen,
        image=str(args.image),
        samples=args.samples,
        seed=args.seed,
        **job.pop("settings"),
    )
    if args.device == "auto":
        print(f"painting on {device}", file=sys.stderr)
    try:
        edit_folder.write(args.out, settings, seeds=seeds, batch_size=args.batch_size, **job)
    except torch.OutOfMemoryError:
        reason = f"no room for {args.batch_size} images at a time on {device}: choose a smaller --batch-size"
        raise RuntimeError(reason) from None
    print(f"wrote {args.out}: look at {args.out / edit_folder.SHEET} first")


def mask_job(args: argparse.Namespace, model: Pipeline, picture: np.ndarray, guided: bool = False) -> dict[str, Any]:
    """What `inpaint` and `edit` do."""
    from PIL import Image

    from ..inference.editing import as_mask
    from ..pipeline import painting
    from ..pipeline.edit_folder import hidden

    mask = as_mask(args.mask if args.box is None else args.box, picture.shape[:2])
    if not mask.any():
        print("the mask is empty, nothing is white: the picture stays as it is", file=sys.stderr)
    sampling = steered(args, sampling_of(args, painting.guided(model.sampling) if guided else model.sampling))
    control, steering = control_of(args, model, picture)
    framing, image = framing_of(args), Image.fromarray(picture)
    label = label_of(args, model, picture, mask, framing)

    def paint(seeds: Any) -> list[Image.Image]:
        how = sampling, framing, 0, args.batch_size
        return model.inpaint(image, mask, label, len(seeds), seeds, *how, **control)

    def watch() -> Any:
        return painting.watch(model, image, mask, label, args.seed, sampling, framing, **control)

    return {
        "paint": paint,
        "before": {"original": image, "masked": hidden(picture, mask), **shown(control)},
        "watch": watch if args.gif else None,
        "settings": {
            "mask": str(args.mask or args.box),
            "masked": hashlib.sha256(mask.tobytes()).hexdigest(),
            "label": model.classes.index(label),
            "guess": args.guess,
            "sampling": sampling,
            "framing": framing,
            "control": steering,
        },
    }


def control_of(
    args: argparse.Namespace, model: Pipeline, result: np.ndarray
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Keywords of the job for --control, and what the settings keep of it. result: a picture of the result's size."""
    from PIL import Image

    from ..pipeline import painting

    if args.control is None:
        return {}, None
    (picture,) = painting.arrays(args.control)
    kind = painting.check_control(model, [result], [picture], args.control_type)
    seen = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
    return {"control": Image.fromarray(picture), "control_type": kind}, {"picture": seen, "kind": kind}


def shown(control: dict[str, Any]) -> dict[str, Image.Image]:
    """What the sheet shows of control."""
    return {"control": control["control"]} if control else {}


def label_of(
    args: argparse.Namespace,
    model: Pipeline,
    picture: np.ndarray,
    mask: np.ndarray,
    framing: Framing,
    corner: tuple[int, int] = (0, 0),
) -> Label:
    """Return the class to paint as: the one that is given or, with --guess, found and said; else none."""
    from ..pipeline import painting

    if not args.guess:
        return args.cls
    found = painting.guess_label(model, picture, mask, framing, args.guess, corner)
    if found == model.classes.count:
        return None
    print(f"guessed: {model.classes.names[found]}")
    return found


def size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write WIDTHxHEIGHT, as in 512x256")
    return int(found[1]), int(found[2])
