"""Semantic correspondence: is the nearest neighbour of a point's feature the same point of another object?

PCK@alpha is the share of points matched less than alpha * max(height, width) of the target's box from their true
position. Points are (x, y) in pixels of the picture as it is on disk, whatever it was resized to.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..protocol import Protocol
from ..report.record import Record, class_means, made_with
from ..stats import bootstrap

Box = tuple[float, float, float, float]  # left, top, right, bottom
Size = tuple[int, int]  # width, height
Map = NDArray[np.floating]


@dataclass(frozen=True)
class Placement:
    """Position of a picture in the resized, cropped or padded input whose features were read.

    input = picture * scale + offset, along x and y; the input is `size` (width, height) large. Only ratios count, so
    the input may have any unit: pixels of the picture, or its own.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[float, float]

    def into(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert points (p, 2) from pixels of the picture to shares of the input; beyond 0..1 they were cropped."""
        return ((points + 0.5) * self.scale + self.offset) / self.size  # a pixel's centre is half a pixel in

    def back(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert points (p, 2) from shares of the input to pixels of the picture."""
        return (shares * self.size - self.offset) / self.scale - 0.5


def stretched(size: Size) -> Placement:
    """Return the placement of a whole picture that fills the input, each side scaled by itself."""
    return Placement((1.0, 1.0), (0.0, 0.0), size)


@dataclass(frozen=True, eq=False)
class KeypointPair:
    """Two pictures of one category: the same points (p, 2) in both, the objects' boxes and the pictures' sizes."""

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
    """Matched points of a pair.

    inside: bool (p,), the points that lie inside both inputs. found: (q, 2), the position of each of these q in pixels
    of the target. error: (q,), its distance from the true position, as a share of the longer side of the target's box.
    """

    inside: NDArray[np.bool_]
    found: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PCK:
    """Counts of matched points in n pairs.

    categories: (n,). points: (n,), points inside both inputs. lost: (n,), points that were cropped out of an input.
    found: (n, alphas), points that were matched within each alpha.
    """

    alphas: tuple[float, ...]
    categories: NDArray[np.str_]
    points: NDArray[np.intp]
    lost: NDArray[np.intp]
    found: NDArray[np.intp]

    def per_point(self, category: str | None = None) -> NDArray[np.float64]:
        """Return PCK (alphas,) in which every point counts alike."""
        rows = self._rows(category)
        return self.found[rows].sum(axis=0) / self.points[rows].sum()

    def per_image(self, category: str | None = None) -> NDArray[np.float64]:
        """Return PCK (alphas,) in which every pair counts alike, however many points it has."""
        rows = self._rows(category)
        return (self.found[rows] / self.points[rows, None]).mean(axis=0)

    def scores(self) -> NDArray[np.float64]:
        """Return PCK (pairs with points, alphas) of each pair, for `bootstrap`; the mean is `per_image`."""
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


def evaluate_pairs(
    name: str,
    found: PCK,
    paths: Sequence[str],
    seconds: float,
    how: Protocol = Protocol(),  # noqa: B008  immutable
    settings: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    chosen: str = "",
    search: Mapping[str, float] | None = None,
) -> Record:
    """Return the record of "correspondence", in which every pair counts alike, however many points it has.

    paths: the name of each pair; pairs without a point are left out. seconds: time that matching took. settings,
    fingerprints, chosen, search: as in `Record`; the search is over other pairs.
    """
    kept, scores = found.points > 0, found.scores()
    names = [f"pck@{alpha:g}" for alpha in found.alphas]
    right = dict(zip(names, scores.T, strict=True))
    categories = found.categories[kept]
    arrays: dict[str, NDArray[Any]] = {"paths": np.array(paths)[kept], "truth": categories}
    arrays |= {"right" if metric == names[0] else f"right {metric}": values for metric, values in right.items()}
    per_point = {f"{metric} per point": float(v) for metric, v in zip(names, found.per_point(), strict=True)}
    own = {"averaging": "per image pair", "pairs": int(kept.sum()), "lost points": int(found.lost.sum()), **per_point}
    return Record(
        name,
        "correspondence",
        {metric: bootstrap(values, None, how.draws, how.seed) for metric, values in right.items()},
        chosen,
        dict(search or {}),
        per_class=class_means(right[names[0]], categories),
        settings={**how.as_dict(), **own, **(settings or {})},
        fingerprints=dict(fingerprints or {}),
        made_with=made_with(),
        seconds=seconds,
        arrays=arrays,
    )


def pck(
    pairs: Sequence[KeypointPair],
    dense: Callable[[Path], ArrayLike],
    alphas: Sequence[float] = (0.1, 0.05),
    place: Callable[[Size], Placement] = stretched,
    upsample: int = 1,
) -> PCK:
    """Match every point of every pair from source to target.

    dense: returns features (D, h, w) of a picture, such as the `__getitem__` of a dictionary. It is called for both
    pictures of every pair, so it should cache. place: returns the placement in the input of a picture of a size
    (width, height). Points outside an input are lost: counted, not scored. upsample: see `match`.
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
    pair: KeypointPair,
    dense: Callable[[Path], ArrayLike],
    place: Callable[[Size], Placement] = stretched,
    upsample: int = 1,
) -> Matches:
    """Match the points of one pair; arguments as in `pck`."""
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
    """Return whether points (p, 2), in shares of the input, lie inside it, bool (p,)."""
    return np.all((shares >= 0) & (shares < 1), axis=1)


def tabulate(
    rows: Sequence[tuple[NDArray[np.float64], int]], categories: Sequence[str], alphas: Sequence[float]
) -> PCK:
    """Count matches, given for each pair its errors (points,), in the unit of alpha, and its number of lost points."""
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


# nearest neighbours of two maps ---------------------------------------------------------------------------------------


def match(source: Map, target: Map, at: NDArray[np.float64], upsample: int = 1) -> NDArray[np.float64]:
    """Return the position in `target` of the feature that is nearest, by cosine, to that of `source` at each of `at`.

    source: (D, h, w), target: (D, H, W). at, result: (p, 2) in shares 0..1 of width and height; results are centres of
    cells. upsample: factor by which both maps are enlarged first, bilinearly, as torch does without align_corners.
    The first of equally near cells in raster order is taken; a zero feature has similarity 0.
    """
    wanted = _features_at(source, at, upsample)
    down, across = (_enlarging(n, upsample) for n in target.shape[1:])
    # Enlarging is linear, so products are enlarged: enlarged features would take upsample^2 times the memory.
    products = down @ np.einsum("pd,dhw->phw", wanted, target, optimize=True) @ across.T
    lengths = _lengths(target, down, across)
    likeness = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    row, column = np.unravel_index(likeness.reshape(len(at), lengths.size).argmax(axis=1), lengths.shape)
    return np.stack([(column + 0.5) / lengths.shape[1], (row + 0.5) / lengths.shape[0]], axis=1)


def _features_at(source: Map, at: NDArray[np.float64], upsample: int) -> Map:
    """Return the features (p, D) of the cells of the enlarged map that hold the points."""
    height, width = source.shape[1:]
    column, row = (np.floor(at * (width * upsample, height * upsample)).astype(np.intp)).T
    down, across = _enlarging(height, upsample)[row], _enlarging(width, upsample)[column]
    return np.einsum("ph,dhw,pw->pd", down, source, across, optimize=True)


def _lengths(target: Map, down: Map, across: Map) -> Map:
    """Return the Euclidean lengths (rows, columns) of the features of an enlarged map."""
    rows = np.einsum("yh,dhw->ydw", down, target, optimize=True)
    # a column blends two neighbours: |a u + b v|^2 = a^2 |u|^2 + b^2 |v|^2 + 2 a b u.v
    own, neighbours = np.square(rows).sum(axis=1), (rows[..., :-1] * rows[..., 1:]).sum(axis=1)
    squares = own @ np.square(across).T + 2 * neighbours @ (across[:, :-1] * across[:, 1:]).T
    return np.sqrt(np.maximum(squares, 0))


def _enlarging(n: int, by: int) -> Map:
    """Return the matrix (n * by, n) that interpolates linearly between the centres of n cells."""
    place = np.clip((np.arange(n * by) + 0.5) / by - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(n))).astype(np.float32)


# SPair-71k ------------------------------------------------------------------------------------------------------------


def read_spair(root: str | Path, split: str = "test") -> list[KeypointPair]:
    """Return the pairs of PairAnnotation/<split>/*.json in the folder SPair-71k (Min et al. 2019, arXiv 1908.10543)."""
    folder = Path(root)
    files = sorted((folder / "PairAnnotation" / split).glob("*.json"))
    if not files:
        raise FileNotFoundError(f"there is no PairAnnotation/{split}/*.json in {folder}; give the folder SPair-71k.")
    return [_read_pair(file, folder / "JPEGImages") for file in files]


def _read_pair(file: Path, images: Path) -> KeypointPair:
    try:
        held = json.loads(file.read_text())
        folder = images / held["category"]
        pair = KeypointPair(
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
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no pair of SPair-71k, or damaged; get the annotations again.") from error
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
