"""Sample images into a folder, any number of them; a stopped run is resumed.

MODEL is what randfeat.load takes, the directory of a model for instance. What no flag sets is as the model was
published. DIR then holds

  images/000000.png ...   the images, each written completely or not at all
  grid.png                the first of them side by side
  samples.npz             all of them as arr_0, uint8 (N, H, W, 3), and their classes as arr_1, for evaluators such as
                          ADM's (grey images as three equal channels)
  labels.csv              file, class, name and seed of each
  settings.json           everything that decided how they look
  control.png             with --control: conditions, samples, and the conditions of the samples

Of a model that reads values, of any number of channels, images/000000.tiff ... hold its samples in the range of these,
uint16 for 0 to 65535, uint8 for 0 to 255 and else float32, one page for each channel; grid.png shows the first three
channels, or of one and two the first as grey, and there is no samples.npz.

Image i has the seed S + i, which alone fixes its order and its noise, whatever the batch and the number of processes.
The same command makes what is missing, with a larger --count what is new; other settings need another DIR.

examples:
  randfeat sample digits_demo/models/randar --classes 3 8 --count 20
  randfeat sample MODEL --classes "golden retriever" otter n02128385 --guidance 4 --steps 64
  randfeat sample MODEL --count 50000 --balanced --dtype bfloat16 --out for-fid
  randfeat sample MODEL --count 8 --bias allowed.npy
  randfeat sample MODEL --control photo.jpg --classes otter --count 8 --control-scale 2
  torchrun --nproc-per-node 8 -m randfeat sample MODEL --count 50000 --balanced --out for-fid

--bias says what may be where. FILE, by numpy.save, has a number for each token of the vocabulary, everywhere or at each
place of the model's grid (`randfeat info MODEL` tells both): above 0 favours a token, below 0 disfavours it, -inf
forbids it. It is added to the logits after guidance, before temperature and --top-k.

schedules, the number of tokens that each step decodes:
  cosine-randar           one at first, then more and more (RandAR)
  cosine-arpg, arccos     several from the first step on, most in the last (ARPG)
  lpd                     LPD's tables, from one at first to most in the last
  linear                  the same number in each
  one-by-one              one in each, whatever --steps is
With --exact the images are drawn as by one token a step, in fewer calls; --steps is refused.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..inference.schedules import Guidance, Schedule
from . import options

if TYPE_CHECKING:
    from ..inference.extrapolation import Extrapolation
    from ..inference.sampling import Sampling

HOW_TO_RESUME = "Run the same command again: images that are there are kept."

# flag, as argparse stores it -> field; those of a guidance are in `guidance_flags`
SAMPLING = {
    name: name
    for name in (
        *("steps", "schedule", "temperature", "top_k", "top_p", "order", "within_step", "sweeps"),
        *("exact", "draft", "locality", "compile"),
    )
}
EXTRAPOLATION = {name: name for name in ("factor", "boundary", "blind")}


# arguments -----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat sample`."""
    parser.usage = f"randfeat {command} MODEL [options]"
    options.add_model(parser)
    images = parser.add_argument_group("images")
    options.add_out(images, default="samples")
    images.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="indices or names, taken in turn")
    images.add_argument("--count", type=int, metavar="N", help="number of images (one of each of --classes, else 16)")
    images.add_argument("--balanced", action="store_true", help="take all classes in turn; else each seed draws one")
    options.add_seed(images, "the first image; the next ones follow")
    options.add_bias(images, "(rows, columns, vocabulary) of the model's grid")

    sampling = parser.add_argument_group("sampling (by default as the model was published)")
    order = sampling.add_mutually_exclusive_group()
    add_order(order)
    order.add_argument("--order-file", type=Path, metavar="FILE", help="any order, as raster positions from 0")
    add_sampling(sampling)

    add_control(parser, "images whose edges, say, the samples take over, in turn", nargs="+")

    larger = parser.add_argument_group("larger images than the model was trained on (RandAR, ARPG)")
    larger.add_argument(
        "--factor", type=int, nargs="+", metavar="F", help="times the size; two: of height and of width"
    )
    larger.add_argument("--boundary", type=int, metavar="N", help="rotary frequencies that are not stretched (2)")
    add_guidance(larger, "spatial", "guidance towards the image at the trained size (off)")
    larger.add_argument("--blind", type=float, metavar="SHARE", help="of it hidden from that guidance's branch (0.5)")

    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_device(machine)
    options.add_dtype(machine, "the generator")


