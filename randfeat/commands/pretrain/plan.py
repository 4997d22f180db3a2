"""Plan of a pretraining run, in a sentence, and what would make it cheaper."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from randfeat.data.token_store import TokenStore
from randfeat.models import Generator
from randfeat.pretrain import PretrainConfig
from randfeat.pretrain.checks import fresh_generator
from randfeat.tokenizers import Tokenizer
from randfeat.utils import devices

from ..tokenize import FITTED
from ..training.plan import plan
from .learned import LEARNED

FORWARD_AND_BACKWARD = 3  # operations of a training step over those of a forward pass
MANY = 64  # tokens an image; of more, fewer are advised, and else fewer layers
LARGEST_STRIDE = 16  # pixels a token of a learned tokenizer


def planned(recipe: PretrainConfig, store: TokenStore, tokenizer: Tokenizer) -> Generator:
    """Return the generator that the recipe makes of these tokens, without memory for its weights."""
    with devices.meta():
        return fresh_generator(recipe, store, tokenizer)


def plan_of(recipe: PretrainConfig, store: TokenStore, made: Generator, held_out: int) -> str:
    """Return what a run will do, in a sentence. made: the generator, see `planned`. held_out: number of images."""
    parameters = sum(parameter.numel() for parameter in made.parameters())
    labels = "with labels" if recipe.labels else "without labels"
    data = f"pretraining {recipe.model} {labels}: {len(store):,} images"
    tokens = store.grid[0] * store.grid[1]
    return plan(data, f"{held_out:,}" if held_out else "none", tokens, store.vocab_size, parameters, recipe.training)


def cheaper(args: argparse.Namespace, recipe: PretrainConfig, store: TokenStore, tokenizer: Tokenizer) -> str:
    """Return what would make a step cheaper, by how much its operations say; "" where nothing of it can be changed."""
    if args.init is not None:
        return ""
    (height, width), stride = store.grid, tokenizer.stride
    now = operations(recipe, store.grid, store.vocab_size)
    if height * width > MANY and height % 2 == 0 and width % 2 == 0:
        by = now / operations(recipe, (height // 2, width // 2), store.vocab_size)
        size = f"--size {height * stride // 2}" + (f" {width * stride // 2}" if width != height else "")
        if args.tokenizer == FITTED:
            change = f"--patch {2 * stride}"
        elif args.tokenizer == LEARNED and stride < LARGEST_STRIDE:
            change = f"--tokenizer-set network.stride={2 * stride}"
        else:
            change = size if store.directory == args.out / "tokens" else f"tokens of images half as large ({size})"
        return f"{height * width:,} tokens an image: {change} would be about {times(by)} cheaper"
    if (depth := recipe.size.depth) > 1:
        half = replace(recipe, size=replace(recipe.size, depth=depth // 2))
        by = now / operations(half, store.grid, store.vocab_size)
        return f"--set size.depth={depth // 2} would be about {times(by)} cheaper"
    return ""


def times(factor: float) -> str:
    """Return a factor in words: "1.9 times", "4 times"."""
    return f"{factor:.1f} times" if factor < 2.95 else f"{factor:.0f} times"


def operations(recipe: PretrainConfig, grid: tuple[int, int], vocab_size: int) -> float:
    """Return the floating-point operations of a training step for one image: matrix products and attention."""
    with devices.meta():
        # the counter fails on views of parameters that require gradients, such as ARPG's mask token
        model = recipe.build(grid, vocab_size, 1 if recipe.labels else 0).requires_grad_(False)
        tokens = torch.zeros(1, grid[0] * grid[1], dtype=torch.int64)
        order = torch.arange(tokens.shape[1]).unsqueeze(0)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(tokens, torch.zeros(1, dtype=torch.int64, device="meta"), order)
    return FORWARD_AND_BACKWARD * counter.get_total_flops()
