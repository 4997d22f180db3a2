"""Linear segmentation: one linear classifier for all positions of dense features, scored on pixels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .arrays import two_or_more_classes
from .attentive import Dense, as_dense, dense_blocks, read_dense
from .heads import Recipe, Stack, batches

LabelMap: TypeAlias = "str | Path | NDArray[np.integer]"
"""The path of a PNG whose values (or palette entries) are labels, or an array (H, W) of them."""


@dataclass(frozen=True)
class LabelledFolder:
    """Images and their label maps in the same order, and the label that means none."""

    images: list[Path]
    maps: list[Path]
    ignore: int


def label_maps(root: str | Path, split: str) -> LabelledFolder:
    """The images of a `split` that have label maps, in one of two layouts.

    Pascal VOC: `ImageSets/Segmentation/<split>.txt` names them, `JPEGImages/` and `SegmentationClass/` hold them, 255
    is no label. ADE20K (scene parsing): `images/<split>/` and `annotations/<split>/` hold them, 0 is no label.
    """
    root = Path(root)
    if (listed := root / "ImageSets" / "Segmentation" / f"{split}.txt").is_file():
        names, ignore = listed.read_text().split(), 255
        image_folder, map_folder = root / "JPEGImages", root / "SegmentationClass"
    elif (map_folder := root / "annotations" / split).is_dir():
        names, ignore = sorted(path.stem for path in map_folder.glob("*.png")), 0
        image_folder = root / "images" / split
    else:
        raise ValueError(
            f"{root} holds neither {listed.relative_to(root)} nor {map_folder.relative_to(root)}/, "
            "expected Pascal VOC's or ADE20K's layout; name the folder that holds them and its split."
        )
    found = {path.stem: path for path in image_folder.glob("*")}
    maps = [map_folder / f"{name}.png" for name in names]
    missing = [name for name, path in zip(names, maps, strict=True) if name not in found or not path.is_file()]
    if missing or not names:
        raise ValueError(
            f"{len(missing)} of {len(names)} images of {split!r} lack the image or the label map "
            f"(first: {', '.join(missing[:3])}) in {root}; complete the folder."
        )
    return LabelledFolder([found[name] for name in names], maps, ignore)


def read_label_map(path: LabelMap, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """Labels (H, W), resized by nearest neighbour to `size` (height, width) if given."""
    if isinstance(path, (str, Path)):
        with Image.open(path) as opened:
            labels = np.asarray(opened)
    else:
        labels = np.asarray(path)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or 0 in labels.shape or labels.min() < 0:
        raise ValueError(
            f"label map {path if isinstance(path, (str, Path)) else ''} holds {labels.dtype} {labels.shape}, "
            "expected one whole number from 0 per pixel; save labels, not colours."
        )
    if size is not None:  # the pixel under each centre
        (height, width), (old_height, old_width) = size, labels.shape
        rows = (2 * np.arange(height) + 1) * old_height // (2 * height)
        columns = (2 * np.arange(width) + 1) * old_width // (2 * width)
        labels = labels[rows[:, None], columns]
    return labels.astype(np.int64)


def patch_labels(labels: NDArray[np.integer], grid: tuple[int, int], ignore: int) -> NDArray[np.int64]:
    """The most frequent label of the pixels of each patch, (h, w) of labels (H, W); -1 where all pixels are ignored.

    Of equally frequent labels the lowest.
    """
    (height, width), (h, w) = labels.shape, grid
    values, codes = np.unique(labels, return_inverse=True)
    patch = (np.arange(height) * h // height)[:, None] * w + np.arange(width) * w // width
    cells = patch * len(values) + codes.reshape(labels.shape)
    counts = np.bincount(cells.ravel(), minlength=h * w * len(values)).reshape(h, w, len(values))
    counts[:, :, values == ignore] = 0
    return np.where(counts.any(axis=2), values.astype(np.int64)[counts.argmax(axis=2)], -1)


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
        recipe: Recipe,
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
        """A label map (H, W) of each image, at its height and width in `sizes`."""
        for logits, size in zip(self.logits(x), sizes, strict=True):
            yield self._upsampled(logits, size)

    def evaluate(self, x: Dense, maps: Sequence[LabelMap]) -> Segmentation:
        """Counts over all labelled pixels. A class that training did not show is never right."""
        _matched(x, maps)
        pairs: Counter[tuple[int, int]] = Counter()
        for logits, path in zip(self.logits(x), maps, strict=True):
            truth = read_label_map(path, self.size)
            found = self._upsampled(logits, truth.shape)
            scored = truth != self.ignore
            both, counts = np.unique((truth[scored] << 32) + found[scored], return_counts=True)
            pairs.update({(int(b >> 32), int(b % (1 << 32))): int(c) for b, c in zip(both, counts, strict=True)})
        if not pairs:
            raise ValueError(f"all pixels are labelled {self.ignore}, which means none; give maps with labels.")
        classes = np.unique(np.array(list(pairs)))
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        for pair, count in pairs.items():
            confusion[tuple(np.searchsorted(classes, pair))] = count
        return Segmentation(classes, confusion)

    def _upsampled(self, logits: Tensor, size: tuple[int, ...]) -> NDArray[Any]:
        large = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return self.classes_[large[0].argmax(0).cpu().numpy()]


def _matched(x: Dense, maps: Sequence[LabelMap]) -> list[NDArray[np.floating]]:
    layers = as_dense(x)
    if len(maps) != len(layers[0]):
        raise ValueError(f"there are {len(maps)} label maps for {len(layers[0])} images; give one for each.")
    return layers
