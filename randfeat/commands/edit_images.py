"""Commands that regenerate parts of an image: `inpaint`, `edit`, `outpaint` and `vary`.

They share flags, the folder that they fill and the run around the job; a job differs in what it regenerates and in the
keys of its settings.json.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.resume import SETTINGS
from . import options
from .edit_inputs import edit_inputs, readable, size, why_skipped
from .sample import add_control, add_order, add_sampling, control_sampling_of, sampling_of, set_fields

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..data.labels import Label
    from ..inference.editing import Framing
    from ..inference.editing.pictures import MaskedPicture
    from ..inference.sampling import Sampling
    from ..pipeline.painting import EditRequest
    from ..pipeline.pipeline import Pipeline

HOW_TO_RESUME = "Run the same command again: images that are there are kept."
FITS = ("around", "whole", "tile")
FRAMING = {name: name for name in ("fit", "margin", "cover", "grow", "overlap", "feather")}

# command -> its help
HELP = {
    "inpaint": """Regenerate the masked part of an image, given the rest, which comes back bit for bit.

IMAGE and MASK have one size, any size; what is white or transparent in MASK is regenerated, and of a MASK that is white
wherever it is not transparent, a layer of strokes as editors export it, the strokes are. DIR then holds

  images/000000.png ...   the results, each with a seed of its own
  sheet.png               the original, the original without its masked part, and the results
  settings.json           everything that decided how they look
  watch.gif, order.png    with --gif: the first result as it is decoded, and the step that decoded each token

Several IMAGEs, or a folder of them, get a folder like this each, below DIR and called like the picture, with the same
seeds; DIR/sheet.png then shows the first result of each. MASK is then one for all, or a folder with a mask called like
each picture. Pictures that cannot be read, have no mask there, or are too small for the box or of another size than the
mask, are skipped, counted and listed in DIR/skipped.csv.

The same command makes what is missing, with more --samples what is new; other settings need another DIR.

fits, which part of the image the model sees:
  around   the smallest window of its aspect ratio around the mask and a margin, at least of its own size, scaled to it
  whole    all of it, scaled
  tile     at its own scale: windows of the model's size slide over the mask; each sees what those before it made

--bias says what may be where: of a class map, whose tokens are classes, which classes. FILE, by numpy.save, has a
number for each token of the vocabulary, everywhere or in each cell of a grid of any number of rows and columns that is
laid over the result: above 0 favours a token, below 0 disfavours it, -inf forbids it. Known tokens stay what they are.

examples:
  randfeat inpaint MODEL photo.jpg --mask mask.png --samples 8 --guess 4
  randfeat inpaint MODEL photo.jpg --box 100 40 180 200 --class otter --feather 4
  randfeat inpaint MODEL photo.jpg --mask mask.png --fit tile --gif
  randfeat inpaint MODEL photos --mask masks
  randfeat inpaint MODEL map.png --box 0 8 64 64 --feather 0 --bias allowed.npy
  randfeat inpaint MODEL photo.jpg --mask mask.png --class otter --control photo.jpg   (the masked part keeps its edges)

