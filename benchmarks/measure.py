"""The measuring function: variants in turns, their operations counted, and the machine's limits in the same run.

On a shared machine times alone mean nothing. Ratios of turns do, and of processor seconds (of this process and the
processes that it started), of which other work on the machine takes nothing away.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from .cases import OURS, Case, Make, Spent

LONG = 0.2  # seconds that a turn takes at least, for the clocks to be exact
ROWS, COPIED = 2048, 1 << 28  # of the reference product, and bytes of the reference copy
ROOT = Path(__file__).parents[1]  # in which `python -m benchmarks` is found
SAMPLED = 0.02  # seconds between looks at the memory of processes


def _formulas() -> dict[Any, Callable[..., int]]:
    """Return torch's formulas of multiplications and additions by operation, and two that it lacks for a CPU."""

    def linear(x: torch.Tensor, weight: torch.Tensor, *_: object, **__: object) -> int:
        return 2 * x.numel() * weight.shape[0]

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object) -> int:
        return flop_counter.sdpa_flop_count(q.shape, k.shape, v.shape)

    def backward(
        grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object
    ) -> int:
        return flop_counter.sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)

    own = {
        "mkldnn._linear_pointwise": linear,
        "aten._scaled_dot_product_flash_attention_for_cpu": attention,
        "aten._scaled_dot_product_flash_attention_for_cpu_backward": backward,
    }
    found = {
        getattr(getattr(torch.ops, space), name): formula
        for key, formula in own.items()
        for space, name in [key.split(".")]
        if hasattr(getattr(torch.ops, space), name)
    }
    return {**flop_counter.flop_registry, **found}


class Counter(TorchDispatchMode):
    """Operations of matrix products, convolutions and attention by torch's formulas, and bytes they read and write.

    Masked keys count; what is no tensor of torch does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0
        self._formulas = _formulas()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:  # an operation made of others, in inference mode
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        out = func(*args, **kwargs)
        self.flops += formula(*args, **kwargs, out_val=out)
        tensors = [x for x in (*args, *(out if isinstance(out, tuple) else [out])) if isinstance(x, torch.Tensor)]
        self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return out


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _turn(call: Callable[[], Any], times: int = 1) -> tuple[float, float]:
    """Return the seconds and processor seconds of a call: the mean of so many."""
    began, used, told = time.perf_counter(), processor_seconds(), []
    for _ in range(times):
        told.append(call())
    if isinstance(told[0], Spent):
        return statistics.fmean(one.seconds for one in told), statistics.fmean(one.processor for one in told)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / times, (processor_seconds() - used) / times


def measure(case: Case, rounds: int, long: float = LONG) -> dict[str, Any]:
    """Return what a case costs: seconds and processor seconds of each variant in each round, operations, and ratios.

    The first call of each is counted, not timed. A round calls all in turns, every other one backwards; what is short
    is repeated for `long` seconds.
    """
    facts = dict(case.facts())
    calls = {name: make() for name, make in case.variants.items()}
    found: dict[str, dict[str, Any]] = {}
    for name, call in calls.items():
        with Counter() as counter:
            took = _turn(call)[0]
        if took < long:  # of which most may be what a first call alone does
            took = _turn(call)[0]
        times = max(1, round(long / max(took, 1e-6)))
        found[name] = {"times": times, "flops": counter.flops, "bytes": counter.bytes, "seconds": [], "processor": []}
    for number in range(rounds):
        for name in [*calls][:: -1 if number % 2 else 1]:
            seconds, processor = _turn(calls[name], found[name]["times"])
            found[name]["seconds"].append(seconds)
            found[name]["processor"].append(processor)
    for name, one in found.items():
        one["units"] = case.peer_units.get(name, case.units)
    result = {
        "case": case.name,
        "unit": case.unit,
        "dtype": case.dtype,
        "axis": case.axis and case.axis._asdict(),
        "facts": facts,
    }
    ratios = {name: ratio(one, found[OURS]) for name, one in found.items() if name != OURS}
    return result | {"variants": found, "ratios": ratios}


def ratio(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times faster a unit of work is: by the medians, and the lowest and highest of the rounds."""
    scale = fast["units"] / slow["units"]
    of_rounds = [scale * a / b for a, b in zip(slow["processor"], fast["processor"], strict=True)]
    medians = scale * statistics.median(slow["processor"]) / statistics.median(fast["processor"])
    return {"ratio": medians, "lowest": min(of_rounds), "highest": max(of_rounds)}


