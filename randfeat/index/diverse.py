"""Diverse rows of an index: those that lie farthest from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..utils import progress
from ..utils.checks import check_whole_number
from .query import Filter, Match

if TYPE_CHECKING:
    from .index import Index


def farthest(index: Index, count: int, where: Filter | None = None, shown: bool = False) -> tuple[list[Match], float]:
    """Return `count` rows that stand for all, and how near each other row is to one of them, at worst.

    The first is the row nearest to the mean; each next one is the row farthest from those chosen already (Gonzalez,
    Theoretical Computer Science 38, 1985), so that no choice of as many leaves a row twice as well covered. The score
    of a row is that to the nearest of those before it, nan of the first. Distances are those of the metric, Euclidean
    where it is `dot`. All vectors are held in memory.

    count: all rows where there are no more. where: filter of the rows to choose from. shown: with a progress bar.
    Raises a ValueError where no row matches.
    """
    check_whole_number("count", count, 1)
    ids = index.ids(where)
    if not ids:
        raise ValueError(f"{index!r} has no row to choose from")
    vectors = index.vectors(ids)
    squares = np.einsum("ij,ij->i", vectors, vectors)
    mean = vectors.mean(0)
    chosen = [int((squares - 2 * vectors @ mean).argmin())]
    nearest, scores = np.full(len(ids), np.inf), [np.nan]
    with progress.bar(min(count, len(ids)), "choosing", "row", done=1, shown=shown) as bar:
        while True:
            new = vectors[chosen[-1]]
            np.minimum(nearest, np.maximum(squares + squares[chosen[-1]] - 2 * (vectors @ new), 0), out=nearest)
            nearest[chosen[-1]] = -1  # not again, also where others have the same features
            if len(chosen) >= min(count, len(ids)):
                break
            chosen.append(int(nearest.argmax()))
            scores.append(_score(nearest[chosen[-1]], index.metric))
            bar.update()
    rows = index.rows([ids[row] for row in chosen])
    found = [match._replace(score=score) for match, score in zip(rows, scores, strict=True)]
    return found, _score(max(float(nearest.max()), 0), index.metric)


def _score(square: float, metric: str) -> float:
    """Return the score of a squared distance: the cosine of unit vectors, else the distance."""
    return float(1 - square / 2) if metric == "cosine" else float(np.sqrt(square))
