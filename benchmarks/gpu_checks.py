"""Checks that a GPU computes what a CPU does: each returns a sentence, or raises an AssertionError."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from randfeat.pretrain import Objective, RuntimeConfig, TrainingConfig, train
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmarks.networks import fresh, tokens_of
from randfeat import Guidance, Sampling
from randfeat.inference.sampling import decode, sample
from randfeat.inference.step import Step, draw
from randfeat.models import Generator, orders
from randfeat.utils import rng

TESTS = Path(__file__).parents[1] / "tests"
GUIDED = Guidance(3.0, "linear")
LEARNED = TrainingConfig(steps=6, batch_size=8, warmup=2, learning_rate=1e-3)


def goldens(device: torch.device, folder: Path) -> str:
    """Compare with the recorded outputs of the official samplers: tokens equal, logits within their tolerance."""
    sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "models")]
    golden, cases = importlib.import_module("golden"), importlib.import_module("test_golden")
    count = 0
    for entry in json.loads((folder / "INDEX.json").read_text(encoding="utf-8")):
        path = folder / entry["case"]
        case = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        if case["kind"] != "generate" or case["family"] not in ("randar", "arpg"):
            continue
        tensors = load_file(path.with_name(f"{path.name}.safetensors"))
        model = golden.build(case, tensors).to(device)
        order, label = golden.recorded_order(model, tensors), tensors["in.cond"].to(device)
        how = cases.official_sampling(case)
        taken = list(decode(model, label, torch.zeros_like(label), how, order.to(device)))
        golden.check_generated([_on_cpu(step) for step in taken], order, case, tensors)
        count += 1
    assert count, f"{folder} has no recorded samples of RandAR or ARPG"
    return f"{count} recorded samples are the same"


def _on_cpu(step: Step) -> Step:
    return Step(*(getattr(step, field.name).cpu() for field in fields(step)))


def draws(device: torch.device) -> str:
    """Compare orders and noise bit for bit, and tokens that are drawn of the same logits."""
    seeds = torch.arange(1000) * 7919 - 5
    for made in (partial(orders.random, (16, 16)), partial(rng.uniform, count=256), partial(rng.bits, count=256)):
        assert torch.equal(made(seeds), made(seeds.to(device)).cpu()), f"{made.func.__name__} differs"
    logits = torch.randn(1000, 4, 1024, generator=torch.Generator().manual_seed(0))
    noise = rng.uniform(seeds, 4)
    equal = (draw(logits, noise) == draw(logits.to(device), noise.to(device)).cpu()).float().mean()
    assert equal > 0.99, f"of the same logits and noise {equal:.2%} of the tokens are equal"
    return f"orders and noise are equal; of the tokens drawn of one noise {equal:.2%}"


def samples(device: torch.device) -> str:
    """Compare tokens of tiny models in float32, plain and through the compiler, with those of a CPU."""
    found = []
    for name in ("randar", "arpg"):
        model, how = fresh(name, "tiny"), Sampling(16, "linear", GUIDED)
        label, seeds = torch.arange(4), torch.arange(4)
        expected = sample(model, label, seeds, how)
        model = model.to(device)
        for kind, ours in (("plain", how), ("compiled", replace(how, compile=True))):
            equal = (sample(model, label, seeds, ours).cpu() == expected).float().mean().item()
            # a near-tie changes what follows in its image
            assert equal > 0.7, f"{name}, {kind}: {equal:.1%} of the tokens are those of a CPU"
            found.append(f"{name} {kind} {equal:.1%}")
    return "tokens that are those of a CPU: " + ", ".join(found)


class _StoppedError(Exception):
    pass


def resume(device: torch.device) -> str:
    """Compare a training that was stopped and went on with one that was not, bit for bit."""

    def run(folder: Path, stop_at: int | None = None) -> dict[str, Tensor]:
        def tick(step: Any) -> None:
            if step.step == stop_at:
                raise _StoppedError

        model = fresh("arpg", "tiny", dropout=0.1).to(device)
        labels = torch.arange(32) % model.num_classes
        runtime = RuntimeConfig(save_every=2)
        train(model, tokens_of(model, 32), labels, None, LEARNED, runtime, directory=folder, on_step=tick)
        return model.state_dict()

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            stopped, whole = Path(scratch, "stopped"), Path(scratch, "whole")
            with suppress(_StoppedError):
                run(stopped, 4)
            found, expected = run(stopped), run(whole)
    finally:
        torch.use_deterministic_algorithms(False)
    largest = max((found[name] - value).abs().max().item() for name, value in expected.items())
    assert largest <= (0 if device.type == "cpu" else 1e-5), f"weights differ by {largest}"
    return f"weights after a resume differ by {largest:g}"


def ddp(device: torch.device) -> str:
    """Compare the loss and gradients of a model in one process with those through DistributedDataParallel."""
    model = fresh("randar", "tiny").to(device)
    tokens = tokens_of(model, 4).to(device)
    order = orders.random(model.grid, torch.arange(4)).to(device)
    plain = _gradients(model, Objective(model), tokens, order)
    with tempfile.NamedTemporaryFile() as store:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{store.name}", rank=0, world_size=1
        )
        try:
            wrapped = DistributedDataParallel(Objective(model))
            parallel = _gradients(model, wrapped, tokens, order)
        finally:
            dist.destroy_process_group()
        Path(store.name).touch()  # the group may have removed it
    for ours, theirs in zip(plain, parallel, strict=True):
        torch.testing.assert_close(ours, theirs)
    return "loss and gradients through DDP are those without"


def _gradients(model: Generator, objective: Callable[..., Any], tokens: Tensor, order: Tensor) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    loss = objective(tokens, torch.zeros(len(tokens), dtype=torch.long, device=tokens.device), order)[0]
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def run(device: torch.device, folder: Path | None) -> tuple[list[str], list[str]]:
    """Return what the checks found, and those that failed or could not be made; the others go on."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic matrix products
    checks: dict[str, Callable[[], str]] = {
        name: partial(check, device)
        for name, check in (("draws", draws), ("samples", samples), ("resume", resume), ("ddp", ddp))
    }
    found, failures = [], []
    if folder is None:
        failures.append("goldens were not checked: give the folder of recorded outputs as --golden")
    else:
        checks = {"goldens": partial(goldens, device, folder), **checks}
    for name, check in checks.items():
        try:
            found.append(f"{name}: {check()}")
        except (AssertionError, ImportError, OSError, RuntimeError, ValueError) as error:
            failures.append(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return found, failures