`randfeat sample --help` explains the schedules.

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
    "edit": """Regenerate the masked part of an image as something of a class: `inpaint` with guidance towards it.

Guidance is the model's own, or 2 where it has none; --guidance sets another. DIR, the image, the mask and the fits are
those of `randfeat inpaint --help`.

examples:
  randfeat edit MODEL photo.jpg --mask mask.png --class "tabby cat"
  randfeat edit MODEL photo.jpg --box 100 40 180 200 --class 281 --guidance 4 --samples 8 --gif
  randfeat edit MODEL photo.jpg --mask mask.png --class otter --control drawing.png --control-type image
""",
    "outpaint": """Extend an image beyond its borders; the image itself comes back bit for bit.

Where the result is larger than the model's images, windows of its size slide outwards at the image's own scale; each is
given the tokens of those before it. --fit whole scales the result to the model's size instead. DIR is filled as by
`randfeat inpaint --help`.

examples:
  randfeat outpaint MODEL photo.jpg --size 512x256
  randfeat outpaint MODEL photo.jpg --sides 128 0 128 0 --samples 8 --overlap 0.75 --gif
  randfeat outpaint MODEL photo.jpg --size 512x256 --control drawing.png --control-type image
""",
    "vary": """Draw variations of an image: a share of its tokens is kept, the others are sampled again.

The model sees all of IMAGE, at the model's size. Each result's seed draws the positions of the tokens that are kept.
DIR is filled as by `randfeat inpaint --help`.

examples:
  randfeat vary MODEL photo.jpg --samples 8
  randfeat vary MODEL photo.jpg --keep 0.2 --class otter --guidance 3
  randfeat vary MODEL photos --samples 4
""",
}
USAGE = {
    "inpaint": "(--mask MASK | --box L T R B) ",
    "edit": "(--mask MASK | --box L T R B) --class CLASS ",
    "outpaint": "(--size WxH | --sides L T R B) ",
    "vary": "",
}


@dataclass(frozen=True)
class Job:
    """Work of one command on one image. settings: those of the job, which settings.json keeps."""

    request: EditRequest
    settings: dict[str, Any]
    before: dict[str, Image.Image]  # images of the sheet that precede the results, by caption


# arguments -----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of one of the four commands."""
    parser.description = HELP[command]
    parser.usage = f"randfeat {command} MODEL IMAGE ... {USAGE[command]}[options]"
    options.add_model(parser)
    options.add_images(parser)
    result = parser.add_argument_group("result")
    options.add_out(result, default=command)
    result.add_argument("--samples", type=int, default=4, metavar="N", help="number of results (4)")
    options.add_seed(result, "the first result; the next ones follow")
    if command in ("inpaint", "edit"):
        _add_mask(result)
    elif command == "outpaint":
        _add_size(result)
    else:
        result.add_argument(
            "--keep", type=float, default=0.5, metavar="SHARE", help="of the tokens that are kept (0.5)"
        )
    _add_class(result, command)
    options.add_bias(result, "(rows, columns, vocabulary) laid over the result")
    if command != "vary":
        _add_framing(parser, "tile" if command == "outpaint" else "around")
    sampling = parser.add_argument_group("sampling (by default as the model was published)")
    add_order(sampling)
    add_sampling(sampling)
    if command != "vary":
        sampling.add_argument("--gif", action="store_true", help="show how the first result is decoded, and its order")
    add_control(parser, "image as large as the result, whose edges, say, the result has; or a folder, as of masks")
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_device(machine)
    options.add_dtype(machine, "the generator")


def _add_mask(parser: options.Flags) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--mask",
        type=Path,
        help="image of IMAGE's size, white or transparent where to regenerate it; or a folder of these, of equal names",
    )
    where.add_argument(
        "--box", nargs=4, type=int, metavar=("L", "T", "R", "B"), help="left, top, right, bottom of the mask, in pixels"
    )


def _add_size(parser: options.Flags) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--size", type=size, metavar="WxH", help="size of the result, with IMAGE in its middle")
    where.add_argument("--sides", nargs=4, type=int, metavar=("L", "T", "R", "B"), help="pixels to add on each side")


def _add_class(parser: options.Flags, command: str) -> None:
    if command in ("edit", "vary"):
        options.add_class(parser, required=command == "edit")
        parser.set_defaults(guess=0)
        return
    either = parser.add_mutually_exclusive_group()
    options.add_class(either)
    either.add_argument(
        "--guess",
        type=int,
        default=0,
        metavar="K",
        help="choose the class likeliest given the rest, in K orders (0: no)",
    )


