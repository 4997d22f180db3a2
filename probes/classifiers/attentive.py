"""Attentive probe of dense features: one learned query attends to all positions."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from randfeat.utils.checks import is_finite_number
from randfeat.utils.learning_rates import warmup_decay

from ..arrays import as_labels, check_finite, two_or_more_classes
from .heads import batches
from .linear import LogitClassifier

Dense: TypeAlias = "NDArray[np.floating] | Sequence[NDArray[np.floating]]"
"""Maps (n, D, h, w) in memory or on disk, or several layers of them, whose mean is read."""


class AttentiveProbe(LogitClassifier):
    """AIM's attentive probe (El-Nouby et al. 2024, arXiv 2401.08541, and its code's AttentionPoolingClassifier).

    Tokens are averaged over the layers given, normalised by the batch (no learned scale, eps 1e-6) and projected to
    keys and values without bias; one learned query of `num_heads` heads attends to them; a linear layer follows.
    AIM has 12 heads. It is trained by AdamW with a cosine schedule after a warm-up over 5 % of the steps; defaults of
    learning rate, decay and length are ours, so choose them on train. Images are read batch by batch.
    """

    def __init__(
        self,
        num_heads: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        epochs: int = 20,
        batch: int = 256,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.num_heads = num_heads
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch = batch
        self.seed = seed
        self.device = device

    def fit(self, x: Dense, y: ArrayLike) -> "AttentiveProbe":
        """Fit dense features `x` (n, D, h, w) of one or several layers and labels `y` (n,) of two classes or more."""
        layers = as_dense(x)
        labels = as_labels(y, len(layers[0]))
        self.classes_ = two_or_more_classes(labels)
        self.n_features_in_ = width = layers[0].shape[1]
        if self.num_heads < 1 or width % self.num_heads or self.batch < 2 or self.epochs < 1:
            raise ValueError(
                f"num_heads={self.num_heads} of width {width}, batch={self.batch}, epochs={self.epochs}: "
                "expected heads that divide the width, a batch of 2 or more and at least one epoch."
            )
        if not all(is_finite_number(value) and value >= 0 for value in (self.learning_rate, self.weight_decay)):
            raise ValueError(
                f"learning_rate={self.learning_rate}, weight_decay={self.weight_decay}: expected finite numbers from 0."
            )
        codes = torch.from_numpy(np.searchsorted(self.classes_, labels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = _Head(width, len(self.classes_), self.num_heads)
        self.head_ = head.to(self.device).train()
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=self.weight_decay)
        n = len(labels)
        steps = self.epochs * (n // min(self.batch, n))
        for step, rows in enumerate(islice(batches(n, self.batch, self.seed), steps)):
            optimizer.param_groups[0]["lr"] = self.learning_rate * warmup_decay(step, steps, 0.05 * steps)
            optimizer.zero_grad()
            logits = head(read_dense(layers, rows).to(self.device))
            F.cross_entropy(logits, codes[rows].to(self.device)).backward()
            optimizer.step()
        head.eval()
        return self

    @torch.no_grad()
    def _logits(self, x: Dense) -> NDArray[np.float32]:
        check_is_fitted(self)
        layers = as_dense(x)
        if layers[0].shape[1] != self.n_features_in_:
            raise ValueError(f"features have width {layers[0].shape[1]}, expected {self.n_features_in_} as in fit.")
        parts = [self.head_(part.to(self.device)).cpu() for part in dense_blocks(layers, self.batch)]
        return torch.cat(parts).numpy()


class _Head(nn.Module):
    def __init__(self, width: int, classes: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False, momentum=None)
        self.query = nn.Parameter(0.02 * torch.randn(num_heads, width // num_heads))
        self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of dense features (B, D, h, w)."""
        x = self.norm(x.flatten(2))
        shape = (*self.query.shape, x.shape[1])
        # With a single query, key weights multiply the query and value weights the attended mean: one product per head
        # instead of keys and values of width D at every position.
        asked = torch.einsum("he,hed->hd", self.query, self.key.weight.view(shape)) / self.query.shape[1] ** 0.5
        attention = (asked @ x).softmax(2)
        pooled = torch.einsum("hed,bhd->bhe", self.value.weight.view(shape), attention @ x.transpose(1, 2))
        return self.linear(pooled.flatten(1))


def as_dense(x: Dense) -> list[NDArray[np.floating]]:
    """Return the layers of `x`. Raises a ValueError unless they are finite and of one shape (n, D, h, w)."""
    layers = [x] if isinstance(x, np.ndarray) else list(x)
    shapes = {np.shape(layer) for layer in layers}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4 or 0 in next(iter(shapes)):
        raise ValueError(f"dense features have shapes {sorted(shapes)}, expected (n, D, h, w), one for all layers.")
    for layer in layers:
        check_finite(layer, "dense features")
    return layers


def read_dense(layers: Sequence[NDArray[np.floating]], rows: NDArray[np.intp] | slice) -> Tensor:
    """Return the mean of layers at these rows, float32 (B, D, h, w)."""
    total = layers[0][rows].astype(np.float32)
    for layer in layers[1:]:
        total += layer[rows]
    return torch.from_numpy(total).div_(len(layers))


def dense_blocks(layers: Sequence[NDArray[np.floating]], size: int) -> Iterator[Tensor]:
    """Yield all images in order, `size` at a time, float32 (size, D, h, w)."""
    for start in range(0, len(layers[0]), size):
        yield read_dense(layers, slice(start, start + size))
