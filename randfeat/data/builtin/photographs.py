"""Crops of photographs that packages contain; the class of a crop is the photograph that it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...utils import progress
from ...utils.checks import check_whole_number
from .base import BuiltinDataset

FOLDERS = ("/usr/share/backgrounds", "/usr/share/wallpapers")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
SIDE, SMALLEST = 32, 8  # pixels of a crop's side
TRAIN, TEST = 100, 40  # crops of a picture
STRIPS = 4  # groups in a training half, side by side, so that parts of it can be held out
SMALL, LIKENESS = 16, 0.95  # correlation from which two pictures are one, computed on so many pixels a side
DETAIL = 0.02  # mean difference of neighbours, in 0..1, below which a picture of 256 pixels is a mere gradient


def make_photographs(
    seed: int = 0, split_seed: int | None = None, folders: Iterable[str | Path] | None = None, size: int = SIDE
) -> BuiltinDataset:
    """Return crops of size x size pixels, in colour, of pictures whose shorter side has `shorter_side(size)` pixels.

    100 crops of one half of each picture are for training, 40 of the other half for test. The class is the picture.
    In test a group is a picture, in train a strip of one. folders: searched for pictures, by default those of desktop
    backgrounds; scikit-learn's two photographs and matplotlib's are always added. Copies of a picture count once, flat
    pictures are left out. split_seed: draws the half for test: left, right, upper or lower. seed: of the places.
    """
    check_whole_number("size", size, SMALLEST)
    found = read_pictures(FOLDERS if folders is None else folders, shorter_side(size))
    images: list[np.ndarray] = []
    labels: list[int] = []
    groups: list[int] = []
    test: list[bool] = []
    names: list[str] = []  # of groups
    for label, (_, picture) in enumerate(found):
        rng = np.random.default_rng([seed, label])
        across, first = np.random.default_rng([split_seed or 0, label]).integers(2, size=2)
        turned = picture.swapaxes(0, 1) if across else picture
        halves = np.array_split(turned, 2)
        for half, count in ((halves[1 - first], TRAIN), (halves[first], TEST)):
            rows, columns = rng.integers(np.array(half.shape[:2]) - size + 1, size=(count, 2)).T
            for y, x in zip(rows, columns, strict=True):
                crop = half[y : y + size, x : x + size]
                images.append(crop.swapaxes(0, 1) if across else crop)
            if count == TRAIN:  # a crop belongs to the strip that holds its centre
                strips = (columns + size // 2) * STRIPS // half.shape[1]
                groups += [len(names) + int(strip) for strip in strips]
                names += [f"{label:03} train {strip}" for strip in range(STRIPS)]
            else:
                groups += [len(names)] * count
                names.append(f"{label:03} test")
            labels += [label] * count
            test += [count == TEST] * count
    classes = tuple(f"{label:03} {name}" for label, (name, _) in enumerate(found))
    return BuiltinDataset(
        np.stack(images), np.array(labels), np.array(groups), np.array(test), classes, "part", tuple(names)
    )


def shorter_side(size: int) -> int:
    """Return the pixels of the shorter side of pictures that crops of this size are cut from: 128 + 4 * size.

    256 for crops of 32 and 384 for 64: a larger crop also shows more of its picture. Smaller pictures are left out;
    scikit-learn's have 427 pixels, so they take part in crops of up to 74. At 32 alone a JPEG that its decoder halves
    while it reads, once or more often, comes out as many times smaller, at 128 or 64 pixels: results are published of
    these crops, so they stay as they are.
    """
    return 128 + 4 * size


def read_pictures(folders: Iterable[str | Path], shorter: int = shorter_side(SIDE)) -> list[tuple[str, np.ndarray]]:
    """Return names and pictures without copies, uint8 (H, W, 3), scaled to the shorter side in pixels; sorted by name.

    Flat pictures, and those with fewer pixels, are left out. Raises a ValueError where fewer than two are left.
    """
    paths = sorted(
        {path for folder in [*map(Path, folders), *_brought_along()] for path in _pictures_in(folder)},
        key=lambda path: (path.name, str(path)),
    )
    kept: list[tuple[str, np.ndarray]] = []
    thumbs: list[np.ndarray] = []
    with progress.bar(len(paths), "reading pictures", "file") as bar:
        for path in paths:
            picture = _read(path, shorter)
            bar.update()
            if picture is None or _detail(picture) < DETAIL * shorter_side(SIDE) / shorter:
                continue
            thumb = _thumb(picture)
            if not any(float(thumb @ other) >= LIKENESS for other in thumbs):
                kept.append((path.stem if path.stem[0].isalpha() else path.parents[2].name, picture))
                thumbs.append(thumb)
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} photographs of {shorter} pixels or more on each side found: name folders with some, or "
            "install packages that have them"
        )
    return kept


def _brought_along() -> list[Path]:
    """Return the folders of pictures in scikit-learn and matplotlib."""
    import matplotlib
    import sklearn

    return [
        Path(sklearn.__file__).parent / "datasets" / "images",
        Path(matplotlib.get_data_path()) / "sample_data",
    ]


def _pictures_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()]


def _read(path: Path, shorter: int) -> np.ndarray | None:
    """Return a picture scaled to the shorter side, None where it is too small or cannot be read."""
    try:
        with Image.open(path) as image:
            if min(image.size) < shorter:
                return None
            scale, whole = shorter / min(image.size), image.size
            image.draft("RGB", (2 * shorter, 2 * shorter))
            width, height = image.size if shorter == shorter_side(SIDE) else whole  # see `shorter_side`
            size = (round(width * scale), round(height * scale))
            return np.array(image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _detail(picture: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring pixels, in 0..1."""
    grey = picture.mean(2) / 255
    return float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2)


def _thumb(picture: np.ndarray) -> np.ndarray:
    """Return SMALL x SMALL grey pixels with mean 0 and norm 1, so that products of two are correlations."""
    small = np.array(Image.fromarray(picture).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX), np.float32)
    small = small.ravel() - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)
