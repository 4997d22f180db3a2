"""Train a tokenizer on your own images; a stopped run is resumed.

DATA is what `randfeat extract` reads: a folder of images, a list, a dataset of the Hugging Face hub, WebDataset
archives. Pictures (PNG, JPEG, ...) are grey or colour, as they are. Images of other channels or values, multi-page or
16-bit TIFF and arrays (.npy, H x W x C), are taken with --channels or --range: --range says the values that become 0
and 1, and is known of 8 and 16 bits. All images need the same channels.

The recipe says network, quantiser, losses and training; fields are changed by name, as in --set training.steps=2000
quantizer.vocab_size=512. TOK then holds

  tokenizer/          the tokenizer, with the weights that were best on held-out images, written at each validation that
                      is the best so far: TOK opens wherever one is named, while the run goes on and after a stop
  step-00003000/ ...  checkpoints, from which the same command goes on, bit for bit on a CPU
  train.csv           loss and its parts, learning rate, gradient norm, images a second, memory
  validation.csv      held-out loss, L1, PSNR (dB), codes in use (0 to 1) and perplexity
  reconstructions/    a sheet at each validation: held-out images, and below each its reconstruction
  report.html         all of it as a page
  skipped.csv         path and reason of each image that could not be read, where there are any
  run.json            all that decided the weights

recipes (configs/tokenizer_*.yaml; the header of each gives hardware, time and what to expect):
  tokenizer_digits    8 x 8 pixels, 4 a token; a minute on a CPU, to try the commands
  tokenizer_tiny      64 x 64 pixels, 8 a token, 0.8 million parameters; 40 minutes on one CPU core
  tokenizer_small     256 x 256 pixels, 16 a token, 19 million; one GPU
  tokenizer_vq16      LlamaGen's VQ-16, 72 million, as published; several GPUs, weights of VGG-16 and LPIPS

often changed:
  network.stride      pixels a token in each direction: 4, 8 or 16. Half of it makes four times as many tokens, finer
                      images, and a generator that is more expensive
  quantizer.kind      vq, a learned codebook; fsq (with levels such as [8,5,5,5]) and lfq need none
  quantizer.vocab_size   codes, to 65,536; few images use few
  network.width       time and memory grow with its square
  training.batch_size, running.micro_batch   images a step, and of these how many at once: lower the latter where memory
                      runs out. 32 images of 64 x 64 take 1.2 GB with tokenizer_tiny
  running.precision   bfloat16 is twice as fast on a GPU
  loss.perceptual.network, loss.gan.weight   sharper, and slower: a network of timm whose weights lie here, and 0.5

examples:
  randfeat tokenizer train photos -o tok --config tokenizer_tiny
  randfeat tokenizer train scans -o tok --config tokenizer_tiny --channels 1 --size 128
  randfeat tokenizer train satellite -o tok --config tokenizer_small --channels 4 --range 0 10000
  randfeat tokenizer train photos -o tok --config tokenizer_vq16 --init llamagen-vq16 --device cuda \\
      --set training.steps=20000 loss.perceptual.network=null loss.gan.weight=0
  torchrun --nproc-per-node 8 -m randfeat tokenizer train imagenet --split train -o tok --config tokenizer_vq16

exit code: 0 when trained, 3 if images were skipped (0 under torchrun), 1 after an error, 130 or 143 after Ctrl-C or
TERM, 75 after USR1, with which schedulers ask for room: then the run is saved, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options, tokenize
from .evaluate import images_of

if TYPE_CHECKING:
    import torch

    from ...data.sources import Source
    from ...pretrain.vq import TokenizerConfig
    from ...tokenizers import Tokenizer

HELD_OUT = 0.05


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of `randfeat tokenizer train`."""
    parser.usage = "randfeat tokenizer train DATA -o TOK --config RECIPE [options]"
    options.add_data(parser)
    options.add_out(parser, metavar="TOK")
    options.add_recipe(parser)
    parser.add_argument(
        "--init", metavar="T", help="start from this tokenizer, such as llamagen-vq16, adapted to these channels"
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--size", type=int, nargs="+", metavar="N", help="pixels of a side, or height and width (recipe)"
    )
    tokenize.add_values(images, "the tokenizer")
    options.add_split(images)
    held_out = parser.add_argument_group("held-out images, on which the best weights are chosen")
    held_out.add_argument("--validation", metavar="DATA", help="held-out images")
    options.add_held_out(held_out, HELD_OUT)
    options.add_every(parser.add_argument_group("monitoring"))
    machine = options.machine(parser)
    options.add_workers(machine)
    options.add_device(machine)


