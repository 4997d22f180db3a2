"""Samples images into a folder, as many as you like, and goes on where it was stopped.

MODEL is what randfeat.load takes, the directory of a model for instance. Whatever is not said here is as the model was
published. DIR then holds

  images/000000.png ...   the images, written whole or not at all
  grid.png                the first of them side by side
  samples.npz             all of them as arr_0, uint8 (N, H, W, 3), and their classes as arr_1, for evaluators such as
                          ADM's (grey images as three equal channels)
  labels.csv              file, class, name and seed of each
  settings.json           everything that decided how they look
  control.png             with --control: conditions, samples, and the conditions of the samples

Image i has the seed S + i, which alone fixes its order and its noise, whatever the batch and the number of processes.
The same command makes what is missing, with a larger --count what is new; other settings need another DIR.

examples:
  randfeat sample demo/models/randar --classes 3 8 --count 20
  randfeat sample MODEL --classes "golden retriever" otter n02128385 --guidance 4 --steps 64
  randfeat sample MODEL --count 50000 --balanced --dtype bfloat16 --out for-fid
  randfeat sample MODEL --control photo.jpg --classes otter --count 8 --control-scale 2
  torchrun --nproc-per-node 8 -m randfeat sample MODEL --count 50000 --balanced --out for-fid

schedules, tokens decoded in each step:
  cosine-randar           one at first, then more and more (RandAR)
  cosine-arpg, arccos     as in ARPG; several from the first step on, most in the last
  linear                  as many in each
  one-by-one              one in each, whatever the steps
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..inference.schedules import Guidance, Schedule

if TYPE_CHECKING:
    from ..inference.extrapolation import Extrapolation
    from ..inference.sampling import Sampling

ORDER_HELP = "raster, reversed, columns, hierarchical or random"
HOW_TO_RESUME = "Run the same command again: images that are there are kept."

# flag, as argparse stores it -> field; those of a guidance are in `guidance_flags`
SAMPLING = {
    name: name for name in ("steps", "schedule", "temperature", "top_k", "top_p", "order", "within_step", "sweeps")
}
EXTRAPOLATION = {name: name for name in ("factor", "boundary", "blind")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat sample MODEL [options]"
    parser.add_argument("model", metavar="MODEL", help="the model to sample from")
    what = parser.add_argument_group("what to sample")
    what.add_argument("-o", "--out", type=Path, default=Path("samples"), metavar="DIR", help="where to write (samples)")
    what.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="indices or names, which go round")
    what.add_argument("--count", type=int, metavar="N", help="images (one of each class named, else 16)")
    what.add_argument("--balanced", action="store_true", help="go round all classes; else each seed draws one")
    what.add_argument("--seed", type=int, default=0, metavar="S", help="of the first image (0)")

    how = parser.add_argument_group("how to sample")
    add_sampling(how)
    places = how.add_mutually_exclusive_group()
    places.add_argument("--order", metavar="MODE", help=ORDER_HELP)
    places.add_argument("--order-file", type=Path, metavar="FILE", help="an order of your own, of row * width + column")

    add_control(parser, "pictures that steer the samples in turn", nargs="+")

    larger = parser.add_argument_group("larger images than the model was trained on (RandAR, ARPG)")
    larger.add_argument(
        "--factor", type=int, nargs="+", metavar="F", help="F times as high and as wide; two: of height, of width"
    )
    larger.add_argument("--boundary", type=int, metavar="N", help="rotary frequencies that are not stretched (2)")
    add_guidance(larger, "spatial", "guidance towards the small image, or off (off)")
    larger.add_argument("--blind", type=float, metavar="SHARE", help="of it that the other branch does not see (0.5)")

    add_machine(parser)


def add_sampling(how: Any) -> None:
    """The flags of SAMPLING but the order, and those of guidance."""
    how.add_argument("--steps", type=int, help="network calls for an image")
    how.add_argument("--schedule", choices=get_args(Schedule), help="see above")
    add_guidance(how, "guidance", "how much more an image shall look like its class, or off")
    how.add_argument("--temperature", type=float, help="below 1 plainer, above 1 wilder")
    how.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only (0: all)")
    how.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest that sum to P only (1: all)")
    how.add_argument("--within-step", metavar="MODE", help="ARPG, tokens of one step: group (see each other) or causal")
    how.add_argument("--sweeps", type=int, metavar="N", help="go over the finished image N times, half by half")


def add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the generator")


def add_guidance(parser: Any, name: str, summary: str) -> None:
    flag = f"--{name}"
    parser.add_argument(flag, type=scale, metavar="SCALE", help=summary)
    parser.add_argument(f"{flag}-schedule", choices=("constant", "linear"), help="linear rises with the share decoded")
    parser.add_argument(f"{flag}-start", type=float, metavar="SCALE", help="where linear starts")
    parser.add_argument(f"{flag}-counted", choices=("before", "after"), help="the share decoded before or after a step")
    parser.add_argument(f"{flag}-interval", nargs=2, type=float, metavar=("A", "B"), help="off outside these shares")


def add_control(parser: argparse.ArgumentParser, summary: str, **how: Any) -> None:
    """The flags of control; `steered` reads those of its guidance."""
    control = parser.add_argument_group("control: what is made has the edges, say, of a picture (docs/guides/control)")
    control.add_argument("--control", metavar="IMAGE", help=summary, **how)
    control.add_argument(
        "--control-type", metavar="TYPE", help="edges, say, as MODEL was trained; image: IMAGE shows them already"
    )
    add_guidance(control, "control-scale", "how much more it shall follow them, or off (off)")


def scale(text: str) -> float:
    return 1.0 if text == "off" else float(text)


def run(args: argparse.Namespace) -> None:
    import torch

    from ..pipeline.pipeline import load
    from ..pipeline.sample_folder import write_samples
    from ..utils import devices, distributed

    with distributed.group():
        order = None if args.order_file is None else read_order(args.order_file)
        extrapolation = extrapolation_of(args)
        device = devices.pick(args.device)
        model = load(args.model, device=device, dtype=getattr(torch, args.dtype))
        if args.device == "auto" and distributed.rank() == 0:
            print(f"sampling on {device}", file=sys.stderr)
        try:
            made = write_samples(
                model,
                args.out,
                count=args.count,
                classes=args.classes,
                balanced=args.balanced,
                sampling=steered(args, sampling_of(args, model.sampling)),
                seed=args.seed,
                order=order,
                extrapolation=extrapolation,
                batch_size=args.batch_size,
                model_name=args.model,
                control=args.control,
                control_type=args.control_type,
            )
        except torch.OutOfMemoryError:
            reason = f"no room for {args.batch_size} images at a time on {device}: choose a smaller --batch-size"
            raise RuntimeError(reason) from None
        if distributed.rank() == 0:
            print(f"wrote {made}: look at {made / 'grid.png'} first")


def given(args: argparse.Namespace, flags: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that were set on the command line; flags: flag, as argparse stores it -> field."""
    values = {field: getattr(args, flag) for flag, field in flags.items()}
    return {field: tuple(v) if isinstance(v, list) else v for field, v in values.items() if v is not None}


