"""Linear segmentation: label maps on disk, one linear classifier of all positions, and its record.

The classifier reads dense features; it is scored on pixels, by intersection over union (IoU) and its mean over classes.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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

from ..arrays import two_or_more_classes
from ..classifiers.attentive import Dense, as_dense, dense_blocks, read_dense
from ..classifiers.heads import HeadRecipe, Stack, batches
from ..protocol import Protocol
from ..report.record import Record, made_with
from ..splits import hold_out
from ..stats import Interval, bootstrap

RATES = (0.05, 0.005, 0.5)  # the first is taken where nothing is searched
BATCH, EPOCHS, LEAST_STEPS = 16, 20, 500

LabelMap: TypeAlias = "str | Path | NDArray[np.integer]"
"""Path of a PNG whose values (or palette entries) are labels, or an array (H, W) of them."""


# label maps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledFolder:
    """Images and their label maps in the same order; pixels labelled `ignore` are unlabelled."""

    images: list[Path]
    maps: list[Path]
    ignore: int


def label_maps(root: str | Path, split: str) -> LabelledFolder:
    """Return the images of a `split` that have label maps, from one of two layouts.

    Pascal VOC: `ImageSets/Segmentation/<split>.txt` names them, `JPEGImages/` and `SegmentationClass/` hold them, 255
    is unlabelled. ADE20K (scene parsing): `images/<split>/` and `annotations/<split>/` hold them, 0 is unlabelled.
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
    return _paired(image_folder, map_folder, names, ignore, f"{split!r}", root)


def paired_maps(images: str | Path, maps: str | Path, ignore: int = 255) -> LabelledFolder:
    """Return the images of a folder whose label maps lie in another folder, as PNG files of the same names.

    Pixels labelled `ignore` are unlabelled. Images without a map are left out; a map without an image is a ValueError.
    """
    image_folder, map_folder = Path(images), Path(maps)
    names = sorted(path.stem for path in map_folder.glob("*.png"))
    if not names:
        raise ValueError(f"there are no label maps {map_folder}/*.png; name the folder that holds them.")
    return _paired(image_folder, map_folder, names, ignore, str(map_folder), image_folder)


def _paired(images: Path, maps: Path, names: Sequence[str], ignore: int, what: str, where: Path) -> LabelledFolder:
    found = {path.stem: path for path in sorted(images.glob("*"))}
    files = [maps / f"{name}.png" for name in names]
    missing = [name for name, path in zip(names, files, strict=True) if name not in found or not path.is_file()]
    if missing or not names:
        raise ValueError(
            f"{len(missing)} of {len(names)} images of {what} lack the image or the label map "
            f"(first: {', '.join(missing[:3])}) in {where}; complete the folder."
        )
    return LabelledFolder([found[name] for name in names], files, ignore)