def apart(make: Make) -> Callable[[], Spent]:
    """Return a call that runs in a process of its own, for what changes a whole process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_take_turns, args=(make, torch.get_num_threads(), there), daemon=True).start()
    there.close()

    def call() -> Spent:
        here.send(None)
        return Spent(*here.recv())

    return call


def _take_turns(make: Make, threads: int, turns: Connection) -> None:
    torch.set_num_threads(threads)
    call = make()
    while True:
        try:
            turns.recv()
        except EOFError:  # the other side has forgotten the call
            return
        turns.send(tuple(_turn(call)))


def limits(dtypes: Sequence[str], rounds: int = 3) -> dict[str, float]:
    """Return the machine's limits: FLOP/s of a large product by type, the better of torch's and oneDNN's with a
    prepacked weight, and bytes/s that a large copy reads and writes.
    """
    from randfeat.models import packed

    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = {"copy": 2 * COPIED / min(_turn(lambda: target.copy_(source))[1] for _ in range(rounds))}
    for dtype in dtypes:
        a, b = torch.randn(2, ROWS, ROWS).to(getattr(torch, dtype))
        product = packed.inference_copy(nn.ModuleDict({"product": nn.Linear(ROWS, ROWS, bias=False, dtype=a.dtype)}))
        calls = functools.partial(torch.mm, a, b), functools.partial(product.product, a)
        best[dtype] = 2 * ROWS**3 / min(_turn(call)[1] for call in calls for _ in range(rounds + 1))
    return best


def share_of_limit(one: Mapping[str, Any], dtype: str, best: Mapping[str, float]) -> float | None:
    """Return the share of the speed at which its operations or its bytes, what takes longer, could be done."""
    if not one["flops"]:
        return None
    return max(one["flops"] / best[dtype], one["bytes"] / best["copy"]) / statistics.median(one["processor"])


def machine() -> dict[str, str]:
    """Return the processor and the versions that figures hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = info.get("flags", "").split()
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile") if name in flags]
    name = info.get("model name") or platform.processor() or platform.machine()
    family = f"family {info['cpu family']}, model {info['model']}, " if "cpu family" in info else ""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "processor": f"{name} ({family}{', '.join(extensions)})",
        "threads": str(torch.get_num_threads()),
    } | versions


# memory ---------------------------------------------------------------------------------------------------------------


def peak_memory(command: Sequence[str]) -> float | None:
    """Return the peak memory in MiB of a command that ends with a line of JSON, `base` and `peak`, without its base.

    It is the process's own peak, or the largest sum of the proportional set sizes of it and its children, if that is
    more. None where the system does not say.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        while running.poll() is None:
            most = max(most, sum(_share(pid) for pid in _family(running.pid)))
            time.sleep(SAMPLED)
        assert running.stdout is not None
        printed = running.stdout.read()
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {running.returncode}")
    told = json.loads(printed.splitlines()[-1])
    return (max(most, told["peak"]) - told["base"]) / 1024


def print_memory(case: Case, variant: str) -> None:
    """Run a variant twice in this process, and print its memory in KiB before it was built, and the peak."""
    base = _status("VmRSS")
    call = case.variants[variant]()
    for _ in range(2):
        call()
    print(json.dumps({"base": base, "peak": _status("VmHWM")}))


def _status(name: str) -> int:
    """Return a number of /proc/self/status by its name, in KiB of what is memory."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _family(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(other for child in children for other in _family(int(child)))]


def _share(pid: int) -> int:
    """Return the proportional set size of a process in KiB; 0 if it has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def python(*words: str) -> list[str]:
    return [sys.executable, *words]