def _add_framing(parser: argparse.ArgumentParser, fit: str) -> None:
    framing = parser.add_argument_group("how the image meets the model's grid of tokens")
    framing.add_argument("--fit", choices=FITS, default=fit, help=f"see `randfeat inpaint --help` ({fit})")
    framing.add_argument("--margin", type=float, metavar="SHARE", help="of the mask's size, around it (0.5)")
    framing.add_argument("--cover", type=float, metavar="SHARE", help="masked share above which a token is new (0)")
    framing.add_argument("--grow", type=int, metavar="N", help="widen the area of new tokens by N tokens (0)")
    framing.add_argument("--overlap", type=float, metavar="SHARE", help="of neighbouring windows of the fit tile (0.5)")
    framing.add_argument(
        "--feather",
        type=int,
        metavar="N",
        help="pixels inside the mask over which the seam is blended (half a token; 0: pixels as the model made them)",
    )


def framing_of(args: argparse.Namespace) -> Framing:
    """Return how the image meets the model's grid."""
    from ..inference.editing import Framing

    return Framing(**set_fields(args, FRAMING))


# the run around a job ------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Load the model, do the command's job on each picture, write the folders, and return the exit code."""
    from ..inference.bias import checked_cells
    from ..pipeline import edit_folder, painting

    painting.check_counts(samples=args.samples, batch_size=args.batch_size)
    inputs, without = edit_inputs(args)
    several = bool(inputs[0].name)
    if several and (args.out / SETTINGS).exists():
        raise FileExistsError(f"{args.out} holds edits of one picture: choose another directory (--out)")
    inputs, unread, unfit = readable(args, inputs)
    model = options.load_model(args)
    model.check_reads_pictures("painting")
    args.bias = options.read_bias(args, lambda bias: checked_cells(bias, model.generator.vocab_size))
    options.pick_device(args, "editing")
    shown: list[tuple[str, Image.Image, Path]] = []
    for one in inputs:
        original = _edit(one.args(args), model)
        if several and len(shown) < edit_folder.IN_SHEET:
            shown.append((one.name, original, args.out / one.name))
    if several:
        edit_folder.write_overview(args.out, shown)
    print(f"wrote {args.out}: look at {args.out / edit_folder.SHEET} first")
    if not several:
        return 0
    return options.list_skipped([*without, *unread, *unfit], args.out, why_skipped(args, without, unread, unfit))


def _edit(args: argparse.Namespace, model: Pipeline) -> Image.Image:
    """Do the command's job on one picture and write its folder; return the picture as the sheet shows it."""
    from ..inference.editing.pictures import as_arrays
    from ..pipeline import edit_folder, painting
    from ..utils import rng

    seeds = rng.of_images(args.seed, args.samples).tolist()
    (picture,) = as_arrays(args.image)
    job = {"outpaint": _outpaint, "vary": _vary}.get(args.command, _inpaint)(args, model, picture)
    model.check_sampling(job.request.sampling)
    request = replace(job.request, bias=args.bias)
    settings = edit_folder.settings_of(
        model,
        args.model,
        args.command,
        picture=_digest(picture),
        bias=None if args.bias is None else _digest(args.bias.numpy()),
        image=str(args.image),
        samples=args.samples,
        seed=args.seed,
        **job.settings,
    )

    def paint(seeds: Sequence[int]) -> list[Image.Image]:
        some = replace(request, seed=seeds, samples=len(seeds))
        return painting.vary(model, some, args.keep) if args.command == "vary" else painting.paint(model, some)

    watched = getattr(args, "gif", False)
    watch = partial(painting.watch, model, replace(request, seed=args.seed)) if watched else None
    with options.too_large_a_batch(args, options.pick_device(args)):
        edit_folder.write(args.out, settings, paint, job.before, seeds, args.batch_size, watch)
    return job.before["original"]


def _digest(picture: np.ndarray) -> str:
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


# jobs ----------------------------------------------------------------------------------------------------------------


