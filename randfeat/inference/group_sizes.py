"""Sizes of LPD's groups: the tables of its official code (arXiv 2507.01957), which no formula gives exactly."""

from __future__ import annotations

from functools import cache

# number of tokens, steps: the size of each group in turn; 12x8 is eight groups of twelve
_TABLES = {
    (256, 256): "1x256",
    (256, 128): "1x41 2x46 3x41",
    (256, 64): "1x10 2x7 3x7 4x9 5x11 6x20",
    (256, 32): "1x2 2x2 3x2 4 5x2 6x2 7x2 8x2 9x2 10x3 11x4 12x8",
    (256, 24): "1 2 3 4 5 6 7 8 9 10 11x2 12 13 14x3 15x2 16x3 17x2",
    (256, 20): "1 2 4 5 7 8 10 11 12 14 15 16 17 18x2 19x2 20x3",
    (256, 16): "1 4 6 8 11 13 15 17 19 20 22 23 24x3 25",
    (256, 12): "1 7 11 15 19 22 25 28 30 32 33x2",
    (256, 8): "1 15 24 32 40 45 49 50",
    (1024, 1024): "1x1024",
    (1024, 512): "1x162 2x188 3x162",
    (1024, 256): "1x39 2x28 3x31 4x34 5x44 6x80",
    (1024, 224): "1x32 2x21 3x21 4x24 5x27 6x37 7x62",
    (1024, 192): "1x22 2x15 3x16 4x16 5x19 6x21 7x27 8x55 10",
    (1024, 160): "1x15 2x11 3x10 4x12 5x12 6x13 7x14 8x17 9x23 10x33",
    (1024, 128): "1x10 2x6 3x7 4x7 5x7 6x7 7x8 8x9 9x9 10x11 11x14 12x26 13x7",
    (1024, 96): "1x5 2x4 3x4 4x4 5x3 6x4 7x4 8x5 9x4 10x4 11x6 12x5 13x6 14x7 15x8 16x13 17x10",
    (1024, 80): "1x4 2x2 3x3 4x2 5x3 6x3 7x2 8x3 9x3 10x3 11x3 12x3 13x3 14x4 15x4 16x4 17x6 18x6 19x7 20x12",
    (1024, 64): (
        "1x2 2x2 3x2 4 5x2 6x2 7 8x2 9x2 10x2 11 12x2 13x2 14x2 15x2 16x2 17x2 18x3 19x2 20x3 21x3 22x3 23x5 24x6 25x8"
    ),
    (1024, 56): (
        "1x2 2 3 4x2 5 6 7 8x2 9 10 11x2 12 13 14x2 15 16x2 17 18x2 19x2 20 21x2 22x2 23x2 24x2 25x3 26x3 27x5 "
        "28x6 29x3"
    ),
    (1024, 48): (
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23x2 24 25 26x2 27 28x2 29x2 30x2 31x2 32x3 33x7 34"
    ),
    (1024, 40): "1 2 4 6 7 9 10 12 13 15 16 18 19 20 22 23 24 26 27 28 29 30 31 32 33 34 35x2 36 37x2 38x2 39x3 40x4",
    (1024, 32): "1 4 6 9 11 13 16 18 20 23 25 27 29 31 33 35 36 38 40 41 42 44 45 46 47 48x2 49x2 50x3",
}


def group_sizes(count: int, steps: int) -> tuple[int, ...] | None:
    """Return the published sizes of `steps` groups of `count` tokens together, or None where there is no table."""
    return _read(count, steps) if (count, steps) in _TABLES else None


def all_group_sizes(count: int) -> list[tuple[int, ...]]:
    """Return all published lists of sizes that sum to `count`, of which LPD's training draws one for each step."""
    return [_read(tokens, steps) for tokens, steps in _TABLES if tokens == count]


@cache
def _read(count: int, steps: int) -> tuple[int, ...]:
    runs = [run.split("x") for run in _TABLES[count, steps].split()]
    return tuple(int(size) for size, *times in runs for _ in range(int(times[0]) if times else 1))
