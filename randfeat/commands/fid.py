"""Judge samples against real images: Fréchet distance (FID), precision, recall and Inception Score.

SAMPLES and REFERENCE are an .npz as ADM's tools read and `randfeat sample` writes (arr_0, uint8 (N, H, W, 3)), or
anything that `randfeat extract` reads. Where SAMPLES is a model, --guidance draws --search-count images from it at each
scale, and --count images at the best one, into DIR/guidance-<scale>.

A number means nothing without its evaluator, which is printed with each:

  inception          torch-fidelity's Inception of 2015: the FID of papers, equal to that of ADM's TensorFlow
                     evaluator to the second digit. It needs `pip install torch-fidelity` and the file of weights.
  likelihood:MODEL   log p(image | class) for each class of a class-conditional model; not comparable to FID
  anything else      features of a model, of ours or timm:NAME, by --spec; not comparable to FID

examples:
  randfeat fid samples/samples.npz VIRTUAL_imagenet256_labeled.npz
  randfeat fid samples/images photos --evaluator timm:vit_base_patch14_dinov2
  randfeat fid arpg-l imagenet/val -o search --guidance 2 3 4 5 --search-count 10000 --count 50000
  randfeat fid digits_demo/models/arpg digits_demo/digits --split test -o quality \\
      --evaluator likelihood:digits_demo/models/randar --guidance 1 1.5 2 --search-count 640 --count 640

DIR then holds quality.json, table.md and, where images could not be read, skipped.csv with their paths and the reasons.

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..data.errors import SkippedImage
    from ..features.evaluators import Evaluator, EvaluatorOutput
    from ..probes.tasks.generation import Quality

HOW_TO_RESUME = "Run the same command again: samples that are there are kept."
LIKELIHOOD = "likelihood:"
INCEPTION = "inception"


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat fid`."""
    parser.usage = f"randfeat {command} SAMPLES REFERENCE [-o DIR] [options]"
    parser.add_argument("samples", metavar="SAMPLES", help="images to judge; or a model, with --guidance")
    parser.add_argument("reference", metavar="REFERENCE", help="real images")
    options.add_out(parser, required=False)
    options.add_name(parser, "SAMPLES in the table")
    options.add_split(parser, "REFERENCE")
    parser.add_argument("--count", type=int, metavar="N", help="number of samples (all; of a model 50000)")
    evaluator = parser.add_argument_group("evaluator")
    evaluator.add_argument("--evaluator", default=INCEPTION, metavar="E", help=f"see above ({INCEPTION})")
    evaluator.add_argument("--weights", type=Path, metavar="FILE", help="weights of Inception (torch hub's cache)")
    evaluator.add_argument("--spec", metavar="S", help="feature spec of a model, see `randfeat extract --help`")
    options.add_orders(evaluator, 4, "a likelihood")
    search = parser.add_argument_group("search over guidance, where SAMPLES is a model")
    search.add_argument("--guidance", type=float, nargs="+", metavar="SCALE", help="scales to try; 1 is none")
    search.add_argument("--search-count", type=int, default=10_000, metavar="N", help="samples of each scale (10000)")
    search.add_argument("--steps", type=int, metavar="N", help="decoding steps (as the model was published)")
    options.add_seed(search, "the first sample; the next ones follow")
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_device(machine)
    options.add_dtype(machine, "the sampled model")


def run(args: argparse.Namespace) -> int:
    """Judge, print a table and write it; return the exit code."""
    from ..features.evaluators import evaluate, load_images
    from ..probes.tasks.generation import table
    from ..utils import atomic
    from ..utils.checks import check_whole_number

    for flag, value in (("--count", args.count), ("--search-count", args.search_count)):
        if value is not None:
            check_whole_number(flag, value, 1)
    if args.guidance and args.out is None:
        raise ValueError("a search over guidance keeps its samples: give a folder for them, with -o DIR")
    if args.guidance and args.name:
        raise ValueError("a search over guidance names its rows by the scales: leave --name out")
    device = options.pick_device(args)
    skipped: list[SkippedImage] = []
    count, pictures = load_images(args.reference, args.split, skipped.append)
    given = None if args.guidance else load_images(args.samples, on_skip=skipped.append)
    judge = open_evaluator(args.evaluator, args.weights, args.spec, args.orders, device)
    found: dict[str, Quality] = {}
    with _reasons(skipped):
        reference = evaluate(judge, pictures, count, args.batch_size)
        if given is None:
            found = search(args, judge, reference, device)
        else:
            wanted = min(args.count or given[0], given[0])
            found[args.samples] = compare(judge, given[1], wanted, reference, args.batch_size)
    named = found if args.guidance else {args.name or options.short_name(args.samples): found[args.samples]}
    shown = table(named, judge.is_inception)
    print(shown)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        content = {name: one.as_dict() for name, one in found.items()}
        atomic.write_bytes(args.out / "quality.json", (json.dumps(content, indent=2) + "\n").encode())
        atomic.write_bytes(args.out / "table.md", (shown + "\n").encode())
    return options.list_skipped(skipped, args.out)


