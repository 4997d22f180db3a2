"""A number, its 95 % interval and how many images it rests on."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 22  # images resampled at once: about 100 MB of temporaries


@dataclass(frozen=True)
class Interval:
    """The mean `value` of `n` images and the ends `low` <= `value` <= `high` of its interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def bootstrap(
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of per-image `scores` (n,) with a percentile bootstrap interval (Efron 1979).

    With `groups` (n,), such as the folder or the photographer of an image, whole groups are drawn with
    replacement and then images inside each drawn group (Davison & Hinkley 1997, section 3.8). This counts the
    spread inside a group twice, so it errs to the wide side. The same `groups`, `draws` and `seed` draw the
    same images for any scores, which is what `paired` needs.

    The interval is stretched to hold `value` where rounding, or very unequal groups, would leave it out.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"scores have shape {values.shape}, expected one number per image; average repetitions first.")
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinity, expected finite numbers; leave unscored images out.")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws={draws}, level={level}: expected draws >= 1 and a level between 0 and 1.")
    members, sizes = _by_group(groups, len(values))
    mean = float(values.mean())
    means = _resampled_means(values[members], sizes, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(values))


def paired(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of `scores_a - scores_b`, both (n,) over the same images, resampled as in `bootstrap`."""
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"scores have shapes {a.shape} and {b.shape}; score both features on the same images.")
    return bootstrap(a - b, groups, draws, seed, level)


def _by_group(groups: ArrayLike | None, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Image numbers (n,) sorted by group, and the sizes of groups. No groups is one group of everything."""
    if groups is None:
        return np.arange(n), np.array([n])
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise ValueError(f"groups have shape {ids.shape}, expected ({n},); give one group per score.")
    _, codes, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        raise ValueError("groups are all the same, expected two or more to resample; leave groups out.")
    return np.argsort(codes, kind="stable"), sizes


def _resampled_means(
    values: NDArray[np.float64], sizes: NDArray[np.intp], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means (draws,) of resamples of `values` (n,), which lie group after group."""
    starts = np.cumsum(sizes) - sizes
    means = []
    for done in range(0, draws, block := max(1, _BLOCK // len(values))):
        rows = min(block, draws - done)
        drawn = rng.integers(len(sizes), size=(rows, len(sizes)))
        n = sizes[drawn].sum(axis=1)  # groups differ in size, and so do resamples
        size = np.repeat(sizes[drawn], sizes[drawn].ravel())
        start = np.repeat(starts[drawn], sizes[drawn].ravel())
        images = start + (rng.random(len(size)) * size).astype(np.intp)
        means.append(np.add.reduceat(values[images], np.cumsum(n) - n) / n)
    return np.concatenate(means)
