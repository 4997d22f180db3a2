"""Classification by likelihood, successive halving and surprisal, on writers that no model and no choice has seen.

    python -m studies.likelihood.models digits_demo/models/randar --out likelihood/models
    python -m studies.likelihood orders digits_demo/models likelihood     accuracy against K; raster control
    python -m studies.likelihood halving digits_demo/models likelihood    cost of successive halving
    python -m studies.likelihood surprisal digits_demo/models likelihood  AUC of pasted patches

The first folder holds the models of `randfeat demo --train --full` (randar, arpg and randar_free), the second one is
this study's own, for tables of log p and curves.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from randfeat.probes import bootstrap, paired
from randfeat.probes.report.style import legend
from torch import Tensor

from randfeat import Pipeline, load
from randfeat.data.builtin.digits import TEST, VALIDATION, Digits, load_digits
from randfeat.inference import likelihood, successive_halving
from randfeat.inference.successive_halving import SuccessiveHalving
from randfeat.utils import rng

from .models import numbers
from .tables import ORDERS, looked_up, table

COUNTS = (1, 2, 4, 8, 16, 20)
MARGINS = (8.0, 10.0, 12.0, 15.0, math.inf)
PASTED, LEVELS = 200, 4 / 16  # digits with a patch, and its least mean difference from the original


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def with_ends(interval: object) -> str:
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"  # type: ignore[attr-defined]


def test_sets(models: Path, out: Path) -> dict[str, tuple[Pipeline, Digits, Tensor]]:
    """Return model, test images and their table, by name."""
    digits = load_digits()
    found = {}
    for name, path in {
        "RandAR": models / "randar",
        "ARPG": models / "arpg",
        "raster control": out / "models" / "raster",
        "RandAR, numbers": out / "models" / "numbers",
    }.items():
        images = numbers(digits, TEST, 1, seed=2) if "numbers" in name else digits.written_by(TEST)
        model = load(path)
        found[name] = model, images, table(model, images.images, out / f"{path.name}_test.pt")
    return found


# K ------------------------------------------------------------------------------------------------------------------


def right(found: Tensor, labels: Tensor, count: int) -> np.ndarray:
    """Return whether the likeliest class is right: (runs, n), with a run for each set of `count` orders."""
    sums = found.sum(3)
    runs = max(1, len(sums) // count)
    sets = torch.stack([sums[r * count : (r + 1) * count].mean(0) for r in range(runs)])
    return (sets.argmax(2) == labels).numpy().astype(float)


def report_orders(models: Path, out: Path) -> None:
    scores = {}
    for name, (_, images, found) in test_sets(models, out).items():
        counts = COUNTS if len(found) > 1 else (1,)
        scores[name] = {count: right(found, images.labels, count) for count in counts}
        writers = images.writers.numpy()
        cells = [with_ends(bootstrap(scores[name][count], writers)) for count in counts]
        print(f"| {name} | {' | '.join(cells)} |")
        if len(found) > 1:
            for label, one in (("one order, mean over 20", scores[name][1]), ("the first order", scores[name][1][0])):
                gain = paired(scores[name][20], one, writers, 4000)
                print(f"    K = 20 − {label}: {with_ends(gain)}, p = {gain.p:.4f}")
    writers = load_digits().written_by(TEST).writers.numpy()
    for name in ("RandAR", "ARPG"):
        for count in (1, 20):
            gain = paired(scores[name][count], scores["raster control"][1], writers, 4000)
            print(f"{name}, K = {count} − raster control: {with_ends(gain)}, p = {gain.p:.4f}")
    draw_orders(scores, out / "likelihood_orders.png")


def draw_orders(scores: dict[str, dict[int, np.ndarray]], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(7.5, 3.6), layout="constrained")
    for name, by_count in scores.items():
        values = [100 * by_count[count].mean() for count in by_count]
        if len(values) == 1:
            ax.axhline(values[0], color="grey", linestyle=":", label=name)
        else:
            ax.plot(list(by_count), values, marker="o", label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(COUNTS, [str(count) for count in COUNTS])
    ax.set(xlabel="orders K", ylabel="accuracy, %")
    legend(ax, len(scores))
    figure.savefig(file, dpi=120)


# successive halving -------------------------------------------------------------------------------------------------


def run_halving(
    model: Pipeline, images: Digits, found: Tensor, how: SuccessiveHalving, count: int = ORDERS
) -> tuple[np.ndarray, float]:
    """Return whether the winner is right, (n,), and the mean cost in passes."""
    tokens = model.encode(images.images)
    with looked_up(model, found):
        _, ranking, cost = successive_halving.rank_classes(model.generator, tokens, None, count, how)
    return (ranking[:, 0] == images.labels).numpy().astype(float), float(cost.mean())


def report_halving(models: Path, out: Path) -> None:
    tests = test_sets(models, out)
    numbers_model = tests["RandAR, numbers"][0]
    held_out = numbers(load_digits(), VALIDATION, 2, seed=1)
    table_of = table(numbers_model, held_out.images, out / "numbers_validation.pt")
    full = right(table_of, held_out.labels, ORDERS)[0].mean()
    print(f"held-out writers, 100 numbers, in full: {percent(full)} % for {100 * ORDERS} passes")
    for margin in MARGINS:
        how = SuccessiveHalving(margin=margin)
        won, cost = run_halving(numbers_model, held_out, table_of, how)
        print(f"    margin {margin:g}: {percent(won.mean())} % for {cost:.1f} passes")
    most = {classes: SuccessiveHalving().most_passes(classes, n) for classes, n in ((1000, 256), (100, 32), (10, 16))}
    print("at most", ", ".join(f"{passes:.1f} passes for {classes} classes" for classes, passes in most.items()))
    curves: dict[str, tuple[list, list]] = {}
    for name, (model, images, found) in tests.items():
        if len(found) == 1:
            continue
        writers, classes = images.writers.numpy(), found.shape[2]
        reference = right(found, images.labels, ORDERS)[0]
        won, cost = run_halving(model, images, found, SuccessiveHalving())
        loss = paired(reference, won, writers, 4000)
        print(
            f"| {name} | {classes} | {with_ends(bootstrap(reference, writers))} | {classes * ORDERS} | "
            f"{with_ends(bootstrap(won, writers))} | {cost:.1f} | {percent(cost / classes / ORDERS)} % | "
            f"{with_ends(loss)} |"
        )
        settings = [(SuccessiveHalving(margin=m), k) for k in COUNTS for m in (SuccessiveHalving().margin,)]
        points = [run_halving(model, images, found, how, k) for how, k in settings]
        curves[name] = (
            [(classes * k, 100 * right(found, images.labels, k)[0].mean()) for k in COUNTS],
            [(cost, 100 * won.mean()) for won, cost in points],
        )
    draw_halving(curves, out / "likelihood_halving.png")


def draw_halving(curves: dict[str, tuple[list, list]], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(3.4 * len(curves) + 2.2, 3.2), layout="constrained")
    for ax, (name, (whole, halved)) in zip(axes, curves.items(), strict=True):
        ax.plot(*zip(*whole, strict=True), marker="o", label="all classes, K orders")
        ax.plot(*zip(*halved, strict=True), marker="s", label="successive halving, K orders")
        ax.set_xscale("log")
        ax.set(title=name, xlabel="passes an image", ylabel="accuracy, %")
    legend(axes[-1], 2)
    figure.savefig(file, dpi=120)


# surprisal ----------------------------------------------------------------------------------------------------------


def paste(images: Tensor, side: int, stride: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a patch of side x side tokens of another digit, from any place, in any place, where it differs by at least
    `LEVELS` on average: images, and bool (n, h, w) of tokens.
    """
    made, size = images.clone(), images.shape[2] // stride
    mask = torch.zeros(len(images), size, size, dtype=torch.bool)
    for i in range(len(images)):
        for attempt in range(1000):
            drawn = rng.bits(rng.derive(seed, i, attempt), 5).abs()
            other, places = int(drawn[0] % len(images)), (drawn[1:] % (size - side + 1)).tolist()
            cut, put = ([slice(stride * p, stride * (p + side)) for p in pair] for pair in (places[:2], places[2:]))
            patch, old = images[other][:, cut[0], cut[1]], images[i][:, put[0], put[1]]
            if other != i and (patch - old).abs().mean() > LEVELS:
                made[i][:, put[0], put[1]] = patch
                mask[i, places[2] : places[2] + side, places[3] : places[3] + side] = True
                break
    return made, mask


