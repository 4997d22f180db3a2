"""Train a generator on image tokens; a stopped run is resumed.

DATA is a cache that `randfeat tokenize` wrote; or images, with --tokenizer, which are encoded to RUN/tokens first. With
--tokenizer learned a tokenizer is trained on them before that, in RUN/tokenizer, by a recipe of its own (see `randfeat
tokenizer train --help`); the images that are held out are the same ones for both. The recipe says model, size and
training; fields are changed by name, as in --set training.steps=2000 running.precision=bfloat16.

--init MODEL fine-tunes: a model of randfeat, one in the package, or an official one starts from its weights, also for
other classes, another number of them, or none. Tokenizer and recipe are then the model's where --tokenizer and --config
are left out, the recipe with a fifth of the steps and a quarter of the learning rate (docs/guides/fine-tune.md).

RUN then holds

  model/              the model, with the weights that were best on held-out images; randfeat.load opens it
  step-00003000/ ...  checkpoints, from which the same command goes on, bit for bit on a CPU
  train.csv           loss, learning rate, gradient norm, images and tokens a second, share of the peak, memory
  validation.csv      held-out loss, by order mode, and k-NN accuracy where there are labels
  by_place.csv        held-out loss by position in the order
  samples/            a grid at each validation; with control: conditions, samples, and the conditions of these
  reconstructions.png   images above their tokens, decoded, where the images are at hand: samples are no finer
  report.html         all of it as a page, from the first validation on and after a stop
  run.json            all that decided the weights

recipes (configs/*.yaml; the header of each gives hardware, time and what to expect):
  digits_randar ...   minutes on a CPU
  photos_arpg_cpu, photos_randar_cpu   photographs of 64 x 64 pixels, an hour of a CPU with a tokenizer of their own
  photos_arpg_gpu     thousands of photographs of 256 x 256 pixels, one GPU
  randar_s, arpg_s    one GPU; those that end in _free see no label, as for features
  fashion_arpg_free, fashion_arpg_14x14_free, fashion_randar, ...   Fashion-MNIST, half an hour of a CPU or more
  lpd_l, rar_l        ImageNet, as published, many GPUs
  randar_l, randar_xl, arpg_l, arpg_xl, arpg_xxl, and those of L with _free: as published, many GPUs
  digits_arpg_edges, arpg_l_edges: control by edges for a model that is trained already

examples:
  randfeat pretrain --config digits_randar_free --data digits_demo/digits --split train -o run --tokenizer patch \\
      --patch 2 --size 8 --vocab 128
  randfeat pretrain --config randar_s_free --data photos -o run --tokenizer llamagen-vq16 --device cuda
  randfeat pretrain --config randar_s_free --data photos -o run --tokenizer learned --tokenizer-config tokenizer_tiny
  randfeat pretrain --config arpg_l --data cache -o run --validation cache_val
  randfeat pretrain --init fashion-arpg --data my_clothes -o run
  randfeat pretrain --config digits_arpg_edges --data cache --init MODEL -o run
  randfeat pretrain --config arpg_l_edges --data cache --init arpg-l -o run --control-type image --control-data depths
  torchrun --nproc-per-node 8 -m randfeat pretrain --config randar_l --data cache -o run

The first steps tell how long it will take, and of a long training what would make it cheaper; --set labels=false
trains any recipe without labels. Images that cannot be read are skipped, counted and listed in RUN/tokens/skipped.csv.

exit code: 0 when trained, 3 when trained without images that could not be read (0 under torchrun), 1 after an error,
130 or 143 after Ctrl-C or TERM, 75 after USR1, with which schedulers ask for room: then the run is saved, and the same
command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import options, tokenize
from . import learned, start

if TYPE_CHECKING:
    import torch

    from ...data.sources import Source
    from ...data.token_store import TokenStore
    from ...pretrain import Crops, PretrainConfig
    from ...pretrain.start import ClassTable
    from ...tokenizers import Tokenizer

HOW_TO_RESUME = "Run the same command again: it goes on from the last checkpoint."
HELD_OUT = 0.05


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat pretrain`."""
    parser.usage = f"randfeat {command} [--config RECIPE] [--init MODEL] --data DATA -o RUN [options]"
    options.add_recipe(parser, required=False)
    parser.add_argument("--data", required=True, metavar="DATA", help="a token cache, or images")
    options.add_out(parser, metavar="RUN")
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from this model, randfeat's or an official one, also for other classes; --config may be left out",
    )
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
    tokenize.add_tokenizer(images, f"; or {learned.LEARNED}: a network that is trained on them first")
    tokenize.add_crops(images)
    learned.add_arguments(images)
    options.add_split(images)
    options.add_labels(images, column=False)
    parser.set_defaults(**tokenize.CROP_DEFAULTS)
    shown = parser.add_argument_group("monitoring")
    shown.add_argument(
        "--samples",
        type=options.whole_number(0),
        default=16,
        metavar="N",
        help="samples at each validation (16; 0: none)",
    )
    options.add_every(shown)
    shown.add_argument("--no-knn", action="store_true", help="no k-NN accuracy at validations")
    machine = options.machine(parser)
    options.add_workers(machine)
    options.add_device(machine)


