"""Completion of digits with one half hidden and the label unknown: is the result still the digit?

    OMP_NUM_THREADS=1 python -m studies.editing digits_demo/models/randar digits_demo/models/arpg \\
        digits_demo/models/raster_free

The models are those of `randfeat demo --train --full`. The 640 digits are by five writers that neither the models nor
the judge have seen. The judge is a perceptron on pixels. Baselines are the mean training digit and the training digit
nearest in the visible half. A model completes in the null class; in the class that it guesses from the visible half,
without and with guidance; and, for comparison, in the true class. It draws `--samples` completions of each digit and
each half; recognition is the share of single samples that the judge classifies right. Squared error is over the hidden
pixels, in grey levels from 0 to 16. Intervals are over writers, then digits.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from randfeat.probes import Interval, bootstrap, paired
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from randfeat import Guidance, Pipeline, Sampling, load
from randfeat.data.builtin.digits import FIT, TEST, VALIDATION, Digits, load_digits, with_shifts
from randfeat.data.images import to_pil
from randfeat.inference.likelihood import guess_class
from randfeat.pipeline import edit_folder
from randfeat.utils import drawing

HALVES = {
    "top": (slice(0, 4), slice(None)),
    "bottom": (slice(4, 8), slice(None)),
    "left": (slice(None), slice(0, 4)),
    "right": (slice(None), slice(4, 8)),
}
LEVELS = 16
ORDERS = 4  # orders over which a class is guessed
BASELINES = ("mean training digit", "nearest training digit")


def hidden(half: str) -> Tensor:
    """Return the mask of a half, bool (8, 8): True where it is hidden."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[HALVES[half]] = True
    return mask


