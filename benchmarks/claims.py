"""Speed and memory claims of the papers, measured with this library on every side, in turns.

    OMP_NUM_THREADS=1 python benchmarks/claims.py --size l --dtype bfloat16

RandAR: decoding 88 steps instead of one token a step is 2.5 times faster. ARPG: 26 times the throughput of LlamaGen's
raster model. Memory: the size of the key-value cache of an image, guidance included.
"""

from __future__ import annotations

import argparse
import json
import os

import timing
import torch
from torch import nn

from randfeat import Guidance, Sampling, models
from randfeat.inference.sampling import sample
from randfeat.models import Generator, packed

SMALL = {"embed_dim": 384, "num_heads": 6}
GUIDANCE = Guidance(4.0)
SAMPLING = {
    "randar, 88 steps": Sampling(88, "cosine-randar", GUIDANCE),
    "randar, one token a step": Sampling(None, "one-by-one", GUIDANCE),
    "arpg, 64 steps": Sampling(64, "arccos", GUIDANCE),
    "arpg, 32 steps": Sampling(32, "arccos", GUIDANCE),
    "llamagen, one token a step": Sampling(None, "one-by-one", GUIDANCE),
}


def build(name: str, size: str, dtype: torch.dtype) -> Generator:
    torch.manual_seed(0)
    own = SMALL | {"depth": 6 if name == "arpg" else 12} if size == "s" else models.SIZES[f"{name}_{size}"][1]
    model = models.create(name, grid=(16, 16), vocab_size=16384, num_classes=1000, **own)
    nn.init.normal_(model.head.weight, std=0.04)
    return packed.inference_copy(model.to(dtype).eval())


def cache_bytes(model: Generator) -> int:
    """Return the bytes of the key-value cache for one image with guidance, which doubles the batch."""
    state = model.start(torch.tensor([0, model.num_classes]))
    with torch.no_grad():
        model.step(state, None, torch.zeros(2, 1, dtype=torch.int64))
    tensors = [*state.cache.keys, *state.cache.values]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="s", choices=("s", "l", "xl"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    built = {name: build(name, args.size, getattr(torch, args.dtype)) for name in ("randar", "arpg", "llamagen")}
    label, seeds = torch.arange(args.batch), torch.arange(args.batch)
    seconds = timing.alternate(
        {
            name: lambda name=name, how=how: sample(built[name.split(",")[0]], label, seeds, how)
            for name, how in SAMPLING.items()
        },
        args.rounds,
    )
    raster, sequential = "llamagen, one token a step", "randar, one token a step"
    pairs = [(sequential, "randar, 88 steps"), *((raster, name) for name in SAMPLING if name != raster)]
    result = {
        "size": args.size,
        "dtype": args.dtype,
        "batch": args.batch,
        "times faster": {f"{fast} than {slow}": timing.ratio(seconds, slow, fast) for slow, fast in pairs},
        "MiB of keys and values an image": {name: cache_bytes(model) / 2**20 for name, model in built.items()},
        "seconds": seconds,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