def add_order(parser: options.Flags) -> None:
    """Add --order."""
    modes = "raster, reversed, columns, hierarchical, halton, locality or random"
    parser.add_argument("--order", metavar="MODE", help=f"order in which tokens are decoded: {modes}")


def add_sampling(parser: options.Flags) -> None:
    """Add the flags of SAMPLING except --order, and those of guidance."""
    parser.add_argument("--steps", type=int, metavar="N", help="decoding steps, each one pass of the network")
    names = "a name, see `randfeat sample --help`, or the tokens of each step, as 1,2,4,9"
    parser.add_argument("--schedule", type=_schedule, metavar="NAME", help=names)
    add_guidance(parser, "guidance", "classifier-free guidance towards the class")
    parser.add_argument("--temperature", type=float, metavar="T", help="of the softmax; below 1 less variety")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only (0: all)")
    parser.add_argument("--top-p", type=float, metavar="P", help="nucleus sampling: from the likeliest that sum to P")
    parser.add_argument("--within-step", metavar="MODE", help="ARPG: tokens of a step see each other (group) or causal")
    parser.add_argument("--sweeps", type=int, metavar="N", help="Gibbs sweeps that refine the finished image (0)")
    parser.add_argument(
        "--exact",
        action="store_true",
        default=None,
        help="as one token a step, in fewer calls: several are drafted, and checked by the next call",
    )
    parser.add_argument(
        "--locality",
        nargs=2,
        type=float,
        metavar=("P", "R"),
        help="of --order locality: how near tokens of a group are to known ones, and how far from each other (1 2)",
    )
    checks = "with --exact: tokens that a call checks at most (16; 0: none)"
    parser.add_argument("--draft", type=int, metavar="N", help=checks)
    parser.add_argument(
        "--compile",
        action="store_true",
        default=None,
        help="RandAR, ARPG: steps of few shapes through torch.compile, for large runs on a GPU",
    )


def add_guidance(parser: options.Flags, name: str, summary: str) -> None:
    """Add the flags of one guidance; `guidance_flags` lists them."""
    flag = f"--{name}"
    parser.add_argument(flag, type=_scale, metavar="SCALE", help=f"{summary}: its scale; 1 or off is none")
    parser.add_argument(
        f"{flag}-schedule",
        choices=("constant", "linear", "power-cosine"),
        help="linear rises with the decoded share, power-cosine with half a cosine of its power",
    )
    parser.add_argument(f"{flag}-start", type=float, metavar="SCALE", help="where a rising one starts")
    parser.add_argument(f"{flag}-power", type=float, metavar="P", help="of power-cosine: higher is later (1)")
    parser.add_argument(
        f"{flag}-counted", choices=("before", "after", "token"), help="decoded share before or after a step, or a token"
    )
    parser.add_argument(
        f"{flag}-interval", nargs=2, type=float, metavar=("A", "B"), help="decoded shares with guidance"
    )


def add_control(parser: argparse.ArgumentParser, summary: str, **nargs: Any) -> None:
    """Add the flags of control; `control_sampling_of` reads those of its guidance."""
    control = parser.add_argument_group("control, for models that were trained with it (docs/guides/control.md)")
    control.add_argument("--control", metavar="IMAGE", help=summary, **nargs)
    control.add_argument("--control-type", metavar="TYPE", help="edges, ... as trained; image: IMAGE is the condition")
    add_guidance(control, "control-scale", "classifier-free guidance towards the condition (off)")


def _schedule(text: str) -> str | tuple[int, ...]:
    """Return the schedule that a text stands for, its name or the tokens of each step."""
    if re.fullmatch(r"[1-9]\d{0,8}(,[1-9]\d{0,8})*", text):
        return tuple(map(int, text.split(",")))
    if text not in get_args(Schedule):
        names = ", ".join(get_args(Schedule))
        raise argparse.ArgumentTypeError(f"expected one of {names}, or the tokens of each step as 1,2,4,9, got {text}")
    return text


def _scale(text: str) -> float:
    return 1.0 if text == "off" else float(text)


# what the arguments stand for ----------------------------------------------------------------------------------------


