"""Evaluation of generators with labels: samples judged by a classifier of real images, and likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from randfeat import Guidance, Pipeline, Sampling
from randfeat.inference import likelihood, sampling
from randfeat.models import Generator

GUIDANCES, SWEEPS = (1.0, 1.5, 2.0, 3.0), (0, 1, 3)
COVERAGE_NEIGHBOURS = 5  # k of Naeem et al. 2020


class Judge(Protocol):
    """Classifier of pixels in [0, 1]."""

    def predict(self, pixels: np.ndarray, /) -> np.ndarray:
        """Return the labels of pixels (n, H * W)."""


@dataclass(frozen=True)
class SampleScores:
    """Scores of samples.

    agreement: whether the judge agrees with a sample's label, bool (m,). nearest_train_ratio: a sample's distance to
    the nearest train image over the mean such distance of test images, (m,). recall: whether a sample lies among the
    neighbours of a test image, bool (n,).
    """

    agreement: np.ndarray
    nearest_train_ratio: np.ndarray
    recall: np.ndarray


def draw_by_class(pipeline: Pipeline, each: int, how: Sampling, seed: int) -> tuple[Tensor, np.ndarray]:
    """Return `each` images of every class, (C * each, 1, H, W), and their labels."""
    labels = [label for label in range(pipeline.generator.num_classes) for _ in range(each)]
    return pipeline.sample(labels, how, seed), np.array(labels)


def score_samples(
    samples: Tensor, labels: np.ndarray, judge: Judge, train: np.ndarray, real: np.ndarray
) -> SampleScores:
    """Return the scores of samples (m, 1, H, W) with the labels asked for.

    judge: a classifier of pixels. train, real: pixels (n, H * W) in [0, 1].
    """
    pixels = samples.flatten(1).numpy()
    return SampleScores(
        judge.predict(pixels) == labels,
        _nearest(pixels, train) / _nearest(real, train).mean(),
        coverage(real, pixels),
    )


def coverage(real: np.ndarray, made: np.ndarray, k: int = COVERAGE_NEIGHBOURS) -> np.ndarray:
    """Return whether a made image lies at least as near to each real one as its k-th nearest other real one.

    Coverage of Naeem et al. (arXiv 2002.09797): bool (n,) of real (n, F) and made (m, F).
    """
    radius = NearestNeighbors(n_neighbors=k).fit(real).kneighbors()[0][:, -1]
    return _nearest(real, made) <= radius


def _nearest(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
    return NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(queries)[0][:, 0]


def choose_sampling(
    pipeline: Pipeline, judge: Judge, fit: np.ndarray, held_out: np.ndarray, each: int
) -> tuple[Sampling, dict[str, float]]:
    """Return the best sampling settings, and the score of all that were tried.

    The score is the mean of agreement and recall, against held-out writers of train.
    """
    tried = [Sampling(guidance=Guidance(scale), sweeps=sweeps) for sweeps in SWEEPS for scale in GUIDANCES]
    scores = {}
    for how in tried:
        samples, labels = draw_by_class(pipeline, each, how, seed=1_000_000)
        result = score_samples(samples, labels, judge, fit, held_out)
        scores[how] = float((result.agreement.mean() + result.recall.mean()) / 2)
    named = {f"guidance {how.guidance.scale:g}, sweeps {how.sweeps}": score for how, score in scores.items()}
    return max(scores, key=lambda how: scores[how]), named


def likelihood_curve(
    model: Generator,
    tokens: Tensor,
    labels: np.ndarray,
    counts: tuple[int, ...],
    tick: Callable[[int], object] = lambda passes: None,
) -> dict[int, np.ndarray]:
    """Return whether the likeliest class is right, bool (n,), by number of orders; more orders include fewer.

    tick is called with the number of passes after each batch; there are images * classes * max(counts).
    """
    scores = likelihood.class_log_prob(model, tokens, None, max(counts), tick=tick)
    return right_by_count(scores.numpy(), labels, counts)


def right_by_count(scores: np.ndarray, labels: np.ndarray, counts: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Return as `likelihood_curve` from the log p of every image, class and order, (n, C, K)."""
    return {k: (scores[..., :k].mean(-1).argmax(1) == labels) for k in counts}


def watch(pipeline: Pipeline, labels: list[int], how: Sampling, seed: int) -> list[Tensor]:
    """Return the canvases of a decode, (C, 1, H, W) each, step by step; what is not decoded yet is mid-grey."""
    generator, stride = pipeline.generator, pipeline.tokenizer.stride
    seeds = torch.arange(seed, seed + len(labels))
    canvases = []
    for step in sampling.decode(generator, torch.tensor(labels), seeds, how):
        missing = (step.tokens == sampling.UNKNOWN).unflatten(1, generator.grid)
        image = pipeline.decode(step.tokens.clamp(min=0))
        hidden = missing.repeat_interleave(stride, 1).repeat_interleave(stride, 2).unsqueeze(1)
        canvases.append(image.masked_fill(hidden, 0.5))
    return canvases