def judge_of(train: Digits) -> MLPClassifier:
    images = with_shifts(train.images)
    labels = train.labels.repeat_interleave(images.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of rounds is fixed
        network = MLPClassifier((256,), alpha=0.01, max_iter=60, random_state=0)
        return network.fit(images.flatten(0, 1).flatten(1).numpy(), labels.numpy())


def complete(model: Pipeline, test: Digits, mask: Tensor, labels: list | None, how: Sampling, samples: int) -> Tensor:
    """Return completions (digits, samples, 1, 8, 8) with the visible half unchanged."""
    tokens, known, made = model.encode(test.images), known_of(mask), []
    for draw in range(samples):
        seeds = range(draw * len(test), (draw + 1) * len(test))
        completed = model.complete(tokens, known, labels, seeds, how)
        made.append(torch.where(mask, model.decode(completed), test.images))
    return torch.stack(made, 1)


def known_of(mask: Tensor) -> Tensor:
    """Return which tokens of 2 x 2 pixels have no hidden pixel: bool (16,)."""
    return ~mask.view(4, 2, 4, 2).any(3).any(1).flatten()


def ways(model: Pipeline, test: Digits, mask: Tensor) -> dict[str, tuple[list | None, Sampling]]:
    """Return labels and sampling of each way to complete."""
    how = model.sampling
    if not model.generator.num_classes:
        return {"no label": (None, how)}
    guessed = guess_class(model.inference_generator(), model.encode(test.images), known_of(mask), ORDERS).tolist()
    return {
        "null class": (None, how),
        "class guessed": (guessed, how),
        "class guessed, guidance 2": (guessed, replace(how, guidance=Guidance(2.0))),
        "told the class": (test.labels.tolist(), how),
    }


def recognised(judge: MLPClassifier, completed: Tensor, test: Digits) -> np.ndarray:
    """Return the share of each digit's completions that the judge classifies right: (digits,)."""
    called = judge.predict(completed.flatten(0, 1).flatten(1).numpy()).reshape(len(test), -1)
    return (called == test.labels.numpy()[:, None]).mean(1)


def error(painted: Tensor, test: Digits, mask: Tensor) -> np.ndarray:
    """Return the mean squared error of (digits, 1, 8, 8) over the hidden pixels: (digits,)."""
    return ((painted - test.images)[:, 0, mask] * LEVELS).square().mean(1).numpy()


def baselines(train: Digits, test: Digits, mask: Tensor) -> dict[str, Tensor]:
    """Return completions (digits, 1, 1, 8, 8) without a model."""
    mean = train.images.mean(0).expand(len(test), -1, -1, -1)
    distances = torch.cdist(test.images[:, 0, ~mask], train.images[:, 0, ~mask])
    nearest = train.images[distances.argmin(1)]
    painted = zip(BASELINES, (mean, nearest), strict=True)
    return {name: torch.where(mask, image, test.images)[:, None] for name, image in painted}


def measure(models: dict[str, Pipeline], samples: int) -> dict[str, Any]:
    digits = load_digits()
    train, test = digits.written_by(FIT, VALIDATION), digits.written_by(TEST)
    judge, writers = judge_of(train), test.writers.numpy()
    right: dict[str, dict[str, np.ndarray]] = {}  # by model or baseline, and by half
    errors: dict[str, dict[str, np.ndarray]] = {}
    for half in HALVES:
        mask = hidden(half)
        for name, completed in baselines(train, test, mask).items():
            right.setdefault(name, {})[half] = recognised(judge, completed, test)
            errors.setdefault(name, {})[half] = error(completed[:, 0], test, mask)
        for name, model in models.items():
            for way, (labels, how) in ways(model, test, mask).items():
                completed = complete(model, test, mask, labels, how, samples)
                title = f"{name}, {way}"
                right.setdefault(title, {})[half] = recognised(judge, completed, test)
                errors.setdefault(f"{title}, one sample", {})[half] = error(completed[:, 0], test, mask)
                errors.setdefault(f"{title}, mean of {samples}", {})[half] = error(completed.mean(1), test, mask)
    on_originals = (judge.predict(test.pixels) == test.labels.numpy()).astype(float)
    overall = {name: np.mean(list(halves.values()), 0) for name, halves in right.items()}
    return {
        "digits": len(test),
        "samples": samples,
        "judge_on_whole_digits": bootstrap(on_originals, writers),
        "recognised": {name: row(halves, writers) for name, halves in right.items()},
        "differences": {
            f"{name} - {other}": paired(overall[name], overall[other], writers)
            for name in overall
            if name not in BASELINES and "told" not in name
            for other in BASELINES
        },
        "squared_error": {name: row(halves, writers) for name, halves in errors.items()},
    }


def row(halves: dict[str, np.ndarray], writers: np.ndarray) -> dict[str, Any]:
    """Return the mean over all halves with its interval, and that of each."""
    means = {half: round(float(values.mean()), 4) for half, values in halves.items()}
    return {"all": bootstrap(np.mean(list(halves.values()), 0), writers), **means}


def table(title: str, rows: dict[str, Any], scale: float) -> str:
    lines = [f"| {title} | all | {' | '.join(HALVES)} |", f"|---|---|{'---|' * len(HALVES)}"]
    for name, values in rows.items():
        each = " | ".join(f"{scale * values[half]:.1f}" for half in HALVES)
        lines.append(f"| {name} | {shown(values['all'], scale)} | {each} |")
    return "\n".join(lines)


def shown(interval: Interval, scale: float) -> str:
    return f"{scale * interval.value:.1f} [{scale * interval.low:.1f}, {scale * interval.high:.1f}]"


def picture(model: Pipeline) -> Image.Image:
    """Draw test digits with several masks: original, masked, and six completions each."""
    shown, captions = [], []
    centre, spots = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    centre[2:6, 2:6] = True
    spots[::4, 2::4] = spots[1::4, 1::4] = spots[2::4, 3::4] = True
    masks = [*(hidden(half).numpy() for half in ("bottom", "top", "left")), centre, spots]
    test = load_digits().written_by(TEST)
    rows = [int((test.labels == digit).nonzero()[7]) for digit in (5, 2, 9, 8, 6)]
    for row, mask in zip(rows, masks, strict=True):
        original = to_pil(test.images[row])
        made = model.inpaint(original, mask, samples=6, guess=ORDERS)
        shown += [original, edit_folder.hidden(np.asarray(original), mask), *made]
        captions += ["original", "masked", *[""] * 6]
    return drawing.grid(shown, 8, captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--samples", type=int, default=16, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="figures as JSON")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="only draw a sheet of completions, with the first model"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.picture:
        args.picture.write_bytes(drawing.png(picture(load(args.models[0]))))
        return
    results = measure({path.name: load(path) for path in args.models}, args.samples)
    print(f"the judge calls {shown(results['judge_on_whole_digits'], 100)} % of the whole digits by their names\n")
    print(table("recognised, %, by the half that is hidden", results["recognised"], 100))
    print("\n| difference of what is recognised, points | |\n|---|---|")
    for name, difference in results["differences"].items():
        print(f"| {name} | {shown(difference, 100)} |")
    print("\n" + table("squared error, grey levels", results["squared_error"], 1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1, default=Interval.as_dict) + "\n")


if __name__ == "__main__":
    main()
