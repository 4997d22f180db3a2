"""One pass over features on disk trains linear heads for every feature, learning rate and weight decay."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..arrays import as_labels, check_finite, fit_arrays, predict_array, two_or_more_classes
from .heads import Recipe, Stack, batches
from .logits import LogitClassifier

_ROWS = 1024  # images scored at once


class Trial(NamedTuple):
    """Which features a head reads, and its learning rate (of a batch of 256) and weight decay."""

    features: str
    learning_rate: float
    weight_decay: float


class TrainedHead(LogitClassifier):
    """A linear classifier trained in batches, by the first learning rate and weight decay of a `Recipe`.

    The order of images and the weights at the start depend on `seed` only. Logits are `x @ weight_ + bias_`.
    """

    weight_: NDArray[np.float64]
    bias_: NDArray[np.float64]

    def __init__(self, recipe: Recipe, seed: int = 0, device: str = "cpu") -> None:
        self.recipe = recipe
        self.seed = seed
        self.device = device

    def fit(self, x: ArrayLike, y: ArrayLike) -> "TrainedHead":
        """Features `x` (n, d), labels `y` (n,) of two classes or more."""
        features, labels = fit_arrays(self, x, y)
        rate, decay = self.recipe.pairs[0]
        heads = train_heads({"": features}, labels, self.recipe.only(rate, decay), seed=self.seed, device=self.device)
        head = heads.head(Trial("", rate, decay))
        self.classes_, self.weight_, self.bias_ = head.classes_, head.weight_, head.bias_
        return self

    def _logits(self, x: ArrayLike) -> NDArray[np.floating]:
        features = predict_array(self, x)
        return features @ self.weight_ + self.bias_


@dataclass(frozen=True)
class Heads:
    """Trained heads: one `Stack` for each feature by name. Each head is an estimator of its own by `head`."""

    stacks: dict[str, Stack]
    classes: NDArray[Any]
    recipe: Recipe
    seed: int
    device: str

    @property
    def trials(self) -> list[Trial]:
        return [Trial(name, *pair) for name in self.stacks for pair in self.recipe.pairs]

    def head(self, trial: Trial) -> TrainedHead:
        """Return the fitted classifier of one trial; its clone trains that head alone."""
        pair = (trial.learning_rate, trial.weight_decay)
        made = TrainedHead(self.recipe.only(*pair), self.seed, self.device)
        made.classes_ = self.classes
        made.weight_, made.bias_ = self.stacks[trial.features].head(self.recipe.pairs.index(pair))
        made.n_features_in_ = len(made.weight_)
        return made

    def correct(self, batch: Mapping[str, Tensor], labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Return whether each head (trials, B) is right on features (B, d) by name.

        A class that training did not show is a mistake, and so is all that a diverged head says.
        """
        logits = [stack.logits(batch[name].to(self.device)) for name, stack in self.stacks.items()]
        picked = torch.cat([heads.argmax(2).T for heads in logits]).cpu().numpy()
        finite = torch.cat([heads.isfinite().all(2).T for heads in logits]).cpu().numpy()
        return (self.classes[picked] == labels) & finite


@dataclass(frozen=True)
class Sweep:
    """The best trial, its held-out accuracy in 0..1, that of every trial, and the heads."""

    best: Trial
    score: float
    scores: dict[Trial, float]
    heads: Heads

    @classmethod
    def of(cls, heads: Heads, right: NDArray[np.bool_]) -> "Sweep":
        """From whether each head is right on the held-out images (trials, n); of equal scores the first trial wins."""
        scores = {trial: float(hits) for trial, hits in zip(heads.trials, right.mean(axis=1), strict=True)}
        best = max(scores, key=lambda trial: scores[trial])
        return cls(best, scores[best], scores, heads)

    @property
    def probe(self) -> TrainedHead:
        """The best head, fitted on what was not held out."""
        return self.heads.head(self.best)


def sweep_heads(
    features: Mapping[str, NDArray[np.floating]],
    labels: ArrayLike,
    held_out: ArrayLike,
    recipe: Recipe,
    seed: int = 0,
    device: str = "cpu",
) -> Sweep:
    """Train a head for every feature, learning rate and weight decay together; choose by the held-out images.

    features: arrays or memory maps (n, d) by name, over the same images of train: layers, pools. labels: (n,).
    held_out: booleans (n,), the images that are scored and not trained on; keep images of one group on one side.
    Of equal scores the first trial wins. Every head is, up to rounding, what it would be if trained alone.
    """
    y = as_labels(labels, _length(features))
    mask = held_out_rows(held_out, len(y))
    heads = train_heads(features, y, recipe, np.flatnonzero(~mask), seed, device)
    parts = (rows for start in range(0, len(y), _ROWS) if len(rows := start + np.flatnonzero(mask[start:][:_ROWS])))
    right = [heads.correct({name: _read(x, rows) for name, x in features.items()}, y[rows]) for rows in parts]
    return Sweep.of(heads, np.concatenate(right, axis=1))


def held_out_rows(held_out: ArrayLike, images: int) -> NDArray[np.bool_]:
    """Booleans (images,), checked: some are held out and some are not."""
    mask = np.asarray(held_out)
    if mask.dtype != bool or mask.shape != (images,):
        raise ValueError(f"held_out is {mask.dtype} {mask.shape}, expected bool ({images},); mark each train image.")
    if mask.all() or not mask.any():
        raise ValueError(f"held_out marks {mask.sum()} of {len(mask)} images; leave some to fit and some to score.")
    return mask


def train_heads(
    features: Mapping[str, NDArray[np.floating]],
    labels: ArrayLike,
    recipe: Recipe,
    rows: NDArray[np.intp] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Heads:
    """Heads for every feature, learning rate and weight decay, trained on `rows` (all, if None) in one pass.

    Each step reads its images once for each feature, whatever the number of heads.
    """
    y = as_labels(labels, _length(features))
    for name, x in features.items():
        if x.ndim != 2:
            raise ValueError(f"features {name!r} have shape {x.shape}, expected (n, d); pool them.")
        check_finite(x, f"features {name!r}")
    rows = np.arange(len(y)) if rows is None else rows
    classes = two_or_more_classes(y[rows])
    codes = np.searchsorted(classes, y[rows])
    heads = Heads(
        {name: Stack(x.shape[1], len(classes), recipe, seed, device) for name, x in features.items()},
        classes,
        recipe,
        seed,
        device,
    )
    for step, picked in enumerate(islice(batches(len(rows), recipe.batch, seed), recipe.steps(len(rows)))):
        known, factor = torch.from_numpy(codes[picked]).to(device), recipe.factor(step, len(rows))
        for name, x in features.items():
            heads.stacks[name].step(_read(x, rows[picked]).to(device), known, factor)
    return heads


def _read(x: NDArray[np.floating], rows: NDArray[np.intp]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x[rows], dtype=np.float32))


def _length(features: Mapping[str, NDArray[Any]]) -> int:
    """Return how many images all features are of."""
    lengths = {name: len(x) for name, x in features.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"features have {lengths or 'no'} rows, expected one number for all; read the same images.")
    return next(iter(lengths.values()))
