"""Study of calls: what is each network call worth in sampling? All of docs/results/calls.md by

    python -m studies.calls WORK                    # half an hour of a core; the same command resumes
    python -m studies.calls.tables docs             # the tables and the plot of what was found

The two generators of Fashion-MNIST with labels that lie in the package sample twenty images of each class in every way
of `arms`, all with the same seeds and the model's own guidance and temperature. Samples are compared with the images
that neither generators nor judge learned from: the Fréchet distance of the judge's features, the share that the judge
names as asked for, the share of these images that samples cover, and the loss of a sample's tokens when the same model
reads them one by one, which is that of its own sequential samples where nothing is lost.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randfeat.probes.tasks.generation import frechet_distance
from torch import Tensor

from randfeat import Pipeline, cli, load
from randfeat.commands.demo.generation import coverage
from randfeat.inference.likelihood import log_prob
from randfeat.utils.parallel import use_threads
from randfeat.weights import fingerprint
from studies.fashion import judge
from studies.fashion.images import read
from studies.fashion.units import keep, kept, key_of
from studies.reading.material import as_pixels

from .arms import Arm, all_arms

FOUND = Path(__file__).parent / "found"
MODELS = ("arpg", "randar")
EACH, COVERED = 20, 1000  # samples of a class, and images to cover
FITTED, EPOCHS = 20_000, 1  # of the judge: it compares ways of sampling, and need not be that of studies.fashion
ORDERS, DRAWS = 2, 20  # orders that the loss is read in, and draws of the bootstrap of the Fréchet distance


def main() -> None:
    """Measure what was not measured before."""
    args = parser().parse_args()
    use_threads(args.threads)
    data = read()
    fit = data.fit[:: len(data.fit) // FITTED]
    critic = judge.opened(args.work / "judge.safetensors", data.images[fit], data.labels[fit], EPOCHS)
    real = Real(as_pixels(data.images[data.chosen]), critic)
    for name in args.models:
        model = load(f"fashion-{name}")
        for arm in all_arms():
            if name in arm.only or not arm.only:
                measure(name, model, arm, real, args.found)


class Real:
    """Images that samples are compared with, and the judge that compares. pixels: (n, 1, H, W) from 0 to 1."""

    def __init__(self, pixels: Tensor, critic: judge.Judge) -> None:
        self.pixels, self.critic = pixels, critic
        self.features = critic.read(pixels)[1]


def measure(name: str, model: Pipeline, arm: Arm, real: Real, found: Path) -> None:
    """Sample in one way, score the samples, and keep the scores."""
    path = found / name / f"{arm.name}.json"
    weights = fingerprint(model.generator, model.tokenizer, real.critic)[:12]
    key = f"{weights}-{key_of(arm.name, EACH, COVERED, ORDERS)}"
    if kept(path, key) is not None:
        return
    labels = torch.arange(model.generator.num_classes).repeat_interleave(EACH)
    began = time.process_time()
    tokens, calls = arm.draw(model, labels, torch.arange(len(labels)))
    seconds = time.process_time() - began
    record, scores = score(model, tokens, labels, real)
    record |= {"key": key, "arm": arm.name, "family": arm.family, "calls": float(calls.float().mean())}
    record |= {"samples": len(tokens), "seconds": round(seconds, 2)}
    path.parent.mkdir(parents=True, exist_ok=True)
    keep(path, record, scores)
    print(f"{name}, {arm.name}: {record}", flush=True)


def score(model: Pipeline, tokens: Tensor, labels: Tensor, real: Real) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the record of samples, and the scores of each sample or image."""
    pixels = model.decode(tokens)
    classes, features = real.critic.read(pixels)
    draw = np.random.default_rng(0)
    again = [features[draw.integers(0, len(features), len(features))] for _ in range(DRAWS)]
    scores = {
        "agreement": classes == labels.numpy(),
        "coverage": coverage(real.pixels[:COVERED].flatten(1).numpy(), pixels.flatten(1).numpy()),
        "loss": -log_prob(model.inference_generator(), tokens, labels, ORDERS).mean(1).numpy() / tokens.shape[1],
    }
    return {
        "frechet": frechet_distance(features, real.features),
        "frechet_std": float(np.std([frechet_distance(one, real.features) for one in again])),
        "means": {name: float(one.mean()) for name, one in scores.items()},
    }, scores


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("work", type=Path, metavar="WORK", help="folder of the judge's weights")
    made.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    made.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help=", ".join(MODELS))
    made.add_argument("--threads", type=int, default=1, help="of the processor")
    return made


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.calls", main, "The same command goes on where this ended."))