def report_surprisal(models: Path, out: Path) -> None:
    from sklearn.metrics import roc_auc_score

    digits = load_digits().written_by(TEST)
    rows = rng.bits(torch.tensor(11), len(digits)).argsort()[:PASTED]
    images, labels = digits.images[rows], digits.labels[rows]
    for name in ("randar_free", "randar", "arpg"):
        model = load(models / name)
        for side in (1, 2):
            pasted, mask = paste(images, side, model.tokenizer.stride)
            tokens, generator = model.encode(pasted), model.inference_generator()
            maps = {f"K = {k}": likelihood.surprisal(generator, tokens, None, k) for k in (1, 4, 16)}
            maps["K = 16, smoothed"] = smoothed(maps["K = 16"], model.generator.grid)
            maps["exact, K = 1"] = likelihood.surprisal(generator, tokens, None, 1, exact=True)
            maps["exact, K = 4"] = likelihood.surprisal(generator, tokens, None, 4, exact=True)
            if generator.num_classes:
                maps["K = 16, label"] = likelihood.surprisal(generator, tokens, labels, 16)
                guessed = likelihood.class_log_prob(generator, tokens, None, 16).mean(2).argmax(1)
                maps["K = 16, label by classify"] = likelihood.surprisal(generator, tokens, guessed, 16)
                maps["K = 16, label, smoothed"] = smoothed(maps["K = 16, label"], model.generator.grid)
            for how, values in maps.items():
                score = roc_auc_score(mask.flatten().numpy(), values.flatten().numpy())
                print(f"| {name} | {side} x {side} tokens | {how} | {score:.3f} |", flush=True)


def smoothed(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return maps smoothed by weights 4, 2 beside and 1 across a corner, with edges repeated."""
    padded = F.pad(maps.unflatten(1, grid).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1).flatten(1)


REPORTS = {"orders": report_orders, "halving": report_halving, "surprisal": report_surprisal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=REPORTS)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    REPORTS[args.what](args.models, args.out)


if __name__ == "__main__":
    main()
