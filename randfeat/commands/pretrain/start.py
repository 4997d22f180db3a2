"""`randfeat pretrain --init`: the model to start from, its tokenizer, its recipe, and what is told of them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import tokenize

if TYPE_CHECKING:
    import torch

    from ...data.sources import Source
    from ...data.token_store import TokenStore
    from ...pipeline.pipeline import Pipeline
    from ...pretrain import PretrainConfig
    from ...pretrain.start import ClassTable
    from ...tokenizers import Tokenizer


def check_arguments(args: argparse.Namespace) -> None:
    """Raise a ValueError for arguments that do not go with --init, or for a recipe that is missing or wrong without
    it.
    """
    from ...pretrain import read_recipe

    if args.init is None:
        if args.config is None:
            raise ValueError("--config is missing: give a recipe; with --init MODEL it may be left out")
        read_recipe(args.config, args.set)  # a wrong one is told before the data are looked for
    elif args.tokenizer == tokenize.FITTED:
        raise ValueError(
            f"the model of --init reads the codes of its own tokenizer, and --tokenizer {tokenize.FITTED} makes "
            "others: leave --tokenizer out"
        )


def planned(args: argparse.Namespace) -> Pipeline | None:
    """Return the model of --init without its weights where it is a published one, which may have to be downloaded."""
    from ...pipeline.pipeline import Pipeline
    from ...weights.planned import planned_parts

    parts = None if args.init is None else planned_parts(args.init)
    if parts is None:
        return None
    return Pipeline(parts.tokenizer, parts.generator, parts.class_names, sampling=parts.sampling)


def opened(args: argparse.Namespace, device: torch.device) -> Pipeline | None:
    """Return the model of --init."""
    from ...pipeline.pipeline import load

    return None if args.init is None else load(args.init, device=device)


def recipe_of(
    args: argparse.Namespace, model: Pipeline | None, data: TokenStore | Source
) -> tuple[PretrainConfig, str | None]:
    """Return the recipe of --config, or else of the model of --init, and why the schedule of this one is so."""
    from ...pretrain import plan_finetuning, read_recipe

    why = None
    if model is None:
        recipe = read_recipe(args.config, args.set)
    else:
        labelled = data.labels is not None and any(label is not None for label in data.labels)
        found = plan_finetuning(model, len(data), labelled, args.config, args.set)
        recipe, why = found.recipe, found.why
    if args.control_type is not None:
        recipe = replace(recipe, control=replace(recipe.control, kind=args.control_type))
    return recipe, why


def tokenizer_of(args: argparse.Namespace, model: Pipeline, device: torch.device) -> tuple[Tokenizer, tuple[int, int]]:
    """Return the tokenizer of a model, or that of --tokenizer, and height and width of the crops.

    A published tokenizer has no weights yet where the model has none.
    """
    from ...weights.loading import load_tokenizer
    from ...weights.planned import planned_tokenizer

    if args.patch or args.vocab or args.channels or args.range:
        raise ValueError(
            f"--patch, --vocab, --channels and --range are for --tokenizer {tokenize.FITTED}: leave them out"
        )
    tokenizer = model.tokenizer
    if args.tokenizer is not None:
        without = planned_tokenizer(args.tokenizer) if model.generator.device.type == "meta" else None
        tokenizer = without or load_tokenizer(args.tokenizer, device)
    rows, columns = model.generator.grid
    return tokenizer, tokenize.chosen_size(args, (rows * tokenizer.stride, columns * tokenizer.stride))


def tell(
    args: argparse.Namespace, model: Pipeline, tokenizer: Tokenizer, table: ClassTable | None, why: str | None
) -> None:
    """Tell on standard error what is begun with, how it is trained and why so."""
    from ... import weights
    from ...utils import distributed

    if distributed.rank():
        return
    parameters = sum(parameter.numel() for parameter in model.generator.parameters())
    print(f"fine-tuning {args.init}, {parameters / 1e6:.1f} million parameters: {why}", file=sys.stderr)
    if table is not None and not table.kept:
        print(f"note: {table}", file=sys.stderr)
    if weights.fingerprint(tokenizer) != weights.fingerprint(model.tokenizer):
        print(
            "note: the tokens are by another tokenizer than the model's, with as many codes: it has to be one that was "
            "trained from the model's, or its codes mean something else and little of the model is of use",
            file=sys.stderr,
        )


def told(directory: Path) -> str:
    """Return what a run's page says of the model that it began as, after a space; nothing of a run without one."""
    from ...pretrain.checkpoints import FORMAT, RUN
    from ...pretrain.start import ClassTable
    from ...utils import atomic

    settings = (atomic.read_json(directory / RUN, FORMAT) or {}).get("settings", {})
    if settings.get("init") is None:
        return ""
    began = f" Fine-tuned from the weights of fingerprint {settings['init'][:12]}"
    if (table := settings.get("class_table")) is None:
        return f"{began}, whose classes are the same."
    return f"{began}: {ClassTable(table['known'], tuple(table['rows']))}."
