"""Train a generator on image tokens; a stopped run is resumed.

DATA is a cache that `randfeat tokenize` wrote; or images, with --tokenizer, which are encoded to RUN/tokens first. With
--tokenizer learned a tokenizer is trained on them before that, in RUN/tokenizer, by a recipe of its own (see `randfeat
tokenizer train --help`); the images that are held out are the same ones for both. The recipe says model, size and
training; fields are changed by name, as in --set training.steps=2000 running.precision=bfloat16. RUN then holds

  model/              the model, with the weights that were best on held-out images; randfeat.load opens it
  step-00003000/ ...  checkpoints, from which the same command goes on, bit for bit on a CPU
  train.csv           loss, learning rate, gradient norm, images and tokens a second, share of the peak, memory
  validation.csv      held-out loss, by order mode, and k-NN accuracy where there are labels
  by_place.csv        held-out loss by position in the order
  samples/            a grid at each validation; with control: conditions, samples, and the conditions of these
  report.html         all of it as a page
  run.json            all that decided the weights

recipes (configs/*.yaml; the header of each gives hardware, time and what to expect):
  digits_randar ...   minutes on a CPU
  randar_s, arpg_s    one GPU; those that end in _free see no label, as for features
  randar_l, randar_xl, arpg_l, arpg_xl, arpg_xxl, and those of L with _free: as published, many GPUs
  digits_arpg_edges, arpg_l_edges: control by edges for a model that is trained already

examples:
  randfeat pretrain --config digits_randar_free --data digits_demo/digits --split train -o run --tokenizer patch \\
      --patch 2 --size 8 --vocab 128
  randfeat pretrain --config randar_s_free --data photos -o run --tokenizer llamagen-vq16 --device cuda
  randfeat pretrain --config randar_s_free --data photos -o run --tokenizer learned --tokenizer-config tokenizer_tiny
  randfeat pretrain --config arpg_l --data cache -o run --validation cache_val
  randfeat pretrain --config digits_arpg_edges --data cache --init MODEL -o run
  randfeat pretrain --config arpg_l_edges --data cache --init arpg-l -o run --control-type image --control-data depths
  torchrun --nproc-per-node 8 -m randfeat pretrain --config randar_l --data cache -o run

Images that cannot be read are skipped, counted and listed in RUN/tokens/skipped.csv.

exit code: 0 when trained, 3 when trained without images that could not be read (0 under torchrun), 1 after an error,
130 or 143 after Ctrl-C or TERM, 75 after USR1, with which schedulers ask for room: then the run is saved, and the same
command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import options, tokenize
from . import learned

if TYPE_CHECKING:
    import torch

    from ...data.token_store import TokenStore
    from ...models import Generator
    from ...pretrain import PretrainConfig
    from ...tokenizers import Tokenizer

HOW_TO_RESUME = "Run the same command again: it goes on from the last checkpoint."
HELD_OUT = 0.05


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat pretrain`."""
    parser.usage = f"randfeat {command} --config RECIPE --data DATA -o RUN [options]"
    options.add_recipe(parser)
    parser.add_argument("--data", required=True, metavar="DATA", help="a token cache, or images")
    options.add_out(parser, metavar="RUN")
    parser.add_argument("--init", metavar="MODEL", help="start from these weights, randfeat's or official ones")
    control = parser.add_argument_group("control by an image, best with --init (see docs/guides/control.md)")
    control.add_argument(
        "--control-type",
        metavar="TYPE",
        help="condition: edges, lowres, mask or sketch of the images, or image, those of --control-data",
    )
    control.add_argument(
        "--control-data", metavar="CACHE", help="tokens of conditions (depth maps, ...) of the same names"
    )
    held_out = parser.add_argument_group("held-out images, on which the best weights are chosen")
    held_out.add_argument("--validation", metavar="CACHE", help="token cache of held-out images")
    options.add_held_out(held_out, HELD_OUT)
    images = parser.add_argument_group("DATA of images that are no tokens yet, see `randfeat tokenize --help`")
    tokenize.add_tokenizer(images)
    tokenize.add_crops(images)
    learned.add_arguments(images)
    options.add_split(images)
    options.add_labels(images, column=False)
    parser.set_defaults(**tokenize.CROP_DEFAULTS)
    shown = parser.add_argument_group("monitoring")
    shown.add_argument("--samples", type=int, default=16, metavar="N", help="samples at each validation (16; 0: none)")
    options.add_every(shown)
    shown.add_argument("--no-knn", action="store_true", help="no k-NN accuracy at validations")
    machine = options.machine(parser)
    options.add_workers(machine)
    options.add_device(machine)