def set_fields(args: argparse.Namespace, flags: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that were set on the command line. flags: flag, as argparse stores it -> field."""
    values = {field: getattr(args, flag) for flag, field in flags.items()}
    return {field: tuple(v) if isinstance(v, list) else v for field, v in values.items() if v is not None}


def guidance_flags(name: str) -> dict[str, str]:
    """Return flag -> field of the guidance called `name`."""
    fields = ("schedule", "start", "power", "counted", "interval")
    return {name: "scale"} | {f"{name}_{field}": field for field in fields}


def guidance_of(args: argparse.Namespace, name: str, published: Guidance) -> Guidance:
    """Return the published guidance with what was set in its place."""
    fields = set_fields(args, guidance_flags(name))
    return replace(Guidance() if fields.get("scale") == 1 else published, **fields)


def sampling_of(args: argparse.Namespace, published: Sampling) -> Sampling:
    """Return the published settings with what was set in their place."""
    fields = set_fields(args, SAMPLING)
    if args.exact or isinstance(args.schedule, tuple):  # the published number of steps is of another way to decode
        fields = {"steps": None} | fields
    elif args.draft is not None and not published.exact:
        raise ValueError("--draft is about drafts that exact sampling checks: give --exact too")
    if args.locality is not None and fields.get("order", published.order) != "locality":
        raise ValueError("--locality is about the order of that name: give --order locality too")
    return replace(published, **fields, guidance=guidance_of(args, "guidance", published.guidance))


def control_sampling_of(args: argparse.Namespace, sampling: Sampling) -> Sampling:
    """Return the settings with the guidance of control; a ValueError for flags of control without --control."""
    flags = ("control_type", *guidance_flags("control_scale"))
    if args.control is None and (stray := _first_set(args, flags)):
        raise ValueError(f"{stray} is about an image that controls the result: give --control too")
    return replace(sampling, control_guidance=guidance_of(args, "control_scale", sampling.control_guidance))


def extrapolation_of(args: argparse.Namespace) -> Extrapolation | None:
    """Return how larger images are sampled; a ValueError for flags of it without --factor."""
    from ..inference.extrapolation import Extrapolation

    if args.factor is None:
        if stray := _first_set(args, (*EXTRAPOLATION, *guidance_flags("spatial"))):
            raise ValueError(f"{stray} is for larger images: give --factor too")
        return None
    factor = args.factor[0] if len(args.factor) == 1 else args.factor
    fields = set_fields(args, EXTRAPOLATION) | {"factor": factor}
    return Extrapolation(**fields, spatial=guidance_of(args, "spatial", Guidance()))


def _first_set(args: argparse.Namespace, flags: tuple[str, ...]) -> str | None:
    return next((f"--{flag.replace('_', '-')}" for flag in flags if getattr(args, flag) is not None), None)


def read_order(path: Path) -> list[int]:
    """Return the raster positions of a file, in decoding order, separated by spaces, commas or newlines."""
    try:
        return [int(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()]
    except ValueError:  # UnicodeDecodeError is one, too
        raise ValueError(f"{path} is no order: expected the raster positions of all tokens, whole numbers") from None


# the run -------------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> None:
    """Sample, alone or as one of torchrun's processes."""
    from ..pipeline.sample_folder import write_samples
    from ..utils import distributed, progress

    with progress.warnings_as_lines(), distributed.group():
        order = None if args.order_file is None else read_order(args.order_file)
        extrapolation = extrapolation_of(args)
        model = options.load_model(args)
        device = options.pick_device(args, "sampling")
        sampling = control_sampling_of(args, sampling_of(args, model.sampling))
        bias = options.read_bias(args, lambda bias: model.check_bias(bias, 1, extrapolation))
        calls: list[int] = []
        with options.too_large_a_batch(args, device):
            made = write_samples(
                model,
                args.out,
                count=args.count,
                classes=args.classes,
                balanced=args.balanced,
                sampling=sampling,
                seed=args.seed,
                order=order,
                extrapolation=extrapolation,
                batch_size=args.batch_size,
                model_name=args.model,
                control=args.control,
                control_type=args.control_type,
                bias=bias,
                tick=lambda taken: calls.extend(taken.tolist()),
            )
        if distributed.rank() == 0:
            if sampling.exact and calls:
                small = model.generator.num_tokens
                every, passes = small * (1 + sampling.sweeps), 1
                if extrapolation is not None:  # the small image, then the tokens between its own
                    every, passes = every + small * (math.prod(extrapolation.factors) - 1), 2
                print(f"network calls: {passes * sum(calls) / len(calls):.1f} of {every} on average")
            print(f"wrote {made}: look at {made / 'grid.png'} first")
