"""Many linear heads on the same features, trained at once: one product of matrices for all of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OPTIMIZERS = ("sgd", "adamw", "lars")
_BLOCK = 1 << 19  # logits at once on a processor, 2 MB; an accelerator takes 256 times as many


@dataclass(frozen=True)
class Recipe:
    """How heads are trained: one for each of `learning_rates` x `weight_decays`.

    learning_rates: of a batch of 256; a batch of B uses B / 256 times as much. weight_decays: biases have none.
    batch: images a step, at most all there are; an epoch leaves out what does not fill a batch.
    epochs or iterations: how long, one of the two. warmup: the share of it in which the rate rises from zero to the
    full, before half a cosine brings it back to zero.
    batch_norm: normalise each dimension by the batch, eps 1e-6, without learned scale and shift; heads are then
    applied with the mean and variance over all batches.
    betas: of AdamW. SGD and LARS have momentum 0.9; LARS (You et al. 2017, arXiv 1708.03888) has trust coefficient
    0.001 on weights, none on biases. Weights begin normal with deviation 0.01, biases at zero.
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
        if lengths[0] < 1 or self.batch < 2 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"epochs={self.epochs}, iterations={self.iterations}, batch={self.batch}, warmup={self.warmup}: "
                "expected at least one epoch or iteration, a batch of 2 or more and a share below 1."
            )
        if not self.learning_rates or not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError("learning_rates and weight_decays need one number or more each, decays from 0.")

    @classmethod
    def mae(cls) -> "Recipe":
        """MAE's linear probe (He et al. 2021, arXiv 2111.06377, table 10, and main_linprobe.py of its code)."""
        return cls("lars", (0.1,), batch=16_384, epochs=90, warmup=10 / 90, batch_norm=True)

    @classmethod
    def dinov2(cls) -> "Recipe":
        """DINOv2's linear probe (Oquab et al. 2023, arXiv 2304.07193, and eval/linear.py of its code).

        128 images on each of 8 devices. The features it chooses among are the class token of the last block or of
        the last 4, with the mean of patches or without.
        """
        rates = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
        return cls("sgd", rates, batch=1024, iterations=12_500)

    @classmethod
    def capi(cls) -> "Recipe":
        """CAPI's linear probe (Darcet et al. 2025, arXiv 2502.08769, and eval_classification.py of its code).

        128 images on each device; 8 of them are assumed. Its weights begin with deviation 0.02.
        """
        rates = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
        decays = (5e-4, 1e-3, 5e-2)
        return cls("adamw", rates, decays, batch=1024, iterations=12_500, warmup=0.1, betas=(0.9, 0.95))

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of each head."""
        return [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]

    def only(self, learning_rate: float, weight_decay: float) -> "Recipe":
        """Return the same for a single head."""
        return replace(self, learning_rates=(learning_rate,), weight_decays=(weight_decay,))

    def steps(self, images: int) -> int:
        return self.iterations or (self.epochs or 0) * (images // min(self.batch, images))

    def factor(self, step: int, images: int) -> float:
        """What learning rates are multiplied with at `step` on `images` images."""
        return schedule(step, self.steps(images), self.warmup) * min(self.batch, images) / 256


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return a rise from 0 to 1 in the first share `warmup` of `steps`, then half a cosine back to 0."""
    rising = warmup * steps
    if step < rising:
        return step / rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / (steps - rising))


def batches(images: int, batch: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Rows of each step, without end: epochs in seeded orders, `batch` rows a time, sorted as they lie on disk."""
    batch = min(batch, images)
    for epoch in count():
        order = np.random.default_rng([seed, epoch]).permutation(images)
        for start in range(0, images - batch + 1, batch):
            yield np.sort(order[start : start + batch])


class Stack:
    """Heads that read the same features (n, d): weight (heads, classes, d) and bias (heads, classes).

    All heads start at the same weights, which depend on `seed`, d and classes only.
    """

    def __init__(self, dimensions: int, classes: int, recipe: Recipe, seed: int, device: str | torch.device) -> None:
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
        """One step of every head on features (B, d) of classes (B,), at `factor` times the learning rates."""
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
        """Of features (B, d): (B, heads, classes)."""
        return self._product(self.norm.eval()(x) if self.recipe.batch_norm else x, slice(None))

    def head(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight (d, classes) and bias (classes,) on features as they are: normalisation is folded in."""
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
    """SGD, AdamW or LARS on tensors (heads, ...), each head at its own rate and decay."""

    def __init__(self, recipe: Recipe, rates: Tensor, decays: Tensor, parameters: list[Tensor]) -> None:
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
