"""Linear heads trained in mini-batches, as published probes are, many at once.

All heads that read the same features share one product of matrices per step, and one pass over features on disk trains
a head for every feature, learning rate and weight decay.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from randfeat.utils.checks import is_finite_number, is_whole_number
from randfeat.utils.learning_rates import warmup_decay

from ..arrays import as_labels, check_finite, fit_arrays, predict_array, two_or_more_classes
from .linear import LogitClassifier

OPTIMIZERS = ("sgd", "adamw", "lars")
_BLOCK = 1 << 19  # logits at once on a CPU, 2 MB; an accelerator takes 256 times as many
_ROWS = 1024  # images scored at once


@dataclass(frozen=True)
class HeadRecipe:
    """Training recipe of linear heads, one head for each of `learning_rates` x `weight_decays`.

    learning_rates: for a batch of 256; a batch of B uses B / 256 times as much. weight_decays: biases have none.
    batch: images per step, at most all images; an epoch drops the last, incomplete batch. With fewer images than that
    the learning rate stays that of the recipe's batch: cut with the batch, it would leave the heads where they started
    (MAE's 90 steps on 1,157 images: 62 % for 98 %).
    epochs or iterations: length of the training, exactly one of the two. warmup: share of it in which the rate rises
    linearly from zero; half a cosine then brings it back to zero.
    batch_norm: normalise each dimension by the batch, eps 1e-6, without learned scale and shift; heads are then
    applied with the mean and variance over all batches.
    betas: of AdamW. SGD and LARS have momentum 0.9; LARS (You et al. 2017, arXiv 1708.03888) has trust coefficient
    0.001 on weights, none on biases. Weights start normal with std 0.01, biases at zero.
    """

    optimizer: str = "sgd"
    learning_rates: tuple[float, ...] = (0.1,)
    weight_decays: tuple[float, ...] = (0.0,)
    batch: int = 1024
    epochs: int | None = None
    iterations: int | None = None
    warmup: float = 0.0
    batch_norm: bool = False
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r} is unknown, expected one of {', '.join(OPTIMIZERS)}.")
        lengths = [length for length in (self.epochs, self.iterations) if length is not None]
        if len(lengths) != 1:
            raise ValueError(f"epochs={self.epochs}, iterations={self.iterations}: expected one of the two.")
        if not (is_whole_number(lengths[0], 1) and is_whole_number(self.batch, 2) and 0 <= self.warmup < 1):
            raise ValueError(
                f"epochs={self.epochs}, iterations={self.iterations}, batch={self.batch}, warmup={self.warmup}: "
                "expected at least one epoch or iteration, a batch of 2 or more and a share below 1."
            )
        rates = (*self.learning_rates, *self.weight_decays)
        if not (self.learning_rates and self.weight_decays and all(is_finite_number(x) and x >= 0 for x in rates)):
            raise ValueError("learning_rates and weight_decays need one number or more each, finite, decays from 0.")

    @classmethod
    def mae(cls) -> "HeadRecipe":
        """Return MAE's linear probe (He et al. 2021, arXiv 2111.06377, table 10, and main_linprobe.py of its code)."""
        return cls("lars", (0.1,), batch=16_384, epochs=90, warmup=10 / 90, batch_norm=True)

    @classmethod
    def dinov2(cls) -> "HeadRecipe":
        """Return DINOv2's linear probe (Oquab et al. 2023, arXiv 2304.07193, and eval/linear.py of its code).

        The batch is 128 images on each of 8 devices. DINOv2 chooses among the class token of the last block and of the
        last 4, with and without the mean of the patches.
        """
        rates = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
        return cls("sgd", rates, batch=1024, iterations=12_500)

    @classmethod
    def capi(cls) -> "HeadRecipe":
        """Return CAPI's linear probe (Darcet et al. 2025, arXiv 2502.08769, and eval_classification.py of its code).

        The batch is 128 images per device, of which 8 are assumed. CAPI's weights start with std 0.02, ours with 0.01.
        """
        rates = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
        decays = (5e-4, 1e-3, 5e-2)
        return cls("adamw", rates, decays, batch=1024, iterations=12_500, warmup=0.1, betas=(0.9, 0.95))

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of each head."""
        return [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]

    def only(self, learning_rate: float, weight_decay: float) -> "HeadRecipe":
        """Return the recipe of a single head with this learning rate and weight decay."""
        return replace(self, learning_rates=(learning_rate,), weight_decays=(weight_decay,))

    def steps(self, images: int) -> int:
        return self.iterations or (self.epochs or 0) * (images // min(self.batch, images))

    def factor(self, step: int, images: int) -> float:
        """Return the multiplier of learning rates at `step` of a training on `images` images."""
        steps = self.steps(images)
        return warmup_decay(step, steps, self.warmup * steps) * self.batch / 256


def batches(images: int, batch: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield the rows of each step without end: epochs in seeded orders, `batch` rows each, sorted as on disk."""
    batch = min(batch, images)
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(images)
        for start in range(0, images - batch + 1, batch):
            yield np.sort(order[start : start + batch])


class Stack:
    """Heads that read the same features (n, d): weight (heads, classes, d) and bias (heads, classes).

    All heads start at the same weights, which depend on `seed`, d and classes only.
    """

    def __init__(
        self, dimensions: int, classes: int, recipe: HeadRecipe, seed: int, device: str | torch.device
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        start = torch.empty(classes, dimensions).normal_(0, 0.01, generator=draw)
        heads = len(recipe.pairs)
        self.weight = start.repeat(heads, 1, 1).to(device)
        self.bias = torch.zeros(heads, classes, device=device)
        self.norm = nn.BatchNorm1d(dimensions, eps=1e-6, affine=False, momentum=None).to(device)
        self.recipe = recipe
        rates, decays = (torch.tensor(column, device=device) for column in zip(*recipe.pairs, strict=True))
        self._update = _Update(recipe, rates, decays, [self.weight, self.bias])

    @torch.no_grad()
    def step(self, x: Tensor, codes: Tensor, factor: float) -> None:
        """Train every head one step on features (B, d) and classes (B,), at `factor` times the learning rates."""
        x = self.norm.train()(x) if self.recipe.batch_norm else x
        self._update.taken += 1
        for heads in self._groups(len(x)):  # so that weights come from memory once
            errors = self._product(x, heads).softmax(2)
            index = codes[:, None, None].expand(-1, errors.shape[1], 1)
            errors.scatter_add_(2, index, errors.new_full((1, 1, 1), -1).expand(index.shape))
            weight = (errors.flatten(1).T @ x).view_as(self.weight[heads])
            self._update(heads, [weight.div_(len(x)), errors.mean(0)], factor)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, heads, classes) of features (B, d)."""
        return self._product(self.norm.eval()(x) if self.recipe.batch_norm else x, slice(None))

    def head(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weight (d, classes) and bias (classes,) of a head, with the normalisation of features folded in."""
        weight, bias = self.weight[number].T.cpu().double(), self.bias[number].cpu().double()
        if self.recipe.batch_norm:
            mean, variance = (self.norm.get_buffer(f"running_{s}").cpu().double() for s in ("mean", "var"))
            weight = weight / (variance + self.norm.eps).sqrt()[:, None]
            bias = bias - mean @ weight
        return weight.numpy(), bias.numpy()

    def _product(self, x: Tensor, heads: slice) -> Tensor:
        bias = self.bias[heads]
        return torch.addmm(bias.flatten(), x, self.weight[heads].flatten(0, 1).T).view(len(x), *bias.shape)

    def _groups(self, images: int) -> Iterator[slice]:
        logits = _BLOCK if self.bias.device.type == "cpu" else 256 * _BLOCK
        heads = max(1, logits // (images * self.bias.shape[1]))
        return (slice(first, first + heads) for first in range(0, len(self.bias), heads))


class _Update:
    """Update rule of SGD, AdamW or LARS on tensors (heads, ...), each head with its own rate and decay."""

    def __init__(self, recipe: HeadRecipe, rates: Tensor, decays: Tensor, parameters: list[Tensor]) -> None:
        self.rule = {"sgd": self._momentum, "lars": self._lars, "adamw": self._adamw}[recipe.optimizer]
        self.betas, self.rates, self.decays, self.parameters = recipe.betas, rates, decays, parameters
        self.decayed = bool(decays.any())
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters] if recipe.optimizer == "adamw" else self.first
        self.taken = 0

    def __call__(self, heads: slice, gradients: list[Tensor], factor: float) -> None:
        for gradient, *tensors in zip(gradients, self.parameters, self.first, self.second, strict=True):
            parameter, first, second = (t[heads] for t in tensors)
            column = (-1, *[1] * (parameter.ndim - 1))
            decay = self.decays[heads].view(column) if self.decayed and parameter.ndim > 2 else None
            self.rule(parameter, gradient, factor * self.rates[heads].view(column), decay, first, second)

    def _momentum(
        self, parameter: Tensor, gradient: Tensor, rate: Tensor, decay: Tensor | None, first: Tensor, _: Tensor
    ) -> None:
        if decay is not None:
            gradient.addcmul_(parameter, decay)
        first.mul_(0.9).add_(gradient)
        parameter.addcmul_(first, rate, value=-1)

    def _lars(
        self, parameter: Tensor, gradient: Tensor, rate: Tensor, decay: Tensor | None, first: Tensor, second: Tensor
    ) -> None:
        if decay is not None:
            gradient.addcmul_(parameter, decay)
        if parameter.ndim > 2:
            size, change = (t.flatten(1).norm(dim=1).view(rate.shape) for t in (parameter, gradient))
            gradient.mul_(torch.where((size > 0) & (change > 0), 0.001 * size / change, 1))
        self._momentum(parameter, gradient, rate, None, first, second)

    def _adamw(
        self, parameter: Tensor, gradient: Tensor, rate: Tensor, decay: Tensor | None, first: Tensor, second: Tensor
    ) -> None:
        if decay is not None:
            parameter.mul_(1 - rate * decay)
        one, two = self.betas
        first.lerp_(gradient, 1 - one)
        second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        size = second.sqrt().div_(math.sqrt(1 - two**self.taken)).add_(1e-8)
        parameter.addcmul_(first.div(size), rate / (1 - one**self.taken), value=-1)


# sweeps -------------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """Name of the features that a head reads, its learning rate (for a batch of 256) and weight decay."""

    features: str
    learning_rate: float
    weight_decay: float


class TrainedHead(LogitClassifier):
    """Linear classifier trained in mini-batches, by the first learning rate and weight decay of a `HeadRecipe`.

    The order of images and the weights at the start depend on `seed` only. Logits are `x @ weight_ + bias_`.
    """

    weight_: NDArray[np.float64]
    bias_: NDArray[np.float64]

    def __init__(self, recipe: HeadRecipe, seed: int = 0, device: str = "cpu") -> None:
        self.recipe = recipe
        self.seed = seed
        self.device = device

    def fit(self, x: ArrayLike, y: ArrayLike) -> "TrainedHead":
        """Fit features `x` (n, d) and labels `y` (n,) of two classes or more."""
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
    """Trained heads: a `Stack` for each feature by name; `head` returns one of them as an estimator."""

    stacks: dict[str, Stack]
    classes: NDArray[Any]
    recipe: HeadRecipe
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

        A class that training did not show counts as wrong, and so does every prediction of a diverged head.
        """
        logits = [stack.logits(batch[name].to(self.device)) for name, stack in self.stacks.items()]
        picked = torch.cat([heads.argmax(2).T for heads in logits]).cpu().numpy()
        finite = torch.cat([heads.isfinite().all(2).T for heads in logits]).cpu().numpy()
        return (self.classes[picked] == labels) & finite


@dataclass(frozen=True)
class Sweep:
    """Result of a sweep: the best trial, its held-out accuracy in 0..1, that of every trial, and the heads."""

    best: Trial
    score: float
    scores: dict[Trial, float]
    heads: Heads

    @classmethod
    def of(cls, heads: Heads, right: NDArray[np.bool_]) -> "Sweep":
        """Return the result for `heads` that are `right` (trials, n) on held-out images; the first of equals wins."""
        scores = {trial: float(hits) for trial, hits in zip(heads.trials, right.mean(axis=1), strict=True)}
        best = max(scores, key=lambda trial: scores[trial])
        return cls(best, scores[best], scores, heads)

    @property
    def probe(self) -> TrainedHead:
        """The best head, fitted on the images that were not held out."""
        return self.heads.head(self.best)


def sweep_heads(
    features: Mapping[str, NDArray[np.floating]],
    labels: ArrayLike,
    held_out: ArrayLike,
    recipe: HeadRecipe,
    seed: int = 0,
    device: str = "cpu",
) -> Sweep:
    """Train a head for every feature, learning rate and weight decay together; choose by the held-out images.

    features: arrays or memory maps (n, d) by name, over the same images of train: layers, pools. labels: (n,).
    held_out: bool (n,), the images that are scored and not trained on; keep images of one group on one side.
    The first of equal trials wins. Up to rounding, every head is the same as if it were trained alone.
    """
    y = as_labels(labels, _length(features))
    mask = held_out_rows(held_out, len(y))
    heads = train_heads(features, y, recipe, np.flatnonzero(~mask), seed, device)
    parts = (rows for start in range(0, len(y), _ROWS) if len(rows := start + np.flatnonzero(mask[start:][:_ROWS])))
    right = [heads.correct({name: _read(x, rows) for name, x in features.items()}, y[rows]) for rows in parts]
    return Sweep.of(heads, np.concatenate(right, axis=1))


def held_out_rows(held_out: ArrayLike, images: int) -> NDArray[np.bool_]:
    """Return `held_out` as bool (images,). Raises a ValueError unless it marks some images and not all."""
    mask = np.asarray(held_out)
    if mask.dtype != bool or mask.shape != (images,):
        raise ValueError(f"held_out is {mask.dtype} {mask.shape}, expected bool ({images},); mark each train image.")
    if mask.all() or not mask.any():
        raise ValueError(f"held_out marks {mask.sum()} of {len(mask)} images; leave some to fit and some to score.")
    return mask


def train_heads(
    features: Mapping[str, NDArray[np.floating]],
    labels: ArrayLike,
    recipe: HeadRecipe,
    rows: NDArray[np.intp] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Heads:
    """Return heads for every feature, learning rate and weight decay, trained on `rows` (None: all) in one pass.

    Each step reads its images once per feature, whatever the number of heads.
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
    """Return the number of rows, which must be the same for all features."""
    lengths = {name: len(x) for name, x in features.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"features have {lengths or 'no'} rows, expected one number for all; read the same images.")
    return next(iter(lengths.values()))
