"""Feature extraction beside the official code and a timm ViT: same weights, tokens and orders, in turns, one process.

    OMP_NUM_THREADS=1 python benchmarks/reading.py --official DIR --size S --dtype float32 bfloat16
    python benchmarks/reading.py --device cuda --compile   # images/s of RandAR-L and ARPG-L in bfloat16

DIR holds the checkouts that benchmarks/official.py names. Weights are random: time does not depend on them. Before the
clock runs, RandAR's features are compared with the outputs of the official blocks. On a CPU the clock counts the
processor time of this process, since a shared machine does other things meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import sampling
import timing
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from randfeat import FeatureSpec, models
from randfeat.inference import readout
from randfeat.models import Generator, orders, packed
from randfeat.tokenizers import LlamaGenVQ

LARGE = 4096  # rows and columns of the reference matrix product


def extraction(network: Generator, tokens: Tensor, text: str) -> Callable[[], Tensor]:
    """Return the call that extracts features by a spec."""
    spec = FeatureSpec.parse(text)
    return lambda: readout.read(network, tokens, [spec])[0]


def matrix_flops(model: Generator, depth: int) -> int:
    """Return the operations of the matrix products of one causal pass over RandAR's token stream.

    Masked keys, and rows of the deepest block that are not read out, do not count.
    """
    inputs, wanted, width = 2 * model.num_tokens + 1, model.num_tokens, model.embed_dim
    keys_values, the_rest = 4 * width**2, 4 * width**2 + 6 * width * model.ffn_dim  # for one input
    seen, seen_by_wanted = inputs * (inputs + 1) // 2, sum(range(3, inputs + 1, 2))  # keys, each used twice
    of_a_block = inputs * (keys_values + the_rest) + seen * 4 * width
    return (depth - 1) * of_a_block + inputs * keys_values + wanted * the_rest + seen_by_wanted * 4 * width


def large_products(dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Return torch's matrix product and the one with a prepacked weight."""
    a, b = torch.randn(2, LARGE, LARGE).to(dtype)
    prepacked = packed.inference_copy(nn.ModuleDict({"product": nn.Linear(LARGE, LARGE, bias=False, dtype=dtype)}))
    return {"torch.mm": lambda: torch.mm(a, b), "packed product": lambda: prepacked.product(a)}


def official_states(theirs: nn.Module, tokens: Tensor, order: Tensor, layers: list[int]) -> list[Tensor]:
    """Return the outputs of RandAR's official blocks for the tokens, in raster space."""
    seen: dict[int, Tensor] = {}
    for layer in layers:
        theirs.layers[layer - 1].register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
    official_forward(theirs, tokens, order)()
    for layer in layers:
        theirs.layers[layer - 1]._forward_hooks.clear()
    return [orders.scatter(seen[layer][:, 2::2], order) for layer in layers]


def official_forward(theirs: nn.Module, tokens: Tensor, order: Tensor) -> Callable[[], Any]:
    null = torch.full((len(tokens),), 1000)
    if hasattr(theirs, "remove_caches"):  # RandAR
        return torch.no_grad()(lambda: theirs(tokens, null, order, targets=tokens))
    return torch.no_grad()(lambda: theirs(tokens, null.clone()))  # it draws an order of its own


def compare_randar(size: str, dtype: torch.dtype, batch: int, rounds: int, checkouts: Path) -> dict[str, Any]:
    model = sampling.build("randar", size, dtype)
    theirs = official.build(model, checkouts)
    theirs.grad_checkpointing = False  # which only costs time here
    tokens = torch.randint(model.vocab_size, (batch, 256), generator=torch.Generator().manual_seed(0))
    spec = FeatureSpec("random")
    order = readout.pass_order(spec.passes[0], model, tokens).contiguous()
    half, network = model.depth // 2, packed.inference_copy(model)

    def ours(orders_: str, depth: int, pool: str) -> Callable[[], Tensor]:
        return extraction(network, tokens, f"{orders_}/causal/token/L{depth}/{pool}/mean")

    expected = official_states(theirs, tokens, order, [half, model.depth])
    differences = [
        float((ours("random", depth, "none")().flatten(2).transpose(1, 2) - state).abs().max() / state.abs().max())
        for depth, state in zip((half, model.depth), expected, strict=True)
    ]
    products = large_products(dtype)
    seconds = timing.alternate(
        {
            "official": official_forward(theirs, tokens, order),
            "full depth": ours("random", model.depth, "none"),
            "half depth": ours("random", half, "none"),
            "one order": ours("random", half, "mean"),
            "four orders": ours("random*4", half, "mean"),
            "bidirectional": ours("bidirectional", half, "mean"),
            # a pipeline does it once per call, whatever the number of images
            "check whether weights have changed": lambda: packed.signature(network),
            **products,
        },
        rounds,
        time.process_time,
    )
    best = min(products, key=lambda name: statistics.median(seconds[name]))
    shares = {
        name: timing.ratio(seconds, best, name)["ratio"] * batch * matrix_flops(model, depth) / (2 * LARGE**3)
        for name, depth in (("full depth", model.depth), ("half depth", half))
    }
    return {
        "largest difference from the official states, of their largest value": differences,
        "full depth, faster than official": timing.ratio(seconds, "official", "full depth"),
        "half depth, faster than official": timing.ratio(seconds, "official", "half depth"),
        "four orders cost, in single ones": timing.ratio(seconds, "four orders", "one order"),
        "both directions cost, in single ones": timing.ratio(seconds, "bidirectional", "one order"),
        "GFLOP/s": {name: 2 * LARGE**3 / statistics.median(seconds[name]) / 1e9 for name in products},
        "share of the speed of the better product": shares,
        "seconds": seconds,
    }


