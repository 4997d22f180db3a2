"""Training beside the official code: the same weights, tokens, labels and orders, in turns, in one process.

    OMP_NUM_THREADS=1 python benchmarks/training.py --official DIR --dtype float32 bfloat16             # time of a step
    OMP_NUM_THREADS=1 python benchmarks/training.py --official DIR --dtype float32 bfloat16 --memory    # peak memory
    OMP_NUM_THREADS=1 python benchmarks/training.py --official DIR --curve 300                          # equal losses

DIR holds the checkouts that benchmarks/official.py names. A step is forward and backward pass with dropout, clipping
and AdamW on a batch of 16 x 16 tokens; bfloat16 is autocast's, with weights in float32, as in the official trainers.
The clock counts the processor time of this process. The curve is of a small model without dropout, from the same
weights: the official side has its own network and loss, and torch's optimizer, combined as in its trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import official
import sampling
import timing
import torch
from randfeat.pretrain import Batches, Objective, RuntimeConfig, TrainingConfig, train
from randfeat.pretrain.data import Batch
from randfeat.pretrain.optim import learning_rate, make_optimizer, update
from randfeat.pretrain.parallel import configured_blocks
from torch import Tensor, nn

from randfeat import models
from randfeat.models import Generator, orders

SIDES = ("official", "ours", "ours, recomputing activations")
TINY = dict(grid=(8, 8), vocab_size=256, num_classes=10, embed_dim=64, depth=2, num_heads=4, ffn_dim=256)


def build(name: str, size: str) -> Generator:
    torch.manual_seed(0)
    keywords = dict(grid=(16, 16), vocab_size=16384, num_classes=1000, dropout=0.1)
    return models.create(name, **keywords, **sampling.SIZES[name, size]).train()


def batch_of(model: Generator, images: int) -> Batch:
    seeds = torch.arange(images)
    tokens = torch.randint(model.vocab_size, (images, model.num_tokens), generator=torch.Generator().manual_seed(0))
    return Batch(tokens, seeds * 100 % model.num_classes, orders.random(model.grid, seeds).contiguous())


def official_loss(theirs: nn.Module, batch: Batch) -> Tensor:
    """Return the official forward's own loss for these orders; labels were dropped when the batch was made."""
    if hasattr(theirs, "remove_caches"):  # RandAR
        theirs.cls_embedding.dropout_prob = 0.0
        return theirs(batch.tokens, batch.labels, batch.order, targets=batch.tokens)[1]
    theirs.config.class_dropout_prob = 0.0
    names = type(theirs).forward.__globals__
    shuffle = names["batch_seq_shuffle"]
    # the code takes no orders: its shuffle is replaced here
    names["batch_seq_shuffle"] = lambda x, given=None: shuffle(x, batch.order if given is None else given)
    try:
        return theirs(batch.tokens, batch.labels.clone(), targets=batch.tokens)[1]
    finally:
        names["batch_seq_shuffle"] = shuffle


