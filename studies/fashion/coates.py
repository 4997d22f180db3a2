"""Single layer of k-means patches after Coates, Ng and Lee (2011, "An Analysis of Single-Layer Networks in Unsupervised
Feature Learning"): whitened patches, k-means, the triangle activation, sums over parts of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from studies.reading.material import as_pixels

from .features import Reader

PATCHES = 200_000  # patches that whitening and k-means are fitted to
AT_ONCE = 50  # images whose activations are held together


@dataclass(frozen=True)
class Layer:
    """Centres after whitening, (K, d); mean (d,) and matrix (d, d) of the whitening."""

    centres: Tensor
    mean: Tensor
    matrix: Tensor


class KMeansPatches(Reader):
    """Reader of k-means patches. Variants are numbers of centres and of parts a side, about 3,500 features each.

    patch: pixels of a patch's side; patches lie one pixel apart. contrast, whitening: added to variances, in units of
    pixels from 0 to 1 and of normalised patches (10 of 255^2, and 0.1, in the paper).
    """

    def __init__(
        self,
        images: np.ndarray,
        sizes: Sequence[tuple[int, int]] = ((800, 2), (400, 3), (225, 4)),
        patch: int = 6,
        seed: int = 0,
    ) -> None:
        self.images, self.patch, self.seed = images, patch, seed
        self.sizes = {f"{count} centres, {side} x {side} parts": (count, side) for count, side in sizes}
        self.variants = tuple(self.sizes)
        self.layers: dict[int, Layer] = {}

    def layer(self, count: int) -> Layer:
        """Return `count` centres, fitted to patches of the images."""
        if count not in self.layers:
            self.layers[count] = self._fitted(count)
        return self.layers[count]

    def _fitted(self, count: int) -> Layer:
        from sklearn.cluster import MiniBatchKMeans

        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(self.images))[:PATCHES])
        each = -(-PATCHES // len(rows))
        drawn = []
        for part in np.array_split(rows, max(1, len(rows) // 1000)):
            patches = self._patches(as_pixels(self.images[part]))
            places = torch.from_numpy(rng.integers(patches.shape[1], size=(len(part), each)))
            drawn.append(patches.gather(1, places.unsqueeze(2).expand(-1, -1, patches.shape[2])).flatten(0, 1))
        x = torch.cat(drawn)
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        matrix = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
        whitened = ((x - mean) @ matrix).numpy()
        found = MiniBatchKMeans(count, random_state=self.seed, n_init=1, batch_size=4096, max_iter=20).fit(whitened)
        return Layer(torch.from_numpy(found.cluster_centers_.astype(np.float32)), mean, matrix)

    def _patches(self, images: Tensor) -> Tensor:
        """Return all patches of images, each less its mean and divided by its std: (n, places, patch^2)."""
        patches = F.unfold(images, self.patch).transpose(1, 2)
        centred = patches - patches.mean(2, keepdim=True)
        return centred / (centred.square().mean(2, keepdim=True) + 10 / 255**2).sqrt()

    @torch.no_grad()
    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        found: dict[str, list[Tensor]] = {name: [] for name in variants}
        for part in as_pixels(images).split(AT_ONCE):
            patches = self._patches(part)
            for name in variants:
                count, side = self.sizes[name]
                found[name].append(_pooled(patches, self.layer(count), side))
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _pooled(patches: Tensor, layer: Layer, side: int) -> Tensor:
    """Return how much nearer than the mean each centre is, averaged over the patches of a part: (n, side^2 * K)."""
    x = (patches - layer.mean) @ layer.matrix
    squares = x.square().sum(2, keepdim=True) - 2 * (x @ layer.centres.T) + layer.centres.square().sum(1)
    distances = squares.clamp_(min=0).sqrt_()
    active = (distances.mean(2, keepdim=True) - distances).clamp_(min=0)
    places = int(active.shape[1] ** 0.5)
    maps = active.transpose(1, 2).unflatten(2, (places, places))
    return F.adaptive_avg_pool2d(maps, side).flatten(1)
