"""Images with a label for each pixel: layouts of folders, label maps and the labels of patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LabelMap: TypeAlias = "str | Path | NDArray[np.integer]"
"""The path of a PNG whose values (or palette entries) are labels, or an array (H, W) of them."""


@dataclass(frozen=True)
class LabelledFolder:
    """Images and their label maps in the same order, and the label that means none."""

    images: list[Path]
    maps: list[Path]
    ignore: int


def label_maps(root: str | Path, split: str) -> LabelledFolder:
    """Return the images of a `split` that have label maps, in one of two layouts.

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
    return _paired(image_folder, map_folder, names, ignore, f"{split!r}", root)


def paired_maps(images: str | Path, maps: str | Path, ignore: int = 255) -> LabelledFolder:
    """Return the images of a folder whose label maps lie in another, as PNG files of the same names; 255 is no label,
    unless `ignore` says otherwise. Images without a map are left aside, a map without an image is an error."""
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
    """Return the most frequent label of the pixels of each patch, (h, w) of labels (H, W); -1 where all pixels are
    ignored.

    Of equally frequent labels the lowest.
    """
    (height, width), (h, w) = labels.shape, grid
    values, codes = np.unique(labels, return_inverse=True)
    patch = (np.arange(height) * h // height)[:, None] * w + np.arange(width) * w // width
    cells = patch * len(values) + codes.reshape(labels.shape)
    counts = np.bincount(cells.ravel(), minlength=h * w * len(values)).reshape(h, w, len(values))
    counts[:, :, values == ignore] = 0
    return np.where(counts.any(axis=2), values.astype(np.int64)[counts.argmax(axis=2)], -1)
