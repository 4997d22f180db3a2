"""Readers: networks and classical features that turn images into vectors, and into maps of 7 x 7 cells.

Each has a short list of variants to choose from, on training images. `SPECS` and `DENSE` are those of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from randfeat.probes import PatchCounts, hog, hog_maps, pixel_maps, pixels
from sklearn.decomposition import PCA
from torch import Tensor

from randfeat import Pipeline
from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec, sub_patch_shifts
from randfeat.models import Generator, name_of, packed
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels

from .coates import KMeansPatches
from .features import Reader

GRID = (7, 7)
ARPG = (  # contexts and streams that were behind on training images are left out: see docs/results/fashion.md
    "raster/after/query/L-1/mean/mean",
    "raster/after/query/L-1/grid2/mean",
    "raster/after/query/L-1/grid4/mean",
    "raster/after/query/L-1/grid2/mean/shifts2",
    "raster/after/query/L-1/grid4/mean/shifts2",
    "raster/after/query/L-2,L-1/grid4/concat/shifts2",
)
RANDAR = (
    "raster/full/query/L-1/mean/mean",
    "raster/full/query/L-1/grid4/mean",
    "raster/full/query/L0.67,L-1/grid4/concat",
    "raster/after/query/L-1/grid4/mean",
    "raster/full/token/L0.5/grid4/mean",
    "raster/full/query/L-1/mean/mean/shifts2",
    "raster/full/query/L-1/grid4/mean/shifts2",
    "raster/full/query/L0.67,L-1/grid4/concat/shifts2",
    "raster/after/query/L-1/grid4/mean/shifts2",
    "raster/full/token/L0.5/grid4/mean/shifts2",
)
CONTROL = (
    "raster/full/token/L0.5/mean/mean",
    "raster/full/token/L0.5/grid4/mean",
    "raster/full/token/L0.67/grid4/mean",
    "raster/full/token/L-1/mean/mean",
    "raster/full/token/L-1/grid4/mean",
    "raster/full/token/L0.67,L-1/grid4/concat",
    "raster/full/token/L0.67/mean/mean/shifts2",
    "raster/full/token/L0.67/grid4/mean/shifts2",
    "raster/full/token/L-1/grid4/mean/shifts2",
    "raster/full/token/L0.67,L-1/grid4/concat/shifts2",
)
SPECS: dict[str, tuple[str, ...]] = {"arpg": ARPG, "randar": RANDAR, "control": CONTROL}  # by architecture
DENSE: dict[str, tuple[str, ...]] = {  # of the attentive probe
    "arpg": ("raster/full/query/L-1/none/mean", "raster/after/query/L-1/none/mean"),
    "randar": ("raster/full/query/L-1/none/mean", "raster/full/token/L0.5/none/mean"),
    "control": ("raster/full/token/L0.67/none/mean", "raster/full/token/L-1/none/mean"),
}
Read = Callable[[np.ndarray], np.ndarray]  # images uint8 (n, 28, 28) -> float32 (n, d), or maps (n, D, h, w)


class NetworkReader(Reader):
    """Features of a network.

    encode: turns images (n, 1, 28, 28) from 0 to 1 into its inputs (n, ...). stride: pixels a side of a position.
    family: of its lists of variants. key: names weights and inputs.
    """

    def __init__(
        self, network: Generator, encode: Callable[[Tensor], Tensor], stride: int, family: str, key: str
    ) -> None:
        self.network = packed.inference_copy(network) if packed.can_prepack(network) else network
        self.encode, self.stride, self.key = encode, stride, key
        self.variants, self.dense = SPECS[family], DENSE[family]

    @classmethod
    def of_pipeline(cls, model: Pipeline) -> NetworkReader:
        """Return the reader of a generator with its tokenizer."""

        def encode(images: Tensor) -> Tensor:
            return model.tokenizer.encode(images).flatten(1)

        key = fingerprint(model.generator, model.tokenizer)[:12]
        return cls(model.generator, encode, model.tokenizer.stride, name_of(model.generator), key)

    @torch.no_grad()
    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        pictures, found = as_pixels(images), {}
        by_shifts: dict[int, list[str]] = {}
        for variant in variants:
            by_shifts.setdefault(FeatureSpec.parse(variant).shifts, []).append(variant)
        for shifts, names in by_shifts.items():
            if shifts == 1:
                tokens = self.encode(pictures)
            else:
                places = sub_patch_shifts(pictures, self.stride, shifts)
                tokens = self.encode(places.flatten(0, 1)).unflatten(0, (len(images), -1))
            made = readout.read(self.network, tokens.long(), [FeatureSpec.parse(name) for name in names])
            found |= {name: one.numpy() for name, one in zip(names, made, strict=True)}
        return found


class ClassicalReader(Reader):
    """Features that are computed from pixels alone."""

    def __init__(self, reads: Mapping[str, Read], dense: Mapping[str, Read] | None = None) -> None:
        self.reads = {**reads, **(dense or {})}
        self.variants, self.dense = tuple(reads), tuple(dense or {})

    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self.reads[name](images) for name in variants}


class PrincipalComponents(Reader):
    """First components of pixels, fitted to images without labels."""

    def __init__(self, images: np.ndarray, counts: Sequence[int] = (64, 128, 256)) -> None:
        self.images, self.counts = images, {f"{count} components": count for count in counts}
        self.variants = tuple(self.counts)

    @cached_property
    def fitted(self) -> PCA:
        """Components of the images, as many as are asked for at most."""
        x = pixels(self.images)
        return PCA(min(max(self.counts.values()), *x.shape), svd_solver="covariance_eigh").fit(x)

    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        made = self.fitted.transform(pixels(images))
        return {name: made[:, : self.counts[name]] for name in variants}


class Counts(Reader):
    """Bag of visual words (`PatchCounts`), in the whole image and in its quarters."""

    variants = ("whole", "quarters")

    def __init__(self, images: np.ndarray, words: int = 256) -> None:
        self.images, self.words = images, words

    @cached_property
    def fitted(self) -> PatchCounts:
        """Words of the images."""
        return PatchCounts(self.words, cells=2).fit(self.images)

    def read(self, images: np.ndarray, variants: Sequence[str]) -> dict[str, np.ndarray]:
        quarters = self.fitted.transform(images)
        made = {"quarters": quarters, "whole": quarters.reshape(len(images), 4, -1).sum(1)}
        return {name: made[name] for name in variants}


def classical(images: np.ndarray) -> dict[str, Callable[[], Reader]]:
    """Return what makes the classical readers, by name. images: uint8 (n, 28, 28), that may be learned from."""
    cells = {f"cells of {cell}": partial(hog, cell=cell) for cell in (3, 4, 7)}
    return {
        "pixels": lambda: ClassicalReader({"pixels": pixels}, {"pixels of cells": partial(pixel_maps, grid=GRID)}),
        "pca": lambda: PrincipalComponents(images),
        "hog": lambda: ClassicalReader(cells, {"HOG of cells": partial(hog_maps, grid=GRID)}),
        "patch_counts": lambda: Counts(images),
        "coates_ng": lambda: KMeansPatches(images),
    }