def run(args: argparse.Namespace) -> int:
    """Train, alone or as one of torchrun's processes, until the end or a signal."""
    from ...data.token_store import TokenStore
    from ...pretrain import Stopped, group, read_recipe, run_pretraining
    from ...utils import distributed
    from .monitor import Monitor
    from .page import write_page

    recipe = read_recipe(args.config, args.set)
    if args.control_type is not None:
        recipe = replace(recipe, control=replace(recipe.control, kind=args.control_type))
    if args.held_out is not None and args.validation:
        raise ValueError("--validation and --held-out both say which images are held out: give one of them")
    learned.check_arguments(args)
    with group():
        device = options.pick_device(args, "training")
        validation = None if args.validation is None else TokenStore.open(args.validation)
        more: dict[str, Any] = {
            "validation": validation,
            "held_out": 0.0 if validation else HELD_OUT if args.held_out is None else args.held_out,
            "init": _init(args.init, device),
            "paired": None if args.control_data is None else TokenStore.open(args.control_data),
        }
        try:
            store, tokenizer = _tokens(args, recipe, device, more)
            with Monitor(args, recipe, store, tokenizer, more["paired"], device) as monitor:
                model = run_pretraining(
                    recipe,
                    store,
                    tokenizer,
                    args.out,
                    device=device,
                    on_step=monitor.on_step,
                    on_validation=monitor.on_validation,
                    **more,
                )
        except Stopped as stopped:
            if distributed.rank() == 0:
                print(f"\nrandfeat pretrain: {stopped}", file=sys.stderr)
            return stopped.code
        if distributed.rank() == 0:
            print(f"trained: {model}; the page: {write_page(args.out, recipe)}")
            if store.directory == args.out / "tokens":  # of a cache `randfeat tokenize` has told
                return _report_skipped(store)
    return 0


def _report_skipped(store: TokenStore) -> int:
    """Tell how many images could not be read, and return the exit code."""
    from ...data.errors import reasons
    from ...data.store import SKIPPED

    if skipped := store.skipped:
        where = store.directory / SKIPPED
        print(f"{len(skipped):,} images skipped, listed in {where}: {reasons(skipped)}", file=sys.stderr)
    return options.exit_code(skipped)


def _tokens(
    args: argparse.Namespace, recipe: PretrainConfig, device: torch.device, more: Mapping[str, Any]
) -> tuple[TokenStore, Tokenizer]:
    """Return the tokens to train on, encoded first if DATA is images, and their tokenizer.

    more: keywords of `run_pretraining`, with which the recipe is checked before anything is encoded.
    """
    from ... import weights
    from ...data.sources import Source
    from ...data.store import META
    from ...data.token_store import TokenStore
    from ...pretrain import tokenize_images
    from ...pretrain.checks import PlannedTokens, check_pretraining
    from ...weights.loading import load_tokenizer

    data = Path(args.data)
    if (data / META).is_file():
        store, own = TokenStore.open(data), data / weights.TOKENIZER
        if args.tokenizer in (tokenize.FITTED, learned.LEARNED):
            raise ValueError(f"{data} holds tokens already: leave --tokenizer out")
        if args.tokenizer is None and not own.is_dir():
            raise ValueError(f"{data} does not hold its tokenizer: give --tokenizer")
        return store, load_tokenizer(args.tokenizer or own, device)
    source = options.open_data(args)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens: make a cache of them with `randfeat tokenize --import`")
    if args.tokenizer == learned.LEARNED:
        tokenizer, crops = learned.trained(args, recipe, source, device, more)
    else:
        tokenizer, size = tokenize.tokenizer_of(source, args, device)
        crops = tokenize.crops_of(args, size, tokenizer)
        check_pretraining(recipe, PlannedTokens(source, tokenizer, crops), args.out, **more)
    return tokenize_images(tokenizer, source, args.out / "tokens", crops, workers=args.workers), tokenizer


def _init(model: str | None, device: torch.device) -> Generator | None:
    """Return the generator of --init."""
    from ...pipeline.pipeline import load

    return None if model is None else load(model, device=device).generator
