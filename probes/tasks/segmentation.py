"""Linear segmentation: one linear classifier for all positions of dense features, scored on pixels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ..arrays import two_or_more_classes
from ..classifiers.attentive import Dense, as_dense, dense_blocks, read_dense
from ..classifiers.heads import HeadRecipe, Stack, batches
from .labelled_maps import LabelMap, patch_labels, read_label_map


@dataclass(frozen=True)
class Segmentation:
    """Pixels counted by true label (rows) and predicted label (columns) of `classes`."""

    classes: NDArray[np.int64]
    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class; every class is in the truth or in the prediction."""
        both = np.diag(self.confusion)
        return both / (self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - both)

    @property
    def miou(self) -> float:
        """The mean over classes."""
        return float(self.iou.mean())

    @property
    def accuracy(self) -> float:
        """The share of pixels."""
        return float(np.trace(self.confusion) / self.confusion.sum())


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pixels of each of n images by class (n, classes), every class in the truth or in the prediction of some image:
    where both say it, and where either does."""

    classes: NDArray[np.int64]
    both: NDArray[np.int64]
    either: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class, over the pixels of all images."""
        return self.both.sum(axis=0) / self.either.sum(axis=0)

    def scores(self) -> NDArray[np.float64]:
        """What each image adds to mIoU (n,), for `bootstrap` and `paired`: the mean is the mIoU of all images.

        mIoU is no mean over images, so this is its linearisation by the infinitesimal jackknife (Efron 1982, chapter
        6): mIoU and n times the derivative by an image's weight. Single numbers may lie outside of 0..1; their
        resampled means are to first order the mIoU of the resampled images, and a class of few images cannot vanish
        from a resample.
        """
        iou, union = self.iou, self.either.sum(axis=0)
        return iou.mean() + len(self.both) * ((self.both - iou * self.either) / union).mean(axis=1)


class LinearSegmenter(BaseEstimator):
    """A linear classifier of patch features, with BatchNorm before it if the recipe says so.

    It is trained on patches, each of which has the most frequent label of its pixels; patches without a labelled pixel
    are left out. It is scored on pixels: logits are upsampled bilinearly to the label map, then the largest is taken.
    Features have to cover the whole label map: where an image was cropped, crop its label map too.

    recipe: its first learning rate and weight decay; a batch counts images. ignore: the label that means none.
    size: (height, width) to which label maps are resized by nearest neighbour first; by default they stay as they are.
    """

    def __init__(
        self,
        recipe: HeadRecipe,
        ignore: int = 255,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.recipe = recipe
        self.ignore = ignore
        self.size = size
        self.seed = seed
        self.device = device

    def fit(self, x: Dense, maps: Sequence[LabelMap]) -> "LinearSegmenter":
        """Dense features `x` (n, D, h, w), of one layer or the mean of several, and a label map per image."""
        layers = _matched(x, maps)
        _, width, *grid = layers[0].shape
        known = (patch_labels(read_label_map(m, self.size), (grid[0], grid[1]), self.ignore) for m in maps)
        patches = np.stack(list(known))
        if not (patches >= 0).any():
            raise ValueError(f"all pixels are labelled {self.ignore}, which means none; give maps with labels.")
        self.classes_ = two_or_more_classes(patches[patches >= 0])
        labelled = np.flatnonzero((patches >= 0).any(axis=(1, 2)))
        stack = Stack(width, len(self.classes_), self.recipe.only(*self.recipe.pairs[0]), self.seed, self.device)
        steps = self.recipe.steps(len(labelled))
        for step, picked in enumerate(islice(batches(len(labelled), self.recipe.batch, self.seed), steps)):
            rows = labelled[picked]
            labels = patches[rows]
            tokens = read_dense(layers, rows).movedim(1, 3)[torch.from_numpy(labels >= 0)]
            codes = torch.from_numpy(np.searchsorted(self.classes_, labels[labels >= 0]))
            stack.step(tokens.to(self.device), codes.to(self.device), self.recipe.factor(step, len(labelled)))
        self.weight_, self.bias_ = stack.head(0)
        return self

    def logits(self, x: Dense) -> Iterator[Tensor]:
        """Of each image, float32 (1, classes, h, w), one image after the other."""
        check_is_fitted(self)
        weight, bias = (torch.from_numpy(w).float().to(self.device) for w in (self.weight_, self.bias_))
        for image in dense_blocks(as_dense(x), 1):
            yield torch.einsum("bdhw,dc->bchw", image.to(self.device), weight) + bias[:, None, None]

    def predict(self, x: Dense, sizes: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield a label map (H, W) of each image, at its height and width in `sizes`."""
        for logits, size in zip(self.logits(x), sizes, strict=True):
            yield self._upsampled(logits, size)

    def evaluate(self, x: Dense, maps: Sequence[LabelMap]) -> Segmentation:
        """Counts over all labelled pixels. A class that training did not show is never right."""
        pairs = sum(self._pairs(x, maps), Counter())
        classes = _classes(pairs, self.ignore)
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        for pair, count in pairs.items():
            confusion[tuple(np.searchsorted(classes, pair))] = count
        return Segmentation(classes, confusion)

    def overlaps(self, x: Dense, maps: Sequence[LabelMap]) -> Overlaps:
        """Return the same of each image by itself."""
        images = list(self._pairs(x, maps))
        classes = _classes(sum(images, Counter()), self.ignore)
        both, either = np.zeros((2, len(images), len(classes)), dtype=np.int64)
        for row, pairs in enumerate(images):
            for pair, count in pairs.items():
                true, found = np.searchsorted(classes, pair)
                both[row, true] += count * (true == found)
                either[row, list({true, found})] += count
        return Overlaps(classes, both, either)

    def _pairs(self, x: Dense, maps: Sequence[LabelMap]) -> Iterator[Counter[tuple[int, int]]]:
        """Of each image how many labelled pixels have which true and which predicted label."""
        _matched(x, maps)
        for logits, path in zip(self.logits(x), maps, strict=True):
            truth = read_label_map(path, self.size)
            found = self._upsampled(logits, truth.shape)
            scored = truth != self.ignore
            both, counts = np.unique((truth[scored] << 32) + found[scored], return_counts=True)
            yield Counter({(int(b >> 32), int(b % (1 << 32))): int(c) for b, c in zip(both, counts, strict=True)})

    def _upsampled(self, logits: Tensor, size: tuple[int, ...]) -> NDArray[Any]:
        large = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return self.classes_[large[0].argmax(0).cpu().numpy()]


def _matched(x: Dense, maps: Sequence[LabelMap]) -> list[NDArray[np.floating]]:
    layers = as_dense(x)
    if len(maps) != len(layers[0]):
        raise ValueError(f"there are {len(maps)} label maps for {len(layers[0])} images; give one for each.")
    return layers


def _classes(pairs: Counter[tuple[int, int]], ignore: int) -> NDArray[np.int64]:
    if not pairs:
        raise ValueError(f"all pixels are labelled {ignore}, which means none; give maps with labels.")
    return np.unique(np.array(list(pairs)))
