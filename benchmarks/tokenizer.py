"""LlamaGen's VQ-16 tokenizer beside the official code, in turns. DIR holds the checkouts of benchmarks/official.py.

OMP_NUM_THREADS=1 python benchmarks/tokenizer.py --official DIR
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import official
import timing
import torch
from torch import nn

from randfeat.tokenizers import LlamaGenVQ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    torch.manual_seed(0)
    ours = LlamaGenVQ().eval().requires_grad_(False)
    for parameter in ours.parameters():  # so that latents keep their scale through the layers
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    theirs = official.build_tokenizer(ours, args.official).requires_grad_(False)
    images = torch.rand(args.batch, 3, 256, 256)
    tokens = ours.encode(images)

    def half() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours.decode(tokens)

    variants = {
        "official encode": lambda: theirs.encode(2 * images - 1)[2][2],
        "encode": lambda: ours.encode(images),
        "official decode": lambda: theirs.decode_code(tokens, [args.batch, 8, 16, 16]),
        "decode": lambda: ours.decode(tokens),
        "decode in bfloat16": half,
    }
    equal = variants["official encode"]().view(-1) == tokens.view(-1)
    difference = (variants["official decode"]().clamp(-1, 1) - (2 * ours.decode(tokens) - 1)).abs().max()
    seconds = timing.alternate(variants, args.rounds)
    result = {
        "batch": args.batch,
        "indices equal": f"{int(equal.sum())} of {equal.numel()}",
        "largest difference of a pixel in [-1, 1]": float(difference),
        "largest difference in bfloat16, in [0, 1]": float((half() - ours.decode(tokens)).abs().max()),
        "encode faster": timing.ratio(seconds, "official encode", "encode"),
        "decode faster": timing.ratio(seconds, "official decode", "decode"),
        "decode in bfloat16 faster": timing.ratio(seconds, "official decode", "decode in bfloat16"),
        "seconds": seconds,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