def read_label_map(path: LabelMap, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """Return labels (H, W), resized by nearest neighbour to `size` (height, width) if given."""
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
    """Return the most frequent label of the pixels of each patch, (h, w) of labels (H, W).

    The lowest of equally frequent labels is taken; a patch whose pixels are all unlabelled gets -1.
    """
    (height, width), (h, w) = labels.shape, grid
    values, codes = np.unique(labels, return_inverse=True)
    patch = (np.arange(height) * h // height)[:, None] * w + np.arange(width) * w // width
    cells = patch * len(values) + codes.reshape(labels.shape)
    counts = np.bincount(cells.ravel(), minlength=h * w * len(values)).reshape(h, w, len(values))
    counts[:, :, values == ignore] = 0
    return np.where(counts.any(axis=2), values.astype(np.int64)[counts.argmax(axis=2)], -1)


# the classifier -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segmentation:
    """Confusion matrix of pixels: true label (rows) by predicted label (columns) of `classes`."""

    classes: NDArray[np.int64]
    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each class (classes,); every class occurs in the truth or in the prediction."""
        both = np.diag(self.confusion)
        return both / (self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - both)

    @property
    def miou(self) -> float:
        """Mean IoU over classes."""
        return float(self.iou.mean())

    @property
    def accuracy(self) -> float:
        """Share of pixels that are labelled right."""
        return float(np.trace(self.confusion) / self.confusion.sum())


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pixel counts (n, classes) by image and class: intersection (`both`) and union (`either`) of truth and prediction.

    Every class occurs in the truth or in the prediction of some image.
    """

    classes: NDArray[np.int64]
    both: NDArray[np.int64]
    either: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each class (classes,), over the pixels of all images."""
        return self.both.sum(axis=0) / self.either.sum(axis=0)

    def scores(self) -> NDArray[np.float64]:
        """Return each image's contribution to mIoU (n,), for `bootstrap` and `paired`: their mean is the mIoU.

        mIoU is no mean over images, so this is its linearisation by the infinitesimal jackknife (Efron 1982, chapter
        6): mIoU plus n times the derivative by an image's weight. Single numbers may lie outside 0..1; their resampled
        means are to first order the mIoU of the resampled images, and a rare class cannot vanish from a resample.
        """
        iou, union = self.iou, self.either.sum(axis=0)
        return iou.mean() + len(self.both) * ((self.both - iou * self.either) / union).mean(axis=1)


class LinearSegmenter(BaseEstimator):
    """Linear classifier of patch features, after BatchNorm if the recipe has it.

    It is trained on patches, each with the most frequent label of its pixels; patches without a labelled pixel are left
    out. It is scored on pixels: logits are upsampled bilinearly to the label map, then the largest is taken. Features
    must cover the whole label map: if an image was cropped, crop its label map too.

    recipe: its first learning rate and weight decay are used; a batch counts images. ignore: the label of unlabelled
    pixels. size: (height, width) to which label maps are resized by nearest neighbour first; None leaves them.
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
        """Fit dense features `x` (n, D, h, w), of one layer or the mean of several, and a label map per image."""
        layers = _layers_of(x, maps)
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
        """Yield the logits of one image after the other, float32 (1, classes, h, w)."""
        check_is_fitted(self)
        weight, bias = (torch.from_numpy(w).float().to(self.device) for w in (self.weight_, self.bias_))
        for image in dense_blocks(as_dense(x), 1):
            yield torch.einsum("bdhw,dc->bchw", image.to(self.device), weight) + bias[:, None, None]

    def predict(self, x: Dense, sizes: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield a label map (H, W) of each image, at its height and width in `sizes`."""
        for logits, size in zip(self.logits(x), sizes, strict=True):
            yield self._upsampled(logits, size)

    def evaluate(self, x: Dense, maps: Sequence[LabelMap]) -> Segmentation:
        """Return counts over all labelled pixels. A class that training did not show is never right."""
        pairs = sum(self._pairs(x, maps), Counter())
        classes = _classes(pairs, self.ignore)
        confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
        for pair, count in pairs.items():
            confusion[tuple(np.searchsorted(classes, pair))] = count
        return Segmentation(classes, confusion)

    def overlaps(self, x: Dense, maps: Sequence[LabelMap]) -> Overlaps:
        """Return the counts of `evaluate` for each image."""
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
        """Yield the number of labelled pixels of an image by (true, predicted) label, one image after the other."""
        _layers_of(x, maps)
        for logits, path in zip(self.logits(x), maps, strict=True):
            truth = read_label_map(path, self.size)
            found = self._upsampled(logits, truth.shape)
            scored = truth != self.ignore
            both, counts = np.unique((truth[scored] << 32) + found[scored], return_counts=True)
            yield Counter({(int(b >> 32), int(b % (1 << 32))): int(c) for b, c in zip(both, counts, strict=True)})

    def _upsampled(self, logits: Tensor, size: tuple[int, ...]) -> NDArray[Any]:
        large = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return self.classes_[large[0].argmax(0).cpu().numpy()]


def _layers_of(x: Dense, maps: Sequence[LabelMap]) -> list[NDArray[np.floating]]:
    layers = as_dense(x)
    if len(maps) != len(layers[0]):
        raise ValueError(f"there are {len(maps)} label maps for {len(layers[0])} images; give one for each.")
    return layers


def _classes(pairs: Counter[tuple[int, int]], ignore: int) -> NDArray[np.int64]:
    if not pairs:
        raise ValueError(f"all pixels are labelled {ignore}, which means none; give maps with labels.")
    return np.unique(np.array(list(pairs)))


# the record -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """Dense features and label maps of a split.

    features: by feature spec, (n, D, h, w). maps: n label maps, read when they are needed, of the part of the picture
    that the features cover. paths: n names of the images.
    """

    features: Mapping[str, NDArray[np.floating]]
    maps: Sequence[LabelMap]
    paths: Sequence[str]


def evaluate_segmentation(
    name: str,
    train: SegmentationData,
    test: SegmentationData,
    ignore: int,
    how: Protocol = Protocol(),  # noqa: B008  immutable
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> Record:
    """Return the record of "segmentation": mIoU over all labelled pixels of test, and the IoU of each class.

    A linear layer on batch-normalised features is trained by AdamW in batches of 16 images for 20 epochs, or as many as
    make 500 steps. Feature spec and learning rate are chosen on held-out images of train, test is scored once; the
    interval is that of `Overlaps.scores`. ignore: the label of unlabelled pixels. settings, fingerprints: as in
    `Record`. Arrays "both" and "either" (n, classes) hold the pixel counts of `Overlaps`.
    """
    start = time.perf_counter()
    recipe = recipe_for(len(train.maps))
    candidates = [(spec, rate) for spec in train.features for rate in RATES[: None if how.search else 1]]
    scores: dict[str, float] = {}
    if len(candidates) > 1:
        held = hold_out(np.zeros(len(train.maps), dtype=int), None, how.held_out, how.seed)
        fit, left = np.flatnonzero(~held), np.flatnonzero(held)
        for spec, rate in candidates:
            x = train.features[spec]
            segmenter = _segmenter(recipe, rate, ignore, how).fit(x[fit], _MapRows(train.maps, fit))
            scores[_candidate(spec, rate)] = segmenter.evaluate(x[left], _MapRows(train.maps, left)).miou
    spec, rate = max(candidates, key=lambda one: scores.get(_candidate(*one), 0))  # the first of equals
    segmenter = _segmenter(recipe, rate, ignore, how).fit(train.features[spec], train.maps)
    found = segmenter.overlaps(test.features[spec], test.maps)
    right = found.scores()
    return Record(
        name,
        "segmentation",
        {"mIoU": _within(bootstrap(right, None, how.draws, how.seed))},
        _candidate(spec, rate),
        scores,
        {str(label): float(iou) for label, iou in zip(found.classes, found.iou, strict=True)},
        {**how.as_dict(), "recipe": asdict(recipe.only(rate, 0.0)), "ignore": ignore}
        | {"train images": len(train.maps), "test images": len(test.maps), **(settings or {})},
        dict(fingerprints or {}),
        made_with(),
        time.perf_counter() - start,
        {"paths": np.array(test.paths), "right": right, "both": found.both, "either": found.either},
    )


def recipe_for(images: int) -> HeadRecipe:
    """Return the recipe that trains the linear layer on so many images, with all learning rates."""
    a_step = max(1, images // BATCH)
    return HeadRecipe("adamw", RATES, batch=BATCH, epochs=max(EPOCHS, math.ceil(LEAST_STEPS / a_step)), batch_norm=True)


class _MapRows(Sequence[LabelMap]):
    """Rows of a sequence of label maps, which are read when they are needed."""

    def __init__(self, maps: Sequence[LabelMap], rows: NDArray[np.intp]) -> None:
        self.maps, self.rows = maps, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self.maps[self.rows[i]]


def _segmenter(recipe: HeadRecipe, rate: float, ignore: int, how: Protocol) -> LinearSegmenter:
    return LinearSegmenter(recipe.only(rate, 0.0), ignore, seed=how.seed, device=how.device)


def _candidate(spec: str, rate: float) -> str:
    return f"{spec}/lr={rate:g}"


def _within(score: Interval) -> Interval:
    """Clip an interval of mIoU to 0..1, which its linearisation may leave."""
    return replace(score, low=max(0.0, score.low), high=min(1.0, score.high))