def run(args: argparse.Namespace) -> int:
    """Train, alone or as one of torchrun's processes, until the end or a signal."""
    from ...data.token_store import TokenStore
    from ...pretrain import Stopped, group, run_pretraining
    from ...utils import distributed, progress
    from ..training.page import PAGE
    from .monitor import Monitor

    if args.held_out is not None and args.validation:
        raise ValueError("--validation and --held-out both say which images are held out: give one of them")
    learned.check_arguments(args)
    start.check_arguments(args)
    with progress.warnings_as_lines(), group():
        device = options.pick_device(args, "training")
        data, planned = _open(args), start.planned(args)
        model = planned or start.opened(args, device)
        recipe, why = start.recipe_of(args, model, data)
        validation = None if args.validation is None else TokenStore.open(args.validation)
        more: dict[str, Any] = {
            "validation": validation,
            "held_out": 0.0 if validation else HELD_OUT if args.held_out is None else args.held_out,
            "init": model,
            "paired": None if args.control_data is None else TokenStore.open(args.control_data),
        }
        try:
            if planned is not None:
                _checked(args, recipe, data, device, more)  # before the download
                more["init"] = start.opened(args, device)
            store, tokenizer = _tokens(args, recipe, data, device, more, why)
            with Monitor(args, recipe, store, tokenizer, data, device, **more) as monitor:
                made = run_pretraining(
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
            print(f"trained: {made}; the page: {args.out / PAGE}")
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


def _open(args: argparse.Namespace) -> TokenStore | Source:
    """Return DATA: a cache of tokens, or images."""
    from ...data.sources import Source
    from ...data.store import META
    from ...data.token_store import TokenStore

    data = Path(args.data)
    if (data / META).is_file():
        if args.tokenizer in (tokenize.FITTED, learned.LEARNED):
            raise ValueError(f"{data} holds tokens already: leave --tokenizer out")
        return TokenStore.open(data)
    source = options.open_data(args)
    if not isinstance(source, Source):
        raise ValueError(f"{data} holds tokens: make a cache of them with `randfeat tokenize --import`")
    return source


def _checked(
    args: argparse.Namespace,
    recipe: PretrainConfig,
    data: TokenStore | Source,
    device: torch.device,
    more: Mapping[str, Any],
) -> tuple[Tokenizer, Crops | None, ClassTable | None]:
    """Return the tokenizer of DATA, its crops where it is images, and the rows of the class table of --init.

    Whatever does not fit is refused here, before anything is encoded. more: keywords of `run_pretraining`.
    """
    from ... import weights
    from ...data.token_store import TokenStore
    from ...pretrain.checks import PlannedTokens, check_pretraining
    from ...weights.loading import load_tokenizer

    if isinstance(data, TokenStore):
        own = data.directory / weights.TOKENIZER
        if args.tokenizer is None and not own.is_dir():
            raise ValueError(f"{data.directory} does not hold its tokenizer: give --tokenizer")
        tokenizer = load_tokenizer(args.tokenizer or own, device)
        return tokenizer, None, check_pretraining(recipe, data, args.out, tokenizer, **more)
    if more["init"] is None:
        tokenizer, size = tokenize.tokenizer_of(data, args, device)
    else:
        tokenizer, size = start.tokenizer_of(args, more["init"], device)
    crops = tokenize.crops_of(args, size, tokenizer)
    return tokenizer, crops, check_pretraining(recipe, PlannedTokens(data, tokenizer, crops), args.out, **more)


def _tokens(
    args: argparse.Namespace,
    recipe: PretrainConfig,
    data: TokenStore | Source,
    device: torch.device,
    more: Mapping[str, Any],
    why: str | None,
) -> tuple[TokenStore, Tokenizer]:
    """Return the tokens to train on, encoded first if DATA is images, and their tokenizer.

    more: keywords of `run_pretraining`, with which the recipe is checked before. why: see `start.recipe_of`.
    """
    from ...data.token_store import TokenStore
    from ...pretrain import tokenize_images

    crops: Crops | None
    if args.tokenizer == learned.LEARNED and not isinstance(data, TokenStore):
        tokenizer, crops = learned.trained(args, recipe, data, device, more)
    else:
        tokenizer, crops, table = _checked(args, recipe, data, device, more)
        if more["init"] is not None:
            start.tell(args, more["init"], tokenizer, table, why)
    if isinstance(data, TokenStore):
        return data, tokenizer
    assert crops is not None  # of images
    return tokenize_images(tokenizer, data, args.out / "tokens", crops, workers=args.workers), tokenizer
