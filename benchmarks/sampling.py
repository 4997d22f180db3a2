"""Sampling beside the official code: the same weights, label, orders, steps and guidance, in turns, in one process.

    OMP_NUM_THREADS=1 python benchmarks/sampling.py --official DIR --size S --dtype float32

DIR holds the checkouts that benchmarks/official.py names. Weights are random: time does not depend on them. Before the
clock runs, both sides decode greedily and the share of equal tokens is recorded: all of them in float32, while bfloat16
rounds differently and one other token changes all that follow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import official
import timing
import torch
from torch import Tensor, nn

from randfeat import Guidance, Sampling, models
from randfeat.inference.sampling import sample
from randfeat.models import Generator, orders, packed

SMALL = {"embed_dim": 384, "num_heads": 6}  # of 12 layers; ARPG's are 6 in each half
SIZES = {("randar", "S"): SMALL | {"depth": 12}, ("arpg", "S"): SMALL | {"depth": 6}}
SIZES |= {
    (name, size.upper()): models.SIZES[f"{name}_{size}"][1] for name in ("randar", "arpg") for size in ("l", "xl")
}
SAMPLING = {
    "randar": Sampling(88, "cosine-randar", Guidance(4.0, "linear")),
    "arpg": Sampling(64, "arccos", Guidance(4.0)),
}


def build(name: str, size: str, dtype: torch.dtype) -> Generator:
    torch.manual_seed(0)
    model = models.create(name, grid=(16, 16), vocab_size=16384, num_classes=1000, **SIZES[name, size])
    nn.init.normal_(model.head.weight, std=0.04)  # a head of zeros decodes nothing but ties
    return model.to(dtype).eval()


def inputs(name: str, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels, seeds and orders; ARPG's official code has one order for the batch."""
    seeds = torch.arange(batch)
    order = orders.random((16, 16), seeds if name == "randar" else torch.zeros_like(seeds))
    return seeds * 100 % 1000, seeds, order.contiguous()


def compare(name: str, size: str, dtype: str, batch: int, rounds: int, checkouts: Path) -> dict[str, Any]:
    model, how = build(name, size, getattr(torch, dtype)), SAMPLING[name]
    theirs, (label, seeds, order) = official.build(model, checkouts), inputs(name, batch)
    greedy = replace(how, top_k=1)
    equal = sample(model, label, seeds, greedy, order) == official.sampler(theirs, label, order, greedy)()
    network = packed.inference_copy(model)

    def again() -> Tensor:
        """Sample as a pipeline does from its second call on, after a check whether the weights have changed."""
        packed.signature(model)
        return sample(network, label, seeds, how, order)

    seconds = timing.alternate(
        {
            "official": official.sampler(theirs, label, order, how),
            "ours, first call": lambda: sample(model, label, seeds, how, order),
            "ours": again,
        },
        rounds,
    )
    return {
        "model": f"{name}-{size}",
        "dtype": dtype,
        "batch": batch,
        "greedy tokens equal": f"{int(equal.sum())} of {equal.numel()}",
        "seconds": seconds,
        "faster": timing.ratio(seconds, "official", "ours"),
        "faster, first call": timing.ratio(seconds, "official", "ours, first call"),
    }


def peak(side: str, name: str, size: str, dtype: str, batch: int, checkouts: Path) -> float:
    """Return the peak resident memory in GiB of a process that samples once, on one side."""
    words = [sys.executable, __file__, "--peak", side, "--model", name, "--size", size, "--dtype", dtype]
    words += ["--batch", str(batch), "--official", str(checkouts)]
    return float(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run_once(side: str, name: str, size: str, dtype: str, batch: int, checkouts: Path) -> None:
    model, (label, seeds, order) = build(name, size, getattr(torch, dtype)), inputs(name, batch)
    if side == "ours":
        sample(model, label, seeds, SAMPLING[name], order)
    else:
        # the official network takes the place of ours, so that weights are held once
        theirs = official.build(model, checkouts)
        del model
        official.sampler(theirs, label, order, SAMPLING[name])()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", nargs="+", default=["randar", "arpg"])
    parser.add_argument("--size", default="S", choices=("S", "L", "XL"))
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--peak", choices=("ours", "official"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    if args.peak:
        run_once(args.peak, args.model[0], args.size, args.dtype[0], args.batch[0], args.official)
        return
    for name in args.model:
        for dtype in args.dtype:
            for batch in args.batch:
                case = name, args.size, dtype, batch
                if args.memory:
                    found = {side: round(peak(side, *case, args.official), 2) for side in ("official", "ours")}
                    parameters = sum(
                        p.numel() * p.element_size() for p in build(*case[:2], getattr(torch, dtype)).parameters()
                    )
                    result = {"model": f"{name}-{args.size}", "dtype": dtype, "batch": batch, "peak GiB": found}
                    result["weights GiB"] = round(parameters / 2**30, 2)
                else:
                    result = compare(*case, args.rounds, args.official)
                result |= {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
                result["threads"] = torch.get_num_threads()
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
