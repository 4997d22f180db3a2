"""Rows dealt to processes, and their scores put together again: every row counts exactly once."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def deal_rows(rows: int, rank: int, world: int) -> NDArray[np.int64]:
    """Return the row numbers that process `rank` of `world` scores: neighbouring ones, nearly as many for each, none
    twice.

    Where there are fewer rows than processes some get none.
    """
    if rows < 0 or not 0 <= rank < world:
        raise ValueError(f"rows={rows}, rank={rank}, world={world}: expected rows >= 0 and a rank below world.")
    return np.arange(rows * rank // world, rows * (rank + 1) // world)


def merge_scores(rows: int, shares: Iterable[tuple[ArrayLike, ArrayLike]]) -> NDArray:
    """Scores (rows, ...) in the order of rows, from what each process has: its row numbers (n,) and scores (n, ...).

    The shares may come in any order. Raises a ValueError that names rows which are not scored exactly once.
    """
    pairs = [(np.asarray(numbers), np.asarray(scores)) for numbers, scores in shares]
    for numbers, scores in pairs:
        if len(numbers) != len(scores):
            raise ValueError(f"a share has {len(scores)} scores for {len(numbers)} rows; give one score per row.")
    filled = [pair for pair in pairs if len(pair[0])]  # an empty array tells nothing of the type
    if not filled:
        raise ValueError("no share holds a score, expected one or more rows; score some images.")
    numbers, scores = (np.concatenate(part) for part in zip(*filled, strict=True))
    times = np.bincount(numbers, minlength=rows)
    if len(wrong := np.flatnonzero(times != (np.arange(len(times)) < rows))):
        first = ", ".join(f"row {row} {times[row]} times" for row in wrong[:5])
        raise ValueError(f"expected each of {rows} rows to be scored once, got {first}; deal them with deal_rows.")
    return scores[np.argsort(numbers)]