def compare_arpg(size: str, dtype: torch.dtype, batch: int, rounds: int, checkouts: Path) -> dict[str, Any]:
    model = sampling.build("arpg", size, dtype)
    theirs = official.build(model, checkouts)
    tokens = torch.randint(model.vocab_size, (batch, 256), generator=torch.Generator().manual_seed(0))
    vit = VisionTransformer(
        img_size=256,
        patch_size=16,
        embed_dim=model.embed_dim,
        depth=2 * model.depth,
        num_heads=model.num_heads,
        num_classes=0,
    )
    vit, pixels = vit.to(dtype).eval(), torch.randn(batch, 3, 256, 256).to(dtype)
    seconds = timing.alternate(
        {
            "official": official_forward(theirs, tokens, orders.raster(model.grid)),
            "timm ViT": torch.no_grad()(lambda: vit.forward_features(pixels)),
            "token stream": extraction(
                packed.inference_copy(model), tokens, f"random/causal/token/L{model.depth}/none/mean"
            ),
        },
        rounds,
        time.process_time,
    )
    return {
        "faster than official": timing.ratio(seconds, "official", "token stream"),
        "faster than a timm ViT": timing.ratio(seconds, "timm ViT", "token stream"),
        "seconds": seconds,
    }


def rate(name: str, spec: str, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """Return images/s on a GPU, in bfloat16, with tokens and features in main memory."""
    model = models.create(name, grid=(16, 16), vocab_size=16384, num_classes=1000).to("cuda", torch.bfloat16).eval()
    network = packed.compiled_copy(model) if compiled else packed.inference_copy(model)
    tokens = torch.randint(model.vocab_size, (4 * batch, 256))
    # a spec counts its passes in the batch
    size, specs = batch * len(FeatureSpec.parse(spec).passes), [FeatureSpec.parse(spec)]
    seconds = timing.alternate({name: lambda: readout.read(network, tokens, specs, size)}, rounds)[name]
    return {"spec": spec, "compiled": compiled, "images/s": per_second(len(tokens), seconds)}


def tokenizer_rate(device: str, batch: int, rounds: int) -> dict[str, float]:
    tokenizer, pixels = LlamaGenVQ().eval().requires_grad_(False).to(device), torch.rand(batch, 3, 256, 256)
    call = torch.no_grad()(lambda: tokenizer.encode(pixels.to(device)).cpu())
    clock = time.process_time if device == "cpu" else time.perf_counter
    return per_second(batch, timing.alternate({"tokenizer": call}, rounds, clock)["tokenizer"])


def per_second(images: int, seconds: list[float]) -> dict[str, float]:
    return {
        "median": images / statistics.median(seconds),
        "lowest": images / max(seconds),
        "highest": images / min(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, metavar="DIR", help="needed on a CPU")
    parser.add_argument("--model", nargs="+", default=["randar", "arpg"], choices=("randar", "arpg"))
    parser.add_argument("--size", default="S", choices=("S", "L", "XL"))
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, help="images; by default 4, on a GPU 256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="through torch's compiler, on a GPU")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if args.device == "cuda":
        for name, spec in (
            ("randar_l", "bidirectional/causal/token/L12/mean/mean"),
            ("arpg_l", "raster/causal/token/L12/mean/mean"),
        ):
            found = rate(name, spec, args.batch or 256, args.rounds, args.compile)
            print(json.dumps({"model": name, **found, "device": torch.cuda.get_device_name(), **machine}), flush=True)
        print(json.dumps({"tokenizer, images/s": tokenizer_rate("cuda", 64, args.rounds)}))
        return
    if args.official is None:
        parser.error("--official is needed to compare with the official code")
    batch = args.batch or 4
    for name in args.model:
        for dtype in args.dtype:
            compare = compare_randar if name == "randar" else compare_arpg
            found = compare(args.size, getattr(torch, dtype), batch, args.rounds, args.official)
            case = {"model": f"{name}-{args.size}", "dtype": dtype, "batch": batch}
            processor = platform.processor() or platform.machine()
            print(json.dumps({**case, **found, **machine, "processor": processor}), flush=True)
    print(json.dumps({"tokenizer, images/s": tokenizer_rate("cpu", 1, args.rounds)}))


if __name__ == "__main__":
    main()
