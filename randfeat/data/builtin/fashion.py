"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747): pictures of articles of Zalando, under MIT licence.

60,000 grey images of 28 x 28 pixels for training and 10,000 for test, of ten classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...utils import atomic, progress
from ..decode import UnreadableImage
from ..sources import idx
from .base import FORMAT, SETTINGS, BuiltinDataset, is_made

PACKAGE = "/usr/share/datasets/fashion-mnist"  # of Debian's dataset-fashion-mnist
PART = Path(__file__).parent / "fashion_part"  # the images that the package holds
HUB, HUB_NAME = "hub", "zalando-datasets/fashion_mnist"
IMAGES = {  # SHA-256 of its files of images, decompressed
    "train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
}
FILES = {"train": "train", "test": "t10k"}  # beginnings of the files' names
ABOUT = """# Fashion-MNIST

60,000 + 10,000 grey images of 28 x 28 pixels, of ten classes, by Zalando Research:
https://github.com/zalandoresearch/fashion-mnist (Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747).

{files} The licence of the images is MIT:

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def make_fashion(folder: str | Path | None = None, seed: int = 0, split_seed: None = None) -> BuiltinDataset:
    """Return the 60,000 training images, then the 10,000 test images, in the order of their files.

    Nothing is known of what images have in common, so each is a group of its own.
    folder: with its four IDX files, compressed or not; by default that of Debian's package dataset-fashion-mnist; "hub"
    downloads a copy from the Hugging Face hub. seed: has no effect, nothing is drawn. split_seed: None, since the split
    is that of the authors.

    Raises a FileNotFoundError where there is none, and a ValueError where the images or labels are not those that
    Zalando published.
    """
    if split_seed is not None:
        raise ValueError("Fashion-MNIST has test images of its own, so it is not split again: leave split_seed out")
    read = _from_hub if folder == HUB else _from_files
    splits = {split: read(split, PACKAGE if folder is None else str(folder)) for split in FILES}
    for split, (images, labels) in splits.items():
        for digest, values, what in ((IMAGES, images, "images"), (idx.FASHION_LABELS, labels, "labels")):
            if idx.digest(values) != digest[split]:
                raise ValueError(
                    f"the {split} {what} of {folder or PACKAGE} are not Fashion-MNIST's: expected what Zalando "
                    "published, name a folder that holds it (--from)"
                )
    return _dataset(splits)


def load_fashion_part() -> BuiltinDataset:
    """Return the part of Fashion-MNIST that the package holds: the first 3,000 training images, then the first 2,000
    test images, in the order of Zalando's files.

    They are in the folder PART, four IDX files that every command reads, with their licence. Raises a FileNotFoundError
    where this installation of randfeat lacks them.
    """
    try:
        return _dataset({split: _from_files(split, str(PART)) for split in FILES})
    except FileNotFoundError:
        raise FileNotFoundError(
            f"this installation of randfeat is without the images of {PART}: install it again from a wheel"
        ) from None


def write_fashion(made: BuiltinDataset, folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the set as four IDX files, which every command reads and maps, with its licence, and made.json.

    70,000 PNG files would take minutes and as much room. The folder appears when it is complete. One of the same
    settings is left as it is; raises as `is_made`.
    """
    if is_made(folder, settings):
        return
    with atomic.replace_directory(Path(folder), lambda _: False) as whole:
        for split, begin in FILES.items():
            rows = made.test == (split == "test")
            idx.write_idx(whole / f"{begin}-images-idx3-ubyte", made.images[rows])
            idx.write_idx(whole / f"{begin}-labels-idx1-ubyte", made.labels[rows].astype(np.uint8))
        about = ABOUT.format(files="The four IDX files are those that it publishes, decompressed.")
        (whole / "README.md").write_text(about, encoding="utf-8")
        atomic.write_json(whole / SETTINGS, {"format": FORMAT, **settings})


def _from_files(split: str, folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a split in a folder of IDX files: uint8 (n, 28, 28) and (n,)."""
    parts = idx.find_parts(Path(folder))
    part = parts.get(split)
    if part is None or part.labels is None:
        raise FileNotFoundError(
            f"there is no Fashion-MNIST in {folder}: install Debian's package (apt-get install dataset-fashion-mnist), "
            "or name a folder of its four IDX files, or hub, which downloads it (--from)"
        )
    return idx.read_idx(part.images, "images"), idx.read_idx(part.labels, "labels")


def _from_hub(split: str, _: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a split of the hub's copy: uint8 (n, 28, 28) and (n,)."""
    from ..sources.huggingface import open_hub

    source = open_hub(HUB_NAME, split)
    images = []
    with progress.bar(len(source), f"reading {split}", "image") as bar:
        for row, path in enumerate(source.paths):
            try:
                images.append(np.asarray(source.read(row)))
            except UnreadableImage as error:
                raise ValueError(f"{path} of {HUB_NAME} cannot be read ({error}): download it again") from None
            bar.update()
    if len({image.shape for image in images}) > 1 or source.labels is None or None in source.labels:
        raise ValueError(f"{HUB_NAME} is not Fashion-MNIST: expected images of one size, each with a label")
    return np.stack(images), np.array(source.labels, np.uint8)


def _dataset(splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> BuiltinDataset:
    """Return the set of the images and labels of each split."""
    counts = [len(labels) for _, labels in splits.values()]
    return BuiltinDataset(
        np.concatenate([images for images, _ in splits.values()]),
        np.concatenate([labels for _, labels in splits.values()]).astype(np.int64),
        np.arange(sum(counts)),
        np.repeat([False, True], counts),
        idx.FASHION,
        "image",
        tuple(f"{split}/{row:05}" for split, count in zip(splits, counts, strict=True) for row in range(count)),
    )