@contextmanager
def _reasons(skipped: Sequence[SkippedImage]) -> Iterator[None]:
    """Add to a ValueError of the block, such as one for too few images, why images were skipped."""
    from ..data.errors import NoneReadable, reasons

    try:
        yield
    except NoneReadable:
        raise
    except ValueError as error:
        if not skipped:
            raise
        raise ValueError(f"{error}; {len(skipped):,} could not be read ({reasons(skipped)})") from error


def open_evaluator(name: str, weights: Path | None, spec: str | None, orders: int, device: torch.device) -> Evaluator:
    """Return the evaluator of a name. weights: of Inception. spec: of a model's features. orders: of a likelihood."""
    from ..features.evaluators import EncoderEvaluator, Inception, LikelihoodEvaluator
    from ..features.opening import open_encoder
    from ..pipeline.pipeline import load

    if name == INCEPTION:
        return Inception(weights, device)
    if weights is not None:
        raise ValueError(f"--weights are those of {INCEPTION}: leave them out")
    if name.startswith(LIKELIHOOD):
        model = name.removeprefix(LIKELIHOOD)
        return LikelihoodEvaluator(load(model, device=device), orders, options.short_name(model))
    return EncoderEvaluator(open_encoder(name, [spec] if spec else [], device))


def compare(
    judge: Evaluator, images: Iterator[Image.Image], count: int, reference: EvaluatorOutput, batch_size: int
) -> Quality:
    """Return the quality of the first `count` images beside the reference."""
    from ..features.evaluators import evaluate
    from ..probes.tasks.generation import measure_quality

    samples = evaluate(judge, images, count, batch_size)
    return measure_quality(samples.features, reference.features, judge.name, samples.logits)


def search(
    args: argparse.Namespace, judge: Evaluator, reference: EvaluatorOutput, device: torch.device
) -> dict[str, Quality]:
    """Return the quality at each scale on few samples, then that of the lowest Fréchet distance on all."""
    from ..features.evaluators import load_images
    from ..inference.schedules import Guidance
    from ..pipeline.pipeline import load
    from ..pipeline.sample_folder import IMAGES, write_samples

    model = load(args.samples, device=device, dtype=options.dtype_of(args))
    model.check_reads_pictures("FID")
    steps = {} if args.steps is None else {"steps": args.steps}
    count = args.count or 50_000

    def judge_scale(scale: float, wanted: int) -> Quality:
        guidance = Guidance() if scale == 1 else replace(model.sampling.guidance, scale=scale)
        sampling = replace(model.sampling, guidance=guidance, **steps)
        folder = args.out / f"guidance-{scale:g}"
        made = len(list((folder / IMAGES).glob("*.png")))  # of a search that was run before
        balanced = bool(model.classes.count)
        more = dict(balanced=balanced, sampling=sampling, seed=args.seed, batch_size=args.batch_size)
        write_samples(model, folder, max(wanted, made), **more, model_name=args.samples)
        _, pictures = load_images(folder / IMAGES)
        return compare(judge, pictures, wanted, reference, args.batch_size)

    few = min(args.search_count, count)
    found = {scale: judge_scale(scale, few) for scale in dict.fromkeys(args.guidance)}
    best = min(found, key=lambda scale: found[scale].frechet)
    rows = {f"guidance {scale:g}": one for scale, one in found.items()}
    if few < count:
        rows[f"guidance {best:g}, the best"] = judge_scale(best, count)
    return rows
