"""Trains a generator on image tokens, and goes on where it was stopped.

DATA is a cache that `randfeat tokenize` wrote; or images, with --tokenizer, which become RUN/tokens first. The recipe
says model, size and training; fields are changed by name, as in --set training.steps=2000 running.precision=bfloat16.
RUN then holds

  model/              the model, with the weights that were best on held-out images; randfeat.load opens it
  step-00003000/ ...  checkpoints, from which the same command goes on, bit for bit on a CPU
  train.csv           loss, learning rate, gradient norm, images and tokens a second, share of the peak, memory
  validation.csv      held-out loss, by order mode, and k-NN accuracy where there are labels; by_place.csv by the place
                      in the order
  samples/            a grid at each validation; with --control conditions, samples, and the conditions of these
  report.html         all of it as a page
  run.json            all that decided the weights

recipes (configs/*.yaml; the header of each says hardware, time and what to expect):
  digits_randar ...   minutes on a CPU
  randar_s, arpg_s    one GPU; with _free at the end no label is seen, as for features
  randar_l, randar_xl, arpg_l, arpg_xl, arpg_xxl, and those of L with _free: as published, many GPUs
  digits_arpg_edges, arpg_l_edges: control by edges for a model that is trained already

examples:
  randfeat pretrain --config digits_randar_free --data demo/digits --split train -o run --tokenizer patch \\
      --patch 2 --size 8 --vocab 128
  randfeat pretrain --config randar_s_free --data photos -o run --tokenizer llamagen-vq16 --device cuda
  randfeat pretrain --config arpg_l --data cache -o run --validation cache_val
  randfeat pretrain --config digits_arpg_edges --data cache --init MODEL -o run
  randfeat pretrain --config arpg_l_edges --data cache --init arpg-l -o run --control image --control-data depth_maps
  torchrun --nproc-per-node 8 -m randfeat pretrain --config randar_l --data cache -o run

exit code: 0 when trained, 1 after an error, 130 or 143 after Ctrl-C or TERM, 75 after USR1, with which schedulers ask
for room: then the run is saved, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from randfeat.data.token_store import TokenStore
    from randfeat.models import Generator
    from randfeat.tokenizers import Tokenizer

HOW_TO_RESUME = "Run the same command again: it goes on from the last checkpoint."
HELD_OUT = 0.05
FITTED = "patch"


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.usage = "randfeat pretrain --config RECIPE --data DATA -o RUN [options]"
    parser.add_argument("--config", required=True, metavar="RECIPE", help="the name of a recipe, or a YAML file")
    parser.add_argument("--data", required=True, metavar="DATA", help="a token cache, or images")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="where to write")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="change the recipe"
    )
    parser.add_argument("--init", metavar="MODEL", help="start from these weights, ours or official")
    control = parser.add_argument_group("control by a picture, best from MODEL (see docs/guides/control.md)")
    control.add_argument(
        "--control", metavar="KIND", help="follow edges, lowres, mask or sketch of the images, or image: --control-data"
    )
    control.add_argument(
        "--control-data", metavar="CACHE", help="tokens of pictures of the same names, depth maps, say, to follow"
    )
    held = parser.add_argument_group("held-out images, on which the best weights are chosen")
    held.add_argument("--validation", metavar="CACHE", help="a token cache of them")
    held.add_argument(
        "--held-out", type=float, metavar="X", help=f"else this share of DATA ({HELD_OUT}; 0 keeps the last weights)"
    )
    images = parser.add_argument_group("images that are no tokens yet, see `randfeat tokenize --help`")
    images.add_argument("--tokenizer", metavar="T", help=f"a short name, a file, a model's directory, or {FITTED}")
    images.add_argument("--patch", type=int, metavar="P", help="pixels of a side of a fitted patch (4)")
    images.add_argument("--vocab", type=int, metavar="V", help="codes of a fitted tokenizer (1024)")
    images.add_argument("--size", type=int, nargs="+", metavar="N", help="pixels of a side, or height and width")
    images.add_argument("--crops", choices=("centre", "flip", "ten", "random"), default="flip", help="(flip)")
    images.add_argument("--split", metavar="NAME", help="train, val, ... of data that has splits")
    images.add_argument("--labels", type=Path, metavar="FILE", help="labels that do not lie with the images")
    seen = parser.add_argument_group("what is seen while it runs")
    seen.add_argument(
        "--samples", type=int, default=16, metavar="N", help="in the grid at each validation (16; 0: none)"
    )
    seen.add_argument("--every", type=int, default=10, metavar="N", help="steps between lines of train.csv (10)")
    seen.add_argument("--no-knn", action="store_true", help="no k-NN accuracy at validations")
    parser.set_defaults(ranges=[1.1, 1.05], others=4, scale=[0.35, 1.0], seed=0)  # of `tokenize`
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--workers", type=int, metavar="N", help="processes that decode images")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")


def run(args: argparse.Namespace) -> int:
    from randfeat.data.token_store import TokenStore
    from randfeat.pretrain import Stopped, group, read_recipe, run_pretraining
    from randfeat.utils import devices, distributed

    from .monitor import Monitor
    from .page import write_page

    recipe = read_recipe(args.config, args.set)
    if args.control is not None:
        recipe = replace(recipe, control=replace(recipe.control, kind=args.control))
    if args.held_out is not None and args.validation:
        raise ValueError("--validation and --held-out are two ways to say which images are held out: give one")
    with group():
        device = devices.pick(args.device)
        first = distributed.rank() == 0
        if first and args.device == "auto":
            print(f"training on {device}", file=sys.stderr)
        store, tokenizer = _tokens(args, device)
        validation = None if args.validation is None else TokenStore.open(args.validation)
        held_out = 0.0 if validation else HELD_OUT if args.held_out is None else args.held_out
        init = _init(args.init, device)
        paired = None if args.control_data is None else TokenStore.open(args.control_data)
        with Monitor(args, recipe, store, tokenizer, paired, device) as monitor:
            try:
                model = run_pretraining(
                    recipe,
                    store,
                    tokenizer,
                    args.out,
                    validation=validation,
                    held_out=held_out,
                    init=init,
                    paired=paired,
                    device=device,
                    on_step=monitor.on_step,
                    on_validation=monitor.on_validation,
                )
            except Stopped as stopped:
                if first:
                    print(f"\nrandfeat pretrain: {stopped}", file=sys.stderr)
                return stopped.code
        if first:
            print(f"trained: {model}; the page: {write_page(args.out, recipe)}")
    return 0


def _tokens(args: argparse.Namespace, device: torch.device) -> tuple[TokenStore, Tokenizer]:
    """Return the tokens to train on, made now if they are not there, and their tokenizer."""
    from randfeat import weights
    from randfeat.data.sources import Source, open_source
    from randfeat.data.store import META
    from randfeat.data.token_store import TokenStore
    from randfeat.pretrain import tokenize_images
    from randfeat.weights.loading import load_tokenizer

    from ..tokenize import crops_of, tokenizer_of

    data = Path(args.data)
    if (data / META).is_file():
        store, own = TokenStore.open(data), data / weights.TOKENIZER
        if args.tokenizer == FITTED:
            raise ValueError(f"{data} holds tokens already: leave --tokenizer out")
        if args.tokenizer is None and not own.is_dir():
            raise ValueError(f"{data} does not hold its tokenizer: give --tokenizer")
        return store, load_tokenizer(args.tokenizer or own, device)
    source = open_source(args.data, args.split, args.labels)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens: make a cache of them with `randfeat tokenize --import`")
    out = args.out / "tokens"
    tokenizer, size = tokenizer_of(source, args, device)
    crops = crops_of(args, size, tokenizer.channels)
    return tokenize_images(tokenizer, source, out, crops, workers=args.workers), tokenizer


def _init(model: str | None, device: torch.device) -> Generator | None:
    from randfeat.pipeline.pipeline import load

    return None if model is None else load(model, device=device).generator
