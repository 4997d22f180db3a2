"""Samples by class, judged: recognised, how much of the test images they cover, and whether they are copies of train.

Guidance, temperature and sweeps are chosen against the validation part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from randfeat.probes.tasks.generation import frechet_distance
from torch import Tensor

from randfeat import Guidance, Pipeline, Sampling
from randfeat.commands.demo.generation import coverage, draw_by_class, score_samples
from randfeat.data.images import preview
from randfeat.utils import atomic, drawing
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels

from .images import Fashion
from .judge import Judge
from .units import Place, keep, kept, key_of

PART = "samples"
GUIDANCES, TEMPERATURES, SWEEPS = (1.0, 1.5, 2.0, 3.0), (0.8, 0.9), (0, 1)
EACH, EACH_TRIED = 1000, 100  # samples of a class: to score, and for each setting that is tried
SHOWN = 8  # of a class in the sheet
SEED, TRIED_SEED = 0, 1_000_000


@dataclass(frozen=True)
class PixelJudge:
    """The judge as a classifier of pixels (n, H * W) from 0 to 1."""

    judge: Judge

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return classes, int64 (n,)."""
        side = round(pixels.shape[1] ** 0.5)
        return self.judge.classes(torch.from_numpy(pixels).float().view(-1, 1, side, side))


def run(name: str, model: Pipeline, judge: Judge, data: Fashion, place: Place) -> None:
    """Score samples of a generator with labels, and keep a sheet of them beside the record."""
    path, weights = place.record(PART, name), fingerprint(model.generator, model.tokenizer, judge)[:12]
    key = f"{weights}-{key_of(GUIDANCES, TEMPERATURES, SWEEPS, EACH, EACH_TRIED)}"
    if kept(path, key) is not None:
        return
    began = time.process_time()
    how, tried = choose(model, judge, data)
    samples, labels = draw_by_class(model, EACH, how, SEED)
    record, scores = score(samples, labels, judge, data)
    record |= {"model": name, "key": key, "sampling": how.as_dict(), "tried": tried}
    record["reconstructed"] = reconstructed(model, judge, data)
    sheet = [preview(one) for one in samples.unflatten(0, (-1, EACH))[:, :SHOWN].transpose(0, 1).flatten(0, 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path.with_suffix(".png"), drawing.png(drawing.grid(sheet, len(data.classes))))
    keep(path, record | {"seconds": round(time.process_time() - began, 1)}, scores)
    print(f"samples {name}: {record['means']}", flush=True)


def choose(model: Pipeline, judge: Judge, data: Fashion) -> tuple[Sampling, dict[str, float]]:
    """Return the sampling settings with the highest mean of agreement and coverage, and that of all that were tried.

    Guidance and sweeps are chosen together, then the temperature. As many validation images are to be covered as there
    are samples.
    """
    real = _flat(data, data.chosen[: EACH_TRIED * len(data.classes)])
    scores: dict[Sampling, float] = {}

    def trial(how: Sampling) -> None:
        samples, labels = draw_by_class(model, EACH_TRIED, how, TRIED_SEED)
        pixels = samples.flatten(1).numpy()
        agreement = (PixelJudge(judge).predict(pixels) == labels).mean()
        scores[how] = float((agreement + coverage(real, pixels).mean()) / 2)

    for sweeps in SWEEPS:
        for scale in GUIDANCES:
            trial(Sampling(guidance=Guidance(scale), sweeps=sweeps))
    best = max(scores, key=scores.__getitem__)
    for temperature in TEMPERATURES:
        trial(replace(best, temperature=temperature))
    best = max(scores, key=scores.__getitem__)
    return best, {
        f"guidance {how.guidance.scale:g}, sweeps {how.sweeps}, temperature {how.temperature:g}": score
        for how, score in scores.items()
    }


def score(
    samples: Tensor, labels: np.ndarray, judge: Judge, data: Fashion
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the record of samples (m, 1, H, W), and the scores of each sample or test image.

    Beside them stand as many training images: their coverage of test, and their distance from it.
    """
    train, real = _flat(data, data.fit), _flat(data, data.test)
    found = score_samples(samples, labels, PixelJudge(judge), train, real)
    rows = np.random.default_rng(SEED).permutation(data.fit)[: len(samples)]
    scores = {
        "agreement": found.agreement,
        "recall": found.recall,
        "nearest_train_ratio": found.nearest_train_ratio,
        "recall_of_train": coverage(real, _flat(data, rows)),
        "agreement_of_test": judge.classes(as_pixels(data.images[data.test])) == data.labels[data.test],
    }
    features = {
        "test": judge.read(as_pixels(data.images[data.test]))[1],
        "train": judge.read(as_pixels(data.images[rows]))[1],
        "samples": judge.read(samples)[1],
    }
    record = {
        "samples": len(samples),
        "test": len(real),
        "means": {name: float(one.mean()) for name, one in scores.items()},
        "frechet": frechet_distance(features["samples"], features["test"]),
        "frechet_of_train": frechet_distance(features["train"], features["test"]),
    }
    return record, scores


@torch.no_grad()
def reconstructed(model: Pipeline, judge: Judge, data: Fashion) -> dict[str, float]:
    """Return the accuracy of the judge on test images as tokens show them, and their Fréchet distance from test: as
    good as samples on these tokens can be.
    """
    pictures = as_pixels(data.images[data.test])
    shown = torch.cat([model.decode(model.tokenizer.encode(part).flatten(1)) for part in pictures.split(500)])
    classes, features = judge.read(shown)
    return {
        "agreement": float((classes == data.labels[data.test]).mean()),
        "frechet": frechet_distance(features, judge.read(pictures)[1]),
    }


def _flat(data: Fashion, rows: np.ndarray) -> np.ndarray:
    """Return pixels from 0 to 1, float32 (n, H * W)."""
    return as_pixels(data.images[rows]).flatten(1).numpy()
