"""Linear probes beside the usual alternatives, in turns: scikit-learn's solver, and heads trained one by one.

Seconds are processor time: on one thread, the time it takes on an idle machine.

OMP_NUM_THREADS=1 python benchmarks/probes_linear.py solver --spectrum 1 --rounds 3
OMP_NUM_THREADS=1 python benchmarks/probes_linear.py sweep --classes 100 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from randfeat.probes import HeadRecipe, LinearProbe, train_heads
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def features(n: int, classes: int, spectrum: float, d: int = 768) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, d) of principal variances i^-spectrum, and labels that a probe recognises in part."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    x = rng.standard_normal((n, d), np.float32) + 0.1 * rng.standard_normal((classes, d), np.float32)[labels]
    scale = np.arange(1, d + 1) ** (-spectrum / 2)
    basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return x @ ((scale / np.sqrt((scale**2).mean()))[:, None] * basis).astype(np.float32), labels


def loss(x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """Return the loss that both minimize at C = 1, in float64."""
    logits = x.astype(np.float64) @ weight + bias
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean() + (weight**2).sum() / (2 * len(y)))


def solver(args: argparse.Namespace) -> dict[str, Any]:
    """Compare both solvers at each tolerance; losses are relative to the lowest of all."""
    x, y = features(args.images, args.classes, args.spectrum)
    theirs = {tol: LogisticRegression(tol=tol, max_iter=5000) for tol in args.tols}
    ours = {tol: LinearProbe(tol=tol) for tol in args.tols}
    variants = {f"scikit-learn {tol:g}": partial(model.fit, x, y) for tol, model in theirs.items()}
    variants |= {f"ours {tol:g}": partial(model.fit, x, y) for tol, model in ours.items()}
    seconds = timing.alternate(variants, args.rounds, time.process_time)
    losses = {f"scikit-learn {tol:g}": loss(x, y, model.coef_.T, model.intercept_) for tol, model in theirs.items()}
    for tol, model in ours.items():
        losses[f"ours {tol:g}"] = loss(x - model.centre_, y, model.weight_, model.bias_)
    best = min(losses.values())
    ratios = {
        f"ours at {b:g} faster than scikit-learn at {a:g}": timing.ratio(seconds, f"scikit-learn {a:g}", f"ours {b:g}")
        for a in args.tols
        for b in args.tols
        if b <= a
    }
    return {
        "spectrum": args.spectrum,
        "loss above the lowest, relative": {name: value / best - 1 for name, value in losses.items()},
        "iterations": {tol: [int(theirs[tol].n_iter_[0]), ours[tol].n_iter_] for tol in args.tols},
        "ratios": ratios,
        "seconds": seconds,
    }


def sweep(args: argparse.Namespace) -> dict[str, Any]:
    x, y = features(args.images, args.classes, 1.0)
    rates = tuple(np.geomspace(1e-3, 1, 16))
    recipe = HeadRecipe("sgd", rates, (0.0, 1e-4, 1e-3), batch=args.batch, epochs=1, batch_norm=True)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", x)

        def read() -> np.ndarray:
            return np.load(Path(folder) / "x.npy", mmap_mode="r")

        def separate() -> None:
            for rate, decay in recipe.pairs:
                train_heads({"x": read()}, y, replace(recipe, learning_rates=(rate,), weight_decays=(decay,)))

        def plain() -> None:
            for rate, decay in recipe.pairs:
                _plain(np.load(Path(folder) / "x.npy"), y, rate, decay, args.batch)

        variants = {
            "together": lambda: train_heads({"x": read()}, y, recipe),
            "one by one": separate,
            "one by one in plain torch": plain,
        }
        seconds = timing.alternate(variants, args.rounds, time.process_time)
    return {
        "classes": args.classes,
        "batch": args.batch,
        "ratios": {
            "time of that one by one": timing.ratio(seconds, "together", "one by one"),
            "time of that in plain torch": timing.ratio(seconds, "together", "one by one in plain torch"),
        },
        "seconds": seconds,
    }


def _plain(x: np.ndarray, y: np.ndarray, rate: float, decay: float, batch: int) -> nn.Module:
    """Return one head trained in plain torch: a DataLoader, modules, autograd and an optimizer."""
    model = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False), nn.Linear(x.shape[1], int(y.max()) + 1))
    optimizer = torch.optim.SGD(model.parameters(), rate * batch / 256, momentum=0.9, weight_decay=decay)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch, shuffle=True, drop_last=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(loader))
    for features, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features), labels).backward()
        optimizer.step()
        schedule.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["solver", "sweep"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--spectrum", type=float, default=1.0)
    parser.add_argument("--tols", type=float, nargs="+", default=[1e-4, 1e-5], help="scikit-learn's default and ours")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    result = solver(args) if args.what == "solver" else sweep(args)
    print(timing.table(result["ratios"]))
    print(json.dumps({"what": args.what, "images": args.images, **result, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
