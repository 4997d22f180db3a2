"""Measure how well a tokenizer reconstructs images, and how it uses its codes; beside others over the same images.

TOK is a directory that `randfeat tokenizer train` wrote, a model's directory, a short name such as llamagen-vq16, or an
official file. DATA is what `randfeat extract` reads. Each image is scaled and cropped at the centre, encoded and
decoded; means have 95 % bootstrap intervals over the images.

  PSNR, MSE, L1       of values in [0, 1]; an image that comes back exactly counts with 100 dB
  SSIM                Wang et al. 2004: Gaussian window of 11 x 11 pixels and sigma 1.5; LlamaGen's code has a flat one
                      of 7 x 7 and a data range of 2, so that its numbers are others
  codes used          share of the codes that occur; perplexity: as many codes, were all equally frequent
  bits a pixel        of the tokens; entropy-coded: if each code took as many bits as its frequency makes best
  border ratio        difference of neighbouring pixels across borders of tokens, divided by that inside tokens; more
                      than that of the originals is blocky
  FID, with --rfid    Fréchet distance of originals and reconstructions (rFID); of another network than Inception under
                      that network's name

--beside compares other tokenizers, image by image. `patch` is k-means over patches of as many pixels, with as many
codes: the same number of tokens and bits. It is fitted to the train split of DATA if --split is another one, or to
--fit; never to what is scored.

With -o OUT: reconstruction.json (all numbers and settings), images.csv (errors of each image), table.md, skipped.csv
and report.html, a page with the worst and with typical reconstructions.

examples:
  randfeat tokenizer evaluate tok photos
  randfeat tokenizer evaluate tok digits --split test --beside patch -o tok_measured
  randfeat tokenizer evaluate llamagen-vq16 imagenet --split val --rfid --beside llamagen-vq8 --device cuda -o vq16

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options

if TYPE_CHECKING:
    import torch

    from ...data.sources import Source
    from ...features.evaluators import Evaluator
    from .reconstruction import Images, Named

PATCH = "patch"  # k-means patches, in --beside


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of `randfeat tokenizer evaluate`."""
    parser.usage = "randfeat tokenizer evaluate TOK DATA [-o OUT] [options]"
    parser.add_argument("tokenizer", metavar="TOK", help="directory, short name or file of a tokenizer or of a model")
    options.add_data(parser)
    options.add_out(parser, metavar="OUT", required=False)
    options.add_format(parser)
    options.add_name(parser, "TOK, then of each of --beside, in the tables", nargs="+")
    data = parser.add_argument_group("data")
    options.add_split(data)
    data.add_argument("--size", type=int, nargs="+", metavar="N", help="pixels of a side, or height and width (as TOK)")
    data.add_argument("--count", type=int, metavar="N", help="images, drawn at random (all)")
    options.add_seed(data, "--count and of k-means")
    beside = parser.add_argument_group("comparison")
    beside.add_argument(
        "--beside", nargs="+", default=[], metavar="T", help=f"other tokenizers, and {PATCH}: see above"
    )
    beside.add_argument("--fit", metavar="DATA", help=f"images that {PATCH} is fitted to (the train split of DATA)")
    beside.add_argument("--fit-split", metavar="NAME", help="part of --fit to read, where it has splits")
    evaluator = parser.add_argument_group("Fréchet distance")
    evaluator.add_argument(
        "--rfid", nargs="?", const="inception", metavar="E", help="evaluator of `randfeat fid` (inception)"
    )
    evaluator.add_argument("--weights", type=Path, metavar="FILE", help="weights of Inception (torch hub's cache)")
    evaluator.add_argument("--spec", metavar="S", help="feature spec of a model, see `randfeat extract --help`")
    options.add_orders(evaluator, 4, "a likelihood")
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_workers(machine)
    options.add_device(machine)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the record and the page."""
    from .evaluation import Evaluation
    from .evaluation_page import write_page
    from .reconstruction import Images, check_alike, measure

    if args.rfid is None and (args.weights or args.spec):
        raise ValueError("--weights and --spec are for --rfid: give it, or leave them out")
    if PATCH not in args.beside and (args.fit or args.fit_split):
        raise ValueError(f"--fit and --fit-split are for --beside {PATCH}: give it, or leave them out")
    others = list(dict.fromkeys(args.beside))
    if args.name and len(set(args.name)) != 1 + len(others):
        raise ValueError(f"--name gives {len(set(args.name))} names to {1 + len(others)} tokenizers: give each its own")
    device = options.pick_device(args, "reconstructing")
    source = images_of(args.data, args.split)
    first, size = open_tokenizer(args, source, device)
    images = Images(source, chosen_rows(len(source), args.count, args.seed), size)
    check_alike([first], size)
    judge = evaluator(args, first.tokenizer.channels, device)
    tokenizers = named([first, *(beside(name, args, images, first, device) for name in others)], args)
    with options.too_large_a_batch(args, device):
        outcome = measure(tokenizers, images, args.batch_size, args.workers, judge)
    judged_by = None if judge is None else judge.name
    found = Evaluation(tokenizers, images, outcome, judged_by, judge is not None and judge.is_inception, settings(args))
    print(found.json() if args.format == "json" else found.table())
    if args.out is None:
        return options.list_skipped(outcome.skipped)
    found.write(args.out)
    write_page(found, args.out)
    return options.list_skipped(outcome.skipped, args.out)


def named(tokenizers: Sequence[Named], args: argparse.Namespace) -> list[Named]:
    """Return tokenizers with the names of --name, or the last two parts of their paths where these differ."""
    short = [options.short_name(one.name) for one in tokenizers]
    names = args.name or (short if len(set(short)) == len(short) else [one.name for one in tokenizers])
    return [replace(one, name=name, given=one.name) for one, name in zip(tokenizers, names, strict=True)]


def settings(args: argparse.Namespace) -> dict[str, str | int | None]:
    """Return the settings that decide the numbers, for the record."""
    names = ("tokenizer", "data", "split", "count", "seed", "fit", "fit_split", "rfid", "spec")
    return {name: getattr(args, name) for name in names}


def images_of(data: str, split: str | None) -> Source:
    """Return a source of images. Raises a ValueError where it holds tokens."""
    from ...data.sources import Source, open_source

    source = open_source(data, split)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens, not images: give the images")
    return source


def open_tokenizer(args: argparse.Namespace, source: Source, device: torch.device) -> tuple[Named, tuple[int, int]]:
    """Return TOK, with a note if it was trained on these images, and height and width of the images."""
    from ...weights.loading import load_tokenizer
    from ..tokenize import chosen_size, training_of, usual_size
    from .reconstruction import Named

    tokenizer, record = load_tokenizer(args.tokenizer, device), training_of(args.tokenizer)
    seen = record is not None and record["images"] == source.fingerprint()
    note = "trained on these very images, so that others come back worse" if seen else ""
    return Named(args.tokenizer, tokenizer, note), chosen_size(args, usual_size(args.tokenizer, tokenizer))


def chosen_rows(total: int, count: int | None, seed: int) -> list[int]:
    """Return the rows of `count` images in ascending order, drawn at random; of all where there are no more.

    Raises a ValueError for a count below 1.
    """
    import numpy as np

    if count is not None and count < 1:
        raise ValueError(f"--count {count}: give a number of images from 1")
    if count is None or count >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def evaluator(args: argparse.Namespace, channels: int, device: torch.device) -> Evaluator | None:
    """Return the evaluator of --rfid. Raises a ValueError for images that are no pictures."""
    from ..fid import open_evaluator

    if args.rfid is None:
        return None
    if channels not in (1, 3):
        raise ValueError(f"--rfid reads pictures, and these images have {channels} channels: leave it out")
    return open_evaluator(args.rfid, args.weights, args.spec, args.orders, device)


def beside(name: str, args: argparse.Namespace, images: Images, first: Named, device: torch.device) -> Named:
    """Return a tokenizer of --beside: one by its name, or patches with as many tokens and codes as the first."""
    from ...weights.loading import load_tokenizer
    from .reconstruction import Named

    if name == args.tokenizer:
        raise ValueError(f"--beside {name}: that is the tokenizer itself, compare others")
    if name != PATCH:
        return Named(name, load_tokenizer(name, device))
    return fitted_patches(args, images, first, device)


def fitted_patches(args: argparse.Namespace, images: Images, first: Named, device: torch.device) -> Named:
    """Return k-means patches as large as the tokens of the first tokenizer, with as many codes, fitted to other images
    than those that are scored.
    """
    from ...pretrain import fit_patches
    from .reconstruction import Named

    if args.fit is not None:
        source = images_of(args.fit, args.fit_split)
    elif args.split not in (None, "train"):
        source = images_of(args.data, "train")
    else:
        raise ValueError(
            f"--beside {PATCH} is fitted to other images than those that are scored: give --split test, where "
            f"{args.data} has splits, or --fit DATA"
        )
    if args.fit is not None:
        same_place = Path(args.fit).resolve() == Path(args.data).resolve()
        overlapping = same_place and (None in (args.split, args.fit_split) or args.split == args.fit_split)
        if overlapping or source.fingerprint() == images.source.fingerprint():
            raise ValueError(f"--fit {args.fit} holds images that are scored: give other ones")
    like = first.tokenizer
    fitted = fit_patches(source, images.size, like.stride, like.vocab_size, args.seed, like.channels, like.value_range)
    split = args.fit_split if args.fit is not None else "train"
    place = source.name if split is None else f"{source.name}, split {split}"
    return Named(PATCH, fitted.to(device), f"k-means over patches of {like.stride} x {like.stride} pixels of {place}")