def run(args: argparse.Namespace) -> int:
    """Train, alone or as one of torchrun's processes, until the end or a signal."""
    from ...pretrain import Stopped, group
    from ...pretrain.vq import read_tokenizer_recipe
    from ...utils import distributed
    from ...weights.loading import load_tokenizer

    recipe = read_tokenizer_recipe(args.config, [*image_changes(args), *args.set])
    if args.held_out is not None and args.validation:
        raise ValueError("--validation and --held-out both say which images are held out: give one of them")
    with distributed.ended_by_sigterm(), group():
        device = options.pick_device(args, "training")
        source = images_of(args.data, args.split)
        try:
            train_monitored(
                recipe,
                source,
                args.out,
                device,
                validation=None if args.validation is None else images_of(args.validation, None),
                held_out=HELD_OUT if args.held_out is None else args.held_out,
                init=None if args.init is None else load_tokenizer(args.init),
                workers=args.workers,
                every=args.every,
            )
        except Stopped as stopped:
            if distributed.rank() == 0:
                print(f"\nrandfeat tokenizer: {stopped}", file=sys.stderr)
            return stopped.code
        return options.exit_code(_report(args.out))


def image_changes(args: argparse.Namespace) -> list[str]:
    """Return the changes of a tokenizer's recipe that --size, --channels and --range stand for."""
    made = []
    if args.size is not None:
        height, width = tokenize.chosen_size(args, (0, 0))
        made.append(f"images.size=[{height},{width}]")
    if args.channels is not None:
        made.append(f"images.channels={args.channels}")
    if args.range is not None:
        made.append(f"images.value_range=[{args.range[0]!r},{args.range[1]!r}]")
    return made


def train_monitored(
    recipe: TokenizerConfig,
    source: Source,
    directory: Path,
    device: torch.device,
    *,
    validation: Source | None = None,
    held_out: float = HELD_OUT,
    init: Tokenizer | None = None,
    workers: int | None = None,
    every: int = 10,
) -> Path:
    """Train as `train_tokenizer` does, with a bar, CSV files and a page, and return the tokenizer's directory."""
    from ...pretrain.vq import train_tokenizer, with_pixels
    from ...pretrain.vq.run import MOST_HELD_OUT
    from ...utils import distributed
    from ..training.page import PAGE
    from .monitor import TokenizerMonitor

    recipe = with_pixels(recipe, source)
    if distributed.rank() == 0:
        print(plan_of(recipe, source, validation, held_out, init), file=sys.stderr)
    held = min(MOST_HELD_OUT, len(validation) if validation else round(held_out * len(source)))
    with TokenizerMonitor(directory, recipe, every, device, held) as monitor:
        made = train_tokenizer(
            recipe,
            source,
            directory,
            validation=validation,
            held_out=0.0 if validation else held_out,
            init=init,
            device=device,
            workers=workers,
            on_step=monitor.on_step,
            on_validation=monitor.on_validation,
        )
    if distributed.rank() == 0:
        print(f"trained: {made}; the page: {directory / PAGE}")
    return made


def plan_of(
    recipe: TokenizerConfig, source: Source, validation: Source | None, held_out: float, init: Tokenizer | None
) -> str:
    """Return what will be done, in a sentence. recipe: with the channels of the images."""
    from ...pretrain.vq.run import tokenizer_of
    from ...utils import devices
    from ..training.plan import plan

    with nullcontext() if init else devices.meta():
        tokenizer = tokenizer_of(recipe, init)
    (height, width), stride, images = recipe.images.size, tokenizer.stride, recipe.images
    values = "" if images.value_range is None else " of values from {:g} to {:g}".format(*images.value_range)
    channels = f"{tokenizer.channels} channel{'s' * (tokenizer.channels > 1)}{values}"
    return plan(
        f"{len(source):,} images of {source.name}, {height} x {width} pixels, {channels}",
        f"{len(validation):,} others" if validation else f"{100 * held_out:g} %",
        height // stride * (width // stride),
        tokenizer.vocab_size,
        sum(parameter.numel() for parameter in tokenizer.parameters()),
        recipe.training,
    )


def _report(directory: Path) -> list[tuple[str, str]]:
    """Return path and reason of the images that could not be read, and tell how many there are."""
    import csv

    from ...data.errors import reasons
    from ...data.store import SKIPPED
    from ...utils import distributed

    if not (directory / SKIPPED).is_file():
        return []
    with (directory / SKIPPED).open(encoding="utf-8", newline="") as file:
        skipped = [(path, reason) for path, reason in list(csv.reader(file))[1:]]
    if skipped and distributed.rank() == 0:
        print(f"{len(skipped):,} skipped, listed in {directory / SKIPPED}: {reasons(skipped)}")
    return skipped