def guidance_flags(name: str) -> dict[str, str]:
    """Of the guidance called `name`."""
    return {name: "scale"} | {f"{name}_{field}": field for field in ("schedule", "start", "counted", "interval")}


def sampling_of(args: argparse.Namespace, published: Sampling) -> Sampling:
    """Return the model's own settings with what was set in their place."""
    return replace(published, **given(args, SAMPLING), guidance=guidance_of(args, "guidance", published.guidance))


def steered(args: argparse.Namespace, sampling: Sampling) -> Sampling:
    """With the guidance of `add_control`; a ValueError where nothing steers."""
    stray = [flag for flag in ("control_type", *guidance_flags("control_scale")) if getattr(args, flag) is not None]
    if stray and args.control is None:
        raise ValueError(f"--{stray[0].replace('_', '-')} is about a picture that steers: give --control too")
    return replace(sampling, control_guidance=guidance_of(args, "control_scale", sampling.control_guidance))


def guidance_of(args: argparse.Namespace, name: str, published: Guidance) -> Guidance:
    fields = given(args, guidance_flags(name))
    return replace(Guidance() if fields.get("scale") == 1 else published, **fields)


def extrapolation_of(args: argparse.Namespace) -> Extrapolation | None:
    from ..inference.extrapolation import Extrapolation

    if args.factor is None:
        stray = [flag for flag in (*EXTRAPOLATION, *guidance_flags("spatial")) if getattr(args, flag) is not None]
        if stray:
            raise ValueError(f"--{stray[0].replace('_', '-')} is for larger images: give --factor too")
        return None
    factor = args.factor[0] if len(args.factor) == 1 else args.factor
    fields = given(args, EXTRAPOLATION) | {"factor": factor}
    return Extrapolation(**fields, spatial=guidance_of(args, "spatial", Guidance()))


def read_order(path: Path) -> list[int]:
    """Raster positions in the order in which they are decoded, apart by spaces, commas or newlines."""
    words = path.read_text(encoding="utf-8").replace(",", " ").split()
    try:
        return [int(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{path} should hold the positions of an order, whole numbers: {error}") from None
