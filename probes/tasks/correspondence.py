"""Semantic correspondence: is the nearest neighbour of a point's feature the same point of another object?

PCK@alpha is the share of points matched less than alpha * max(height, width) of the target's box from where they should
be. Points are (x, y) in pixels of the picture as it is on disk, whatever it was resized to.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .matching import Map, match
from .placements import Placement, Size, stretched

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Pair:
    """Two pictures of one category, the same points (p, 2) in both, the objects' boxes and the pictures' sizes."""

    source: Path
    target: Path
    category: str
    source_points: NDArray[np.float64]
    target_points: NDArray[np.float64]
    source_box: Box
    target_box: Box
    source_size: Size
    target_size: Size


@dataclass(frozen=True, eq=False)
class Matches:
    """Of the p points of a pair those inside both inputs, bool (p,); where each of these q was found in the target, in
    its pixels (q, 2), and how far that is from where it should be, as a share of the longer side of the target's box
    (q,)."""

    inside: NDArray[np.bool_]
    found: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PCK:
    """What was found in n pairs.

    categories (n,); points (n,) inside both inputs; lost (n,), the points that were cropped out of one; found (n,
    alphas), how many points were matched within each alpha.
    """

    alphas: tuple[float, ...]
    categories: NDArray[np.str_]
    points: NDArray[np.intp]
    lost: NDArray[np.intp]
    found: NDArray[np.intp]

    def per_point(self, category: str | None = None) -> NDArray[np.float64]:
        """PCK (alphas,) in which every point counts alike."""
        rows = self._rows(category)
        return self.found[rows].sum(axis=0) / self.points[rows].sum()

    def per_image(self, category: str | None = None) -> NDArray[np.float64]:
        """PCK (alphas,) in which every pair counts alike, however many points it has."""
        rows = self._rows(category)
        return (self.found[rows] / self.points[rows, None]).mean(axis=0)

    def scores(self) -> NDArray[np.float64]:
        """PCK (pairs with points, alphas) of each pair, whose means are `per_image`: for `bootstrap` and `paired`."""
        rows = self._rows(None)
        return self.found[rows] / self.points[rows, None]

    def _rows(self, category: str | None) -> NDArray[np.intp]:
        """Return the pairs of a category, or all, that have points."""
        rows = np.flatnonzero((self.points > 0) & (True if category is None else self.categories == category))
        if not len(rows):
            raise ValueError(
                f"no point of {category or 'any pair'} lies in both inputs; give other pairs or crop less."
            )
        return rows


def read_spair(root: str | Path, split: str = "test") -> list[Pair]:
    """Return the pairs of the folder SPair-71k (Min et al. 2019, arXiv 1908.10543), by
    PairAnnotation/<split>/*.json."""
    folder = Path(root)
    files = sorted((folder / "PairAnnotation" / split).glob("*.json"))
    if not files:
        raise FileNotFoundError(f"there is no PairAnnotation/{split}/*.json in {folder}; give the folder SPair-71k.")
    return [_read_pair(file, folder / "JPEGImages") for file in files]


def pck(
    pairs: Sequence[Pair],
    dense: Callable[[Path], ArrayLike],
    alphas: Sequence[float] = (0.1, 0.05),
    place: Callable[[Size], Placement] = stretched,
    upsample: int = 1,
) -> PCK:
    """Match every point of every pair from source to target, see `match` for `upsample`.

    dense: features (D, h, w) of a picture, such as the `__getitem__` of a dictionary. It is called for both pictures of
    every pair in turn, so let it keep what it has read.
    place: how pictures of a size (width, height) became inputs. Points outside either are lost: counted, not scored.
    """
    check_options(alphas, upsample)
    if not len(pairs):
        raise ValueError("pairs are empty, expected one or more; see read_spair.")
    rows = []
    for pair in pairs:
        found = match_pair(pair, dense, place, upsample)
        rows.append((found.error, int((~found.inside).sum())))
    return tabulate(rows, [pair.category for pair in pairs], alphas)


def match_pair(
    pair: Pair, dense: Callable[[Path], ArrayLike], place: Callable[[Size], Placement] = stretched, upsample: int = 1
) -> Matches:
    """Where the points of a pair are found; arguments as in `pck`."""
    source, target = _map(dense(pair.source), pair.source), _map(dense(pair.target), pair.target)
    if len(source) != len(target):
        raise ValueError(
            f"features of {pair.source} and {pair.target} have {len(source)} and {len(target)} dimensions; "
            "read both with one model."
        )
    there, here = place(pair.source_size), place(pair.target_size)
    at, wanted = there.into(pair.source_points), here.into(pair.target_points)
    inside = inner(at) & inner(wanted)
    matched = here.back(match(source, target, at[inside], upsample))
    left, top, right, bottom = pair.target_box
    error = np.linalg.norm(matched - pair.target_points[inside], axis=1) / max(right - left, bottom - top)
    return Matches(inside, matched, error)


def check_options(alphas: Sequence[float], upsample: int) -> None:
    if not alphas or min(alphas) <= 0 or upsample < 1:
        raise ValueError(f"alphas={tuple(alphas)}, upsample={upsample}: expected alphas > 0 and a whole number from 1.")


def inner(shares: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (p, 2), in shares of the input, lie inside it."""
    return np.all((shares >= 0) & (shares < 1), axis=1)


def tabulate(
    rows: Sequence[tuple[NDArray[np.float64], int]], categories: Sequence[str], alphas: Sequence[float]
) -> PCK:
    """From the errors (points,) of each pair, relative to what alpha is a share of, and its number of lost points."""
    return PCK(
        tuple(alphas),
        np.array(categories),
        np.array([len(error) for error, _ in rows]),
        np.array([lost for _, lost in rows]),
        np.array([[(error < alpha).sum() for alpha in alphas] for error, _ in rows]),
    )


def _map(features: ArrayLike, name: Path) -> Map:
    values = np.asarray(features)
    if values.ndim != 3 or not values.size or values.dtype.kind not in "fiub":
        raise ValueError(f"features of {name} are {values.dtype} {values.shape}, expected numbers (D, h, w).")
    if not np.isfinite(values).all():
        raise ValueError(f"features of {name} hold NaN or infinity, expected finite numbers; read it again.")
    return values.astype(np.float32, copy=False)


def _read_pair(file: Path, images: Path) -> Pair:
    try:
        held = json.loads(file.read_text())
        folder = images / held["category"]
        pair = Pair(
            folder / held["src_imname"],
            folder / held["trg_imname"],
            held["category"],
            _points(held["src_kps"]),
            _points(held["trg_kps"]),
            _box(held["src_bndbox"]),
            _box(held["trg_bndbox"]),
            _size(held["src_imsize"]),
            _size(held["trg_imsize"]),
        )
        if len(pair.source_points) != len(pair.target_points):
            raise ValueError(f"{len(pair.source_points)} and {len(pair.target_points)} points")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no pair of SPair-71k ({error}); unpack the annotations again.") from error
    return pair


def _points(pixels: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    return np.array(pixels, dtype=np.float64).reshape(-1, 2)


def _size(sides: Sequence[int]) -> Size:
    return int(sides[0]), int(sides[1])  # channels follow


def _box(edges: Sequence[float]) -> Box:
    left, top, right, bottom = (float(edge) for edge in edges)
    if right <= left or bottom <= top:
        raise ValueError(f"an empty box {edges}")
    return left, top, right, bottom
