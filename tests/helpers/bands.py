"""Folders of images of any number of channels and any type: multi-page TIFFs and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile


def bands(size: int, channels: int = 4, dtype: type = np.uint16, seed: int = 0) -> np.ndarray:
    """Return a smooth image (size, size, channels): waves, another for each channel, over most of the type's range.

    Floats lie in [0, 1].
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size][..., None] / size
    frequency, phase = rng.uniform(1, 6, (2, channels)), rng.uniform(0, 6.3, channels)
    wave = 0.5 + 0.4 * np.sin(frequency[0] * x + frequency[1] * y + phase) + rng.uniform(-0.05, 0.05, (1, 1, channels))
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (wave * top).astype(dtype)


def write_values(path: Path, values: np.ndarray) -> Path:
    """Write an image (H, W, C): as a TIFF whose pages are its channels, or a .npy, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        pages = np.moveaxis(values, -1, 0)
        tifffile.imwrite(path, pages if len(pages) > 1 else pages[0], photometric="minisblack")
    return path


def write_bands(
    folder: str | Path,
    count: int,
    size: int,
    channels: int = 4,
    dtype: type = np.uint16,
    seed: int = 0,
    suffix: str = ".tiff",
) -> Path:
    """Write `count` images of `bands`, in class folders `a` and `b` in turn, and return the folder."""
    for number in range(count):
        values = bands(size, channels, dtype, seed * 100_003 + number)
        write_values(Path(folder, "ab"[number % 2], f"{number:04d}{suffix}"), values)
    return Path(folder)