def _inpaint(args: argparse.Namespace, model: Pipeline, picture: np.ndarray) -> Job:
    """Return the job of `inpaint` and `edit`. picture: uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    from ..inference.editing import as_mask
    from ..inference.editing.pictures import MaskedPicture
    from ..pipeline import painting
    from ..pipeline.edit_folder import hidden

    mask = as_mask(args.mask if args.box is None else args.box, picture.shape[:2])
    if not mask.any():
        print("the mask is empty, nothing is white: the picture stays as it is", file=sys.stderr)
    published = painting.guided(model.sampling) if args.command == "edit" else model.sampling
    settings = {"mask": str(args.mask or args.box), "masked": hashlib.sha256(mask.tobytes()).hexdigest()}
    before = {"original": Image.fromarray(picture), "masked": hidden(picture, mask)}
    return _job(args, model, MaskedPicture(picture, mask), published, settings, before)


def _outpaint(args: argparse.Namespace, model: Pipeline, picture: np.ndarray) -> Job:
    """Return the job of `outpaint`. picture: uint8 (H, W) or (H, W, 3)."""
    from ..inference.editing.pictures import extend, sides_of
    from ..pipeline.edit_folder import hidden

    sides = sides_of(picture, args.size, args.sides or (0, 0, 0, 0))
    extended = extend(picture, sides)
    before = {"original": hidden(extended.picture, extended.mask)}
    return _job(args, model, extended, model.sampling, {"sides": list(sides)}, before)


def _job(
    args: argparse.Namespace,
    model: Pipeline,
    masked: MaskedPicture,
    published: Sampling,
    settings: dict[str, Any],
    before: dict[str, Image.Image],
) -> Job:
    """Return the job of a masked image, with the flags that are alike for `inpaint`, `edit` and `outpaint`."""
    from ..pipeline.painting import EditRequest

    sampling, framing = control_sampling_of(args, sampling_of(args, published)), framing_of(args)
    control, kept = _control(args, model, masked.picture)
    label = _label(args, model, masked, framing)
    request = EditRequest([masked], sampling, framing, label, batch_size=args.batch_size, **control)
    settings |= {
        "label": model.classes.index(label),
        "guess": args.guess,
        "sampling": sampling,
        "framing": framing,
        "control": kept,
    }
    return Job(request, settings, before | _shown(control))


def _vary(args: argparse.Namespace, model: Pipeline, picture: np.ndarray) -> Job:
    """Return the job of `vary`. picture: uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    from ..inference.editing import Framing
    from ..inference.editing.pictures import entirely_masked
    from ..pipeline.painting import EditRequest, check_keep

    check_keep(args.keep)
    sampling, image = control_sampling_of(args, sampling_of(args, model.sampling)), Image.fromarray(picture)
    control, kept = _control(args, model, picture)
    framing = Framing("whole")
    request = EditRequest(entirely_masked(image), sampling, framing, args.cls, batch_size=args.batch_size, **control)
    settings = {"keep": args.keep, "label": model.classes.index(args.cls), "sampling": sampling}
    return Job(request, settings | ({"control": kept} if kept else {}), {"original": image} | _shown(control))


def _control(
    args: argparse.Namespace, model: Pipeline, result: np.ndarray
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Return the fields of a request for --control, and its part of the settings.

    result: an image as large as the result.
    """
    from PIL import Image

    from ..inference.editing.pictures import as_arrays
    from ..pipeline.painting import check_control

    if args.control is None:
        return {}, None
    (picture,) = as_arrays(args.control)
    kind = check_control(model, [result], [picture], args.control_type)
    fields = {"control": Image.fromarray(picture), "control_type": kind}
    return fields, {"picture": _digest(picture), "kind": kind}


def _shown(control: dict[str, Any]) -> dict[str, Image.Image]:
    """Return the control picture of `_control`, for the sheet."""
    return {"control": control["control"]} if control else {}


def _label(args: argparse.Namespace, model: Pipeline, masked: MaskedPicture, framing: Framing) -> Label:
    """Return the class of --class, or with --guess the likeliest, which is printed; None without both."""
    from ..pipeline.painting import guess_label

    if not args.guess:
        return args.cls
    found = guess_label(model, masked, framing, args.guess)
    if found == model.classes.count:
        return None
    print(f"guessed: {model.classes.names[found]}")
    return found
