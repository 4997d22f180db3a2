"""Training of LlamaGen's VQ tokenizer beside the official code: the same weights and images, in turns.

    OMP_NUM_THREADS=1 python benchmarks/tokenizer_training.py --official DIR --width 128 64

DIR holds the checkout of LlamaGen that benchmarks/official.py names. A step is forward pass, squared error, codebook
and commitment loss, backward pass, clipping and Adam in float32, without perceptual loss and GAN: ours that of
`pretrain.vq`, the official one that of its trainer, which also computes the entropy loss of weight 0 and the use of the
codebook. First both compute the loss and all gradients of the same weights, and how far they differ is printed. Each
side has a process, since ours keeps freed memory (`reused_memory`); a third one runs the official code with that, too.
Clocks count the processor time of a process. Encoding and decoding alone: benchmarks/tokenizer.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import official
import timing
import torch
import torch.nn.functional as F
from randfeat.pretrain.optim import adamw, parameter_groups, update
from randfeat.pretrain.vq import TokenizerConfig, read_tokenizer_recipe
from randfeat.pretrain.vq.config import LossConfig
from randfeat.pretrain.vq.objective import TokenizerObjective, Trainee
from torch import Tensor, nn

from randfeat.tokenizers import LlamaGenVQ
from randfeat.utils.allocation import reused_memory

SIDES = ("official", "official, memory reused", "ours")


def recipe_of(width: int) -> TokenizerConfig:
    """Return the recipe of the published tokenizer, with another width and squared error alone."""
    recipe = read_tokenizer_recipe("tokenizer_vq16")
    return replace(recipe, network=replace(recipe.network, width=width), loss=LossConfig(l2=1.0))


def build(recipe: TokenizerConfig) -> LlamaGenVQ:
    """Return a tokenizer with random weights that keep the scale of latents through the layers."""
    torch.manual_seed(0)
    tokenizer = recipe.build(3, None)
    for parameter in tokenizer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return tokenizer


def official_loss(theirs: nn.Module, images: Tensor) -> Tensor:
    """Return the loss of the official trainer, whose images are in [-1, 1]."""
    images = 2 * images - 1
    made, (codebook, commitment, entropy, _) = theirs(images)
    return F.mse_loss(images, made) + codebook + commitment + entropy


class Sides:
    """Both tokenizers with the same weights, each in training."""

    def __init__(self, width: int, checkouts: Path) -> None:
        self.recipe = recipe_of(width)
        ours = build(self.recipe)
        self.theirs = official.build_tokenizer(ours, checkouts).train()
        self.trainee = Trainee(ours, self.recipe).train()
        self.objective = TokenizerObjective(self.trainee, self.recipe)

    def our_loss(self, images: Tensor) -> Tensor:
        moves = torch.zeros(len(images), 2, dtype=torch.int64)
        return self.objective(images, moves, 0)[0] / len(images)

    def differences(self, images: Tensor) -> dict[str, float | str]:
        """Return how far both sides differ in loss, tokens and gradients, these relative to each one's largest."""
        loss, expected = self.our_loss(images), official_loss(self.theirs, images)
        loss.backward()
        expected.backward()
        found = dict(self.trainee.tokenizer.named_parameters())
        apart = 0.0
        for name, parameter in self.theirs.named_parameters():
            ours, theirs = found[name].grad, parameter.grad
            assert ours is not None
            assert theirs is not None
            # a key's bias moves all logits of a row alike, so that its gradient is rounding alone
            if not name.endswith(".k.bias"):
                apart = max(apart, float((ours - theirs).abs().max() / theirs.abs().max()))
        with torch.no_grad():
            tokens = self.theirs.encode(2 * images - 1)[2][2]
        equal = self.trainee.tokenizer.encode(images).flatten() == tokens
        return {
            "loss": loss.item(),
            "largest difference of the losses": abs(loss.item() - expected.item()),
            "of a gradient, relative": apart,
            "tokens equal": f"{int(equal.sum())} of {equal.numel()}",
        }

    def official_step(self, images: Tensor) -> Callable[[], None]:
        config = self.recipe.training
        optimizer = torch.optim.Adam(self.theirs.parameters(), lr=config.learning_rate, betas=config.betas)

        def step() -> None:
            optimizer.zero_grad()
            official_loss(self.theirs, images).backward()
            nn.utils.clip_grad_norm_(self.theirs.parameters(), config.clip)
            optimizer.step()

        return step

    def our_step(self, images: Tensor) -> Callable[[], None]:
        config, tokenizer, care = self.recipe.training, self.trainee.tokenizer, self.trainee.care
        assert care is not None
        optimizer = adamw(parameter_groups(tokenizer, config), config)
        number = 0

        def step() -> None:
            nonlocal number
            optimizer.zero_grad(set_to_none=True)
            self.our_loss(images).backward()
            update(optimizer, [tokenizer], number, config)
            number += 1
            care.finish_step(number, optimizer, None)

        return step


def work(side: str, width: int, images: Tensor, checkouts: Path, threads: int, turns: Connection) -> None:
    """Take a step for each message that is received, and send its seconds."""
    torch.set_num_threads(threads)
    sides = Sides(width, checkouts)
    step = sides.our_step(images) if side == "ours" else sides.official_step(images)
    with nullcontext() if side == "official" else reused_memory(images.device):
        while turns.recv():
            began = time.process_time()
            step()
            turns.send(time.process_time() - began)


def compare(width: int, size: int, batch: int, rounds: int, checkouts: Path) -> dict:
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    apart = Sides(width, checkouts).differences(images)
    context, workers = multiprocessing.get_context("spawn"), {}
    for side in SIDES:
        turns, theirs = context.Pipe()
        process = context.Process(target=work, args=(side, width, images, checkouts, torch.get_num_threads(), theirs))
        process.start()
        workers[side] = turns, process
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, (turns, _) in workers.items():
            turns.send(True)
            took = turns.recv()
            if number:  # the first round is not measured
                seconds[side].append(took)
    for turns, process in workers.values():
        turns.send(False)
        process.join()
    faster = {f"than {side}": timing.ratio(seconds, side, "ours") for side in SIDES if side != "ours"}
    return {**apart, "seconds": seconds, "ours faster": faster}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--width", nargs="+", type=int, default=[128, 64], help="of the network; multiples of 32")
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    for width in args.width:
        found = compare(width, args.size, args.batch, args.rounds, args.official)
        case = {"width": width, "size": args.size, "batch": args.batch, "threads": torch.get_num_threads()}
        print(json.dumps({**case, **found}), flush=True)


if __name__ == "__main__":
    main()
