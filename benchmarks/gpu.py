"""Check and time randfeat on a GPU, in less than eight minutes; what there is no time for is named.

    python -m benchmarks.gpu --golden ../shared/golden --out measured
    python -m benchmarks.gpu --peer randar=RandAR --peer arpg=ARPG --minutes 7.5
    python -m benchmarks.gpu --device cpu --size tiny --compiler eager         # the same on any machine

First the checks of `benchmarks.gpu_checks`. Then images per second and memory of sampling (RandAR in 88 steps, ARPG in
32 and 64, a picture alone and 64 at once, with guidance), of extraction, and of a training step, in bfloat16 beside the
official code; in the end sampling through the compiler beside sampling without. Sides take turns, seconds are those of
a clock that waits for the device, and operations are those of the plain side. MFU is their share of the peak on the
data sheet. Everything is in --out after each case: results.json and table.md.
"""

from __future__ import annotations

import argparse
import gc
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_checks, measure, official, report
from benchmarks.__main__ import peer
from benchmarks.cases import OURS
from benchmarks.jobs.sampling import WAYS, inputs
from benchmarks.jobs.training import batch_of, by_torch, by_us, official_loss
from benchmarks.networks import fresh, tokens_of
from randfeat import FeatureSpec, Sampling
from randfeat.inference import fixed, readout
from randfeat.inference.sampling import sample
from randfeat.models import packed

Call = Callable[[], Any]
DTYPE = "bfloat16"
ROUNDS, PRODUCT = 3, 8192
# dense bfloat16 FLOP/s of data sheets
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
COMPILERS: dict[str, dict[str, Any]] = {
    "inductor": fixed.OPTIONS,
    "cudagraphs": {"backend": "cudagraphs"},  # seconds to compile, no fused kernels
    "eager": {"backend": "eager"},
}


@dataclass(frozen=True)
class Timed:
    """A case: sides that do the same work, `ours` first."""

    job: str
    name: str
    sides: Mapping[str, Callable[[], Call]]
    units: int
    unit: str = "images"
    facts: Callable[[float, float], Mapping[str, float]] = field(default=lambda flops, seconds: {})


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m benchmarks.gpu", None, __doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--device", default="cuda", help="(cuda)")
    made.add_argument("--size", choices=("tiny", "S", "L", "XL"), default="L", help="of the networks (L)")
    made.add_argument("--batches", type=int, nargs="+", default=[1, 64], metavar="B", help="of sampling (1 64)")
    made.add_argument("--images", type=int, default=64, metavar="N", help="of extraction and of a training step (64)")
    made.add_argument("--compiler", choices=COMPILERS, default="inductor", help="of sampling (inductor)")
    made.add_argument("--golden", type=Path, metavar="DIR", help="recorded outputs of the official code")
    made.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=PATH", help="official code")
    made.add_argument("--minutes", type=float, default=7.5, metavar="M", help="after which nothing more runs (7.5)")
    made.add_argument("--out", type=Path, default=Path("measured"), metavar="DIR", help="(measured)")
    return made


# the cases ------------------------------------------------------------------------------------------------------------


def sampler(args: argparse.Namespace, name: str, batch: int, how: Sampling, compiled: bool = False) -> Call:
    network = packed.inference_copy(fresh(name, args.size, DTYPE).to(args.device))
    label, seeds, order = (part.to(args.device) for part in inputs(name, args.size, batch))
    return partial(sample, network, label, seeds, replace(how, compile=compiled), order)


def official_sampler(args: argparse.Namespace, name: str, batch: int, how: Sampling) -> Call:
    theirs = official.build(fresh(name, args.size, DTYPE), dict(args.peer)[name]).to(args.device)
    label, _, order = (part.to(args.device) for part in inputs(name, args.size, batch))
    return official.sampler(theirs, label, order, how)


def reader(args: argparse.Namespace, name: str, spec: str) -> Call:
    network = packed.inference_copy(fresh(name, args.size, DTYPE).to(args.device))
    tokens = tokens_of(network, args.images).to(args.device)
    return partial(readout.read, network, tokens, [FeatureSpec.parse(spec)])


def trainer(args: argparse.Namespace, name: str, theirs: bool = False) -> Call:
    model = fresh(name, args.size, dropout=0.1).train()
    batch = batch_of(model, args.images)
    batch = replace(batch, **{key: getattr(batch, key).to(args.device) for key in ("tokens", "labels", "order")})
    if theirs:
        network = official.build(model, dict(args.peer)[name]).train().to(args.device)
        return by_torch(network, official_loss, batch, True)
    return by_us(model.to(args.device), batch, True, recompute=False)


