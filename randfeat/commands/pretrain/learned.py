"""A tokenizer that is trained on the images of a pretraining run before these become tokens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import options, tokenize
from ..tokenizer import train

if TYPE_CHECKING:
    import torch

    from ...data.sources import Source
    from ...pretrain import Crops, PretrainConfig
    from ...tokenizers import Tokenizer

LEARNED = "learned"
RECIPE = "tokenizer_tiny"


def add_arguments(parser: options.Flags) -> None:
    """Add --tokenizer-config and --tokenizer-set."""
    parser.add_argument(
        "--tokenizer-config",
        metavar="RECIPE",
        help=f"of --tokenizer {LEARNED}: name of its recipe, or a YAML file ({RECIPE}); --size is that of its images",
    )
    parser.add_argument(
        "--tokenizer-set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="change fields of the tokenizer's recipe",
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raise a ValueError for arguments that do not go with --tokenizer."""
    if args.tokenizer != LEARNED:
        if args.tokenizer_config or args.tokenizer_set:
            raise ValueError(f"--tokenizer-config and --tokenizer-set are for --tokenizer {LEARNED}: leave them out")
        return
    given = {"--validation": args.validation, "--control-data": args.control_data, "--init": args.init}
    for name in (name for name, value in given.items() if value is not None):
        raise ValueError(
            f"{name} is of another tokenizer than the one that --tokenizer {LEARNED} trains: leave it out, or train "
            "the tokenizer first (`randfeat tokenizer train`)"
        )
    if args.patch or args.vocab:
        raise ValueError(f"--patch and --vocab are for --tokenizer {tokenize.FITTED}: leave them out")


def trained(
    args: argparse.Namespace,
    recipe: PretrainConfig,
    source: Source,
    device: torch.device,
    more: Mapping[str, Any],
) -> tuple[Tokenizer, Crops]:
    """Return the tokenizer of RUN/tokenizer, trained first unless it is complete, and the crops that it encodes.

    The generator's recipe is checked before. more: keywords of `run_pretraining`.
    """
    from ... import weights
    from ...pretrain.checks import PlannedTokens, check_pretraining
    from ...pretrain.vq import read_tokenizer_recipe, with_pixels
    from ...pretrain.vq.run import tokenizer_of
    from ...utils import devices, distributed
    from ...weights.loading import load_tokenizer

    changes = [*train.image_changes(args), *args.tokenizer_set]
    own = with_pixels(read_tokenizer_recipe(args.tokenizer_config or RECIPE, changes), source)
    with devices.meta():
        planned = tokenizer_of(own, None)
    crops = tokenize.crops_of(args, tokenize.chosen_size(args, own.images.size), planned)
    check_pretraining(recipe, PlannedTokens(source, planned, crops), args.out, **more)
    if own.training.seed != recipe.training.seed and distributed.rank() == 0:
        print(
            "note: the two recipes have other seeds, so the tokenizer is trained on images that are held out of the "
            "generator's training",
            file=sys.stderr,
        )
    made = train.train_monitored(
        own,
        source,
        Path(args.out) / weights.TOKENIZER,
        device,
        held_out=more["held_out"],
        workers=args.workers,
        every=args.every,
    )
    return load_tokenizer(made, device), crops
