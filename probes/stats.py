"""Statistics of scores: bootstrap intervals, paired differences, and families of claims."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 22  # images per block of resamples whose groups are drawn together
_AT_ONCE = 1 << 16  # images of a block that are drawn together: they fit into a CPU's caches


@dataclass(frozen=True)
class Interval:
    """Mean `value` over `n` images and the ends `low` <= `value` <= `high` of its interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Difference(Interval):
    """Mean difference, its interval, and the two-sided p-value of no difference.

    With 2 / (1 - level) draws or more, p is at most 1 - level exactly if the interval of that level excludes zero.
    """

    p: float


@dataclass(frozen=True)
class Spread:
    """Mean of `runs` numbers, one per seed or order, and their sample std (None for a single run)."""

    mean: float
    std: float | None
    runs: int


@dataclass(frozen=True)
class Claim:
    """Claim of a family: its own p-value, the p-value adjusted for the family, and whether it holds."""

    p: float
    adjusted: float
    holds: bool


Groups = ArrayLike | Mapping[str, ArrayLike] | None
"""Group of each image (n,), or several named groupings from the outermost in: {"typeface": ..., "writer": ...}."""


def bootstrap(
    scores: ArrayLike, groups: Groups = None, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of per-image `scores` (n,), or of several runs (seeds, n), with a percentile bootstrap interval
    (Efron 1979).

    Drawn with replacement, from the outside in:

    - seeds, if there are several: one fewer than there are, so that their variance is unbiased (Rao & Wu 1988).
      The same images are drawn for all, because all were scored on the same ones (Owen 2007, arXiv 0712.1111).
    - groups, such as the folder or the photographer of an image, and groups inside each drawn group.
    - images inside each drawn group (Davison & Hinkley 1997, section 3.8). This counts the spread inside a group twice,
      so the interval errs on the wide side.

    The same `groups`, `draws` and `seed` draw the same images for any scores, which is what `paired` needs. The
    interval is stretched to hold `value` if rounding, or very unequal groups, would leave it out.
    """
    values, means = _resample(scores, groups, draws, seed, level)
    return Interval(*_ends(values, means, level))


def paired(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Return the mean of `scores_a - scores_b` over the same images, resampled as in `bootstrap`.

    Each is (n,) or (seeds, n): run i of one is compared with run i of the other, a single run with every run.
    """
    a, b = _same_images(scores_a, scores_b)
    values, means = _resample(a - b, groups, draws, seed, level)
    value, low, high, n = _ends(values, means, level)
    return Difference(value, low, high, n, p=_p_value(value, means))


def ratio(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: Groups = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Return the mean of `scores_a` divided by that of `scores_b` over the same images, with its interval.

    Each is (n,) or (seeds, n), and the same images are drawn for both. None where the mean of `scores_b` is 0, or that
    of a resample: then there is no interval.
    """
    a, b = np.broadcast_arrays(*_same_images(scores_a, scores_b))
    over, tops = _resample(a, groups, draws, seed, level)
    under, bottoms = _resample(b, groups, draws, seed, level)
    if under.mean() == 0 or not bottoms.all():
        return None
    value = float(over.mean() / under.mean())
    return Interval(value, *_percentiles(value, tops / bottoms, level), over.shape[1])


def spread(runs: ArrayLike) -> Spread:
    """Return the mean and sample std of one number per run (runs,): over seeds, or over orders."""
    values = np.asarray(runs, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"runs have shape {values.shape}, expected one number per run; average over images first.")
    _check_finite(values)
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(float(values.mean()), std, len(values))


def holm(p_values: Mapping[str, float], level: float = 0.95) -> dict[str, Claim]:
    """Return the claims, corrected so that the chance that any false one holds is at most 1 - level (Holm 1979).

    p_values: by claim. The lowest p of a bootstrap is 2 / (draws + 1), so at level 0.95 a family of m claims needs 40 m
    draws or more for any to hold.
    """
    p = np.array(list(p_values.values()), dtype=np.float64)
    if len(p) == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values are {dict(p_values)}, expected one or more numbers from 0 to 1.")
    _check_level(level)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    holds = adjusted <= 1 - level + _ROUNDING
    return {
        name: Claim(float(raw), float(corrected), bool(kept))
        for name, raw, corrected, kept in zip(p_values, p, adjusted, holds, strict=True)
    }


_ROUNDING = 1e-9  # in floating point 1 - 0.95 is slightly more than 0.05


def _resample(
    scores: ArrayLike, groups: Groups, draws: int, seed: int, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return checked scores (seeds, n), and the means (draws,) of resamples of them."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(
            f"scores have shape {values.shape}, expected one number per image, (n,) or (seeds, n); "
            "average other repetitions first."
        )
    _check_finite(values)
    _check_level(level)
    if draws < 1:
        raise ValueError(f"draws={draws}: expected one or more.")
    values = np.atleast_2d(values)
    order, sizes = _levels(groups, values.shape[1])
    rng = np.random.default_rng(seed)
    means = []
    for done in range(0, draws, block := max(1, _BLOCK // values.shape[1])):
        means.append(_resampled_means(values[:, order], sizes, min(block, draws - done), rng))
    return values, np.concatenate(means)


def _same_images(scores_a: ArrayLike, scores_b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores of the same images, (n,) or (seeds, n); a ValueError where they cannot be."""
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    runs = {len(x) for x in (a, b) if x.ndim == 2} - {1}
    if a.shape[-1:] != b.shape[-1:] or len(runs) > 1:
        raise ValueError(
            f"scores have shapes {a.shape} and {b.shape}; score both features on the same images, with as many seeds."
        )
    return a, b


def _check_finite(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("scores hold NaN or infinity, expected finite numbers; leave unscored images out.")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a number between 0 and 1, such as 0.95.")


def _levels(groups: Groups, n: int) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Return the rows (n,) sorted by group, and for each level the number of members of each of its groups.

    The first level is a single group whose members are the outermost groups; the members of the last are images.
    """
    named = {} if groups is None else groups if isinstance(groups, Mapping) else {"groups": groups}
    path = np.zeros(n, dtype=np.intp)  # innermost group of each image so far
    sizes = []
    for name, labels in named.items():
        ids = np.asarray(labels)
        if ids.shape != (n,):
            raise ValueError(f"{name} have shape {ids.shape}, expected ({n},); give one group per score.")
        _, codes = np.unique(ids, return_inverse=True)
        if codes.max() == 0:
            raise ValueError(f"{name} are all the same, expected two or more to resample; leave them out.")
        inner, path = np.unique(path * n + codes, return_inverse=True)
        sizes.append(np.bincount(inner // n))
    sizes.append(np.bincount(path))
    return np.argsort(path, kind="stable"), sizes


def _resampled_means(
    values: NDArray[np.float64], sizes: list[NDArray[np.intp]], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the means (draws,) of resamples of `values` (seeds, n), whose images lie group after group."""
    *outer, images = sizes
    drawn = np.zeros(draws, dtype=np.intp)  # drawn members of a level, one resample after the other
    counts = np.ones(draws, dtype=np.intp)  # drawn members per resample
    for members in outer:
        drawn, counts = _members(members, drawn, rng), np.add.reduceat(members[drawn], _starts(counts))
    each = np.add.reduceat(images[drawn], _starts(counts))  # images per resample, which differ because groups do
    sums = np.empty((len(values), draws))
    for groups, some in _cut(drawn, counts, max(1, _AT_ONCE // values.shape[1])):
        picked = _members(images, groups, rng)
        starts = _starts(each[some])
        sums[:, some] = [np.add.reduceat(run[picked], starts) for run in values]
    if (seeds := len(values)) == 1:
        return sums[0] / each
    times = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws)
    return (times.T * sums).sum(0) / (
        (seeds - 1) * each
    )  # sums first: means of scores of 0 and 1 never exceed 1 by rounding


def _members(members: NDArray[np.intp], groups: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw from each of `groups` as many members as it has, with replacement. members: size of every group."""
    size = members[groups]
    each = np.repeat(size, size)
    return np.repeat(_starts(members)[groups], size) + (rng.random(len(each)) * each).astype(np.intp)


def _starts(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the start of each of several runs of these lengths that lie one after the other."""
    return np.cumsum(counts) - counts


def _cut(drawn: NDArray[np.intp], counts: NDArray[np.intp], few: int) -> Iterator[tuple[NDArray[np.intp], slice]]:
    """Yield the groups of `few` resamples at a time, with the slice of these resamples."""
    ends = np.cumsum(counts)
    for first in range(0, len(counts), few):
        last = min(first + few, len(counts))
        yield drawn[ends[first] - counts[first] : ends[last - 1]], slice(first, last)


def _ends(values: NDArray[np.float64], means: NDArray[np.float64], level: float) -> tuple[float, float, float, int]:
    """Return mean, low, high and number of images."""
    value = float(values.mean())
    return value, *_percentiles(value, means, level), values.shape[1]


def _percentiles(value: float, means: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the ends of an interval around `value`: the order statistics that agree with `_p_value`."""
    ranked = np.sort(means)
    outside = max(1, int((len(means) + 1) * (1 - level) / 2 + _ROUNDING))  # resamples at or beyond each end
    return min(float(ranked[outside - 1]), value), max(float(ranked[-outside]), value)


def _p_value(value: float, means: NDArray[np.float64]) -> float:
    """Return twice the share of resamples at or beyond zero, seen from `value`, which counts as one of them."""
    if value == 0:
        return 1.0
    beyond = (means <= 0).sum() if value > 0 else (means >= 0).sum()
    return min(1.0, 2 * (float(beyond) + 1) / (len(means) + 1))