def cases(args: argparse.Namespace) -> Iterator[Timed]:
    """Yield the cases, those first that say most in the time that there is."""
    peers, ways = dict(args.peer), []
    for name, steps in (("randar", 88), ("arpg", 64), ("arpg", 32)):
        how = replace(WAYS[name][1], steps=steps if args.size != "tiny" else steps // 8)
        ways += [(f"{name} {args.size}, {how.steps} steps, batch {batch}", name, batch, how) for batch in args.batches]
    for label, name, batch, how in ways:
        sides = {OURS: partial(sampler, args, name, batch, how)}
        if name in peers:
            sides["official"] = partial(official_sampler, args, name, batch, how)
        yield Timed("sampling", label, sides, batch)
    for name in ("randar", "arpg"):
        for spec in ("raster/causal/token/L0.5/mean/mean", "raster/full/query/L-1/mean/mean"):
            yield Timed("extraction", f"{name} {spec}", {OURS: partial(reader, args, name, spec)}, args.images)
        sides = {OURS: partial(trainer, args, name)}
        if name in peers:
            sides["official"] = partial(trainer, args, name, theirs=True)
        yield Timed("training", f"{name} {args.size}, a step", sides, args.images, facts=utilization)
    for label, name, batch, how in ways:
        plain, compiled = (partial(sampler, args, name, batch, how, compiled) for compiled in (False, True))
        yield Timed("compiled sampling", label, {OURS: compiled, "not compiled": plain}, batch)


def utilization(flops: float, seconds: float) -> dict[str, float]:
    """Return the share of the data sheet's FLOP/s (MFU), where it is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((peak for known, peak in PEAKS.items() if known in name), None)
    return {"MFU": flops / seconds / peak} if peak else {}


# the clock ------------------------------------------------------------------------------------------------------------


def seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def limits(device: torch.device) -> dict[str, float]:
    """Return FLOP/s of a large product in bfloat16 and bytes/s of a large copy, the better of several."""
    rows, size = (PRODUCT, 1 << 30) if device.type == "cuda" else (PRODUCT // 8, 1 << 26)
    a, b = torch.randn(2, rows, rows, device=device, dtype=torch.bfloat16)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = min(seconds(lambda: torch.mm(a, b)) for _ in range(10))
    return {
        DTYPE: 2 * rows**3 / product,
        "copy": 2 * size / min(seconds(lambda: target.copy_(source)) for _ in range(10)),
    }


def timed(case: Timed, best: Mapping[str, float]) -> dict[str, Any]:
    """Return what a case costs, in the form of `measure.measure`; its seconds are the device's, too."""
    found: dict[str, dict[str, Any]] = {}
    calls = {}
    for name, make in case.sides.items():
        calls[name] = make()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        seconds(calls[name])  # compiles, and fills caches
        memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        found[name] = {"times": 1, "units": case.units, "processor": [], "flops": 0, "bytes": 0, "memory": memory}
    with measure.Counter() as counter:  # of a side that is not compiled
        [*calls.values()][-1 if case.job.startswith("compiled") else 0]()
    for number in range(ROUNDS):
        for name in [*calls][:: -1 if number % 2 else 1]:
            found[name]["processor"].append(seconds(calls[name]))
    for one in found.values():
        one |= {"seconds": one["processor"], "flops": counter.flops, "bytes": counter.bytes}
        one["of the limit"] = measure.share_of_limit(one, DTYPE, best)
    ratios = {name: measure.ratio(one, found[OURS]) for name, one in found.items() if name != OURS}
    facts = dict(case.facts(counter.flops, statistics.median(found[OURS]["processor"])))
    result = {"job": case.job, "case": case.name, "unit": case.unit, "dtype": DTYPE, "axis": None, "facts": facts}
    return result | {"variants": found, "ratios": ratios, "limits": best}


class _TimeIsUpError(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _TimeIsUpError


def main(words: list[str] | None = None) -> int:
    """Return 1 where a check or a case failed or was left out, else 0."""
    args = parser().parse_args(words)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device: give --device cpu --size tiny for a look at what this does")
    about = measure.machine() | {"device": torch.cuda.get_device_name() if device.type == "cuda" else "the processor"}
    about |= {
        "cuda": str(torch.version.cuda),
        "compiler": args.compiler,
        "times": "of a clock that waits for the device",
    }
    found: dict[str, Any] = {"machine": about, "size": args.size, "level": "gpu", "cases": [], "failures": []}
    options, fixed.OPTIONS = fixed.OPTIONS, COMPILERS[args.compiler]
    left = [case.name for case in cases(args)]
    end, former = time.monotonic() + 60 * args.minutes, signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, 60 * args.minutes)
    try:
        found["checks"], found["failures"] = gpu_checks.run(device, args.golden)
        print("\n".join((*found["checks"], *found["failures"])), flush=True)
        best = limits(device)
        for case in cases(args):
            if time.monotonic() > end:  # where the compiler took the alarm for an error of its own
                raise _TimeIsUpError
            try:
                result = timed(case, best)
                found["cases"].append(result)
                print(_line(result), flush=True)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                found["failures"].append(f"{case.job}, {case.name} failed: {' '.join(str(error).split())[:300]}")
                print(found["failures"][-1], flush=True)
            left.pop(0)
            report.write(found, args.out, args.out)
            gc.collect()
            torch.cuda.empty_cache()
    except _TimeIsUpError:
        found["failures"] += [f"there was no time for {name}" for name in left]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        fixed.OPTIONS = options
    report.write(found, args.out, args.out)
    print(f"{args.out / 'table.md'} and results.json are written")
    return 1 if found["failures"] else 0


def _line(result: Mapping[str, Any]) -> str:
    sides = (
        f"{name} {one['units'] / statistics.median(one['processor']):,.1f} {result['unit']}/s"
        for name, one in result["variants"].items()
    )
    ratios = (f"{one['ratio']:.2f} x {name}" for name, one in result["ratios"].items())
    facts = (f"{name} {value:.3f}" for name, value in result["facts"].items())
    return f"{result['job']}: {result['case']}: " + ", ".join((*sides, *ratios, *facts))


if __name__ == "__main__":
    sys.exit(main())