def stepper(side: str, model: Generator, batch: Batch, in_bfloat16: bool, checkouts: Path) -> Callable[[], None]:
    """Return a call that takes one training step."""
    config = TrainingConfig(warmup=0)
    if side == "official":
        theirs = official.build(model, checkouts).train()
        optimizer = make_optimizer(theirs, config)  # theirs has the same groups

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
                loss = official_loss(theirs, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step
    objective, ours = Objective(model, in_bfloat16), make_optimizer(model, config)

    def our_step() -> None:
        with configured_blocks(model, RuntimeConfig(recompute=side != "ours")):
            (objective(batch.tokens, batch.labels, batch.order)[0] / batch.tokens.numel()).backward()
        update(ours, [model], 0, config)
        ours.zero_grad(set_to_none=True)

    return our_step


def compare(name: str, size: str, dtype: str, images: int, rounds: int, checkouts: Path) -> dict:
    made = {
        side: stepper(side, model := build(name, size), batch_of(model, images), dtype == "bfloat16", checkouts)
        for side in SIDES
    }
    seconds = timing.alternate(made, rounds, time.process_time)
    return {
        "seconds": seconds,
        "faster": timing.ratio(seconds, "official", "ours"),
        "faster, recomputing activations": timing.ratio(seconds, "official", SIDES[2]),
    }


def memory(name: str, size: str, dtype: str, images: int, checkouts: Path) -> dict[str, float]:
    """Return the peak memory in GiB of a process that takes two steps, for each side."""
    words = [sys.executable, __file__, "--model", name, "--size", size, "--dtype", dtype, "--batch", str(images)]
    words += ["--official", str(checkouts), "--peak"]
    return {side: float(subprocess.run([*words, side], check=True, stdout=subprocess.PIPE).stdout) for side in SIDES}


def peak(side: str, name: str, size: str, dtype: str, images: int, checkouts: Path) -> float:
    model = build(name, size)
    step = stepper(side, model, batch_of(model, images), dtype == "bfloat16", checkouts)
    if side == "official":
        del model  # the official network has replaced ours
    for _ in range(2):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def curves(name: str, steps: int, checkouts: Path) -> dict:
    """Return the largest difference between the losses of both sides.

    Beside it stands that of the official side from itself with weights moved by one rounding, the limit of float32.
    """
    torch.manual_seed(0)
    model = models.create(name, **TINY)
    config = TrainingConfig(steps=steps, batch_size=32, warmup=steps // 10, learning_rate=1e-3)
    # learnable images: each a row of numbers that count up, with some noise
    draw = torch.Generator().manual_seed(0)
    first, noise = torch.randint(256, (512, 1), generator=draw), torch.rand(512, 64, generator=draw)
    tokens = (first + torch.arange(64)) % 256
    tokens = torch.where(noise < 0.1, torch.randint(256, (512, 64), generator=draw), tokens)
    labels = torch.arange(512) % 10
    source = Batches(tokens, labels, model, config)
    theirs, moved = (official_curve(official.build(model, checkouts), source, config, by) for by in (0.0, 2.0**-23))
    ours = [loss for _, loss in train(model, tokens, labels, None, config).train]
    return {
        "first": {"official": theirs[0], "ours": ours[0]},
        "last": {"official": theirs[-1], "ours": ours[-1]},
        **{
            f"largest difference in the first {end}": {
                "ours": largest(ours[:end], theirs[:end]),
                "official, weights moved": largest(moved[:end], theirs[:end]),
            }
            for end in (50, 100, steps)
        },
    }


def largest(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def official_curve(theirs: nn.Module, source: Batches, config: TrainingConfig, moved_by: float) -> list[float]:
    for module in theirs.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter *= 1 + moved_by
    optimizer, losses = make_optimizer(theirs, config), []
    factor = partial(learning_rate, config=replace(config, learning_rate=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in range(config.steps):
        (batch,) = source.at(step)
        loss = official_loss(theirs, batch)
        losses.append(loss.item())
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", nargs="+", default=["randar", "arpg"], choices=("randar", "arpg"))
    parser.add_argument("--size", default="S", choices=("S", "L", "XL"))
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--curve", type=int, metavar="STEPS", help="losses of a small model instead of time")
    parser.add_argument("--peak", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    if args.peak:
        print(peak(args.peak, args.model[0], args.size, args.dtype[0], args.batch, args.official))
        return
    for name in args.model:
        if args.curve:
            print(json.dumps({"model": name, **curves(name, args.curve, args.official)}), flush=True)
            continue
        for dtype in args.dtype:
            case = name, args.size, dtype, args.batch
            found = memory(*case, args.official) if args.memory else compare(*case, args.rounds, args.official)
            print(json.dumps({"case": case, "threads": torch.get_num_threads(), **found}), flush=True)


if __name__ == "__main__":
    main()
