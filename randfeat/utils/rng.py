"""Random numbers as a pure function of seeds.

Every random choice of randfeat (an order, a draw, a dropped label) is computed from integers by a counter-based
generator after SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). So a value depends on its own seed only, not on the
batch, the device, the number of processes or earlier draws.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# 64-bit constants of SplitMix64, written as the signed integers that torch.int64 holds
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Return the logical (not sign-extending) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Return SplitMix64's finalizer of int64 values."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def derive(*parts: int | Tensor) -> Tensor:
    """Return one int64 seed from several integers or (broadcasting) integer tensors; the order of the parts matters."""
    seed = torch.zeros((), dtype=torch.int64)
    for part in parts:
        part = torch.as_tensor(part, dtype=torch.int64)
        seed = _mix(seed.to(part.device) * _MIX_1 + part + _GOLDEN)
    return seed


def bits(seeds: Tensor, count: int) -> Tensor:
    """Return `count` pseudo-random int64 values for each seed: (*S,) -> (*S, count)."""
    counter = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    return _mix(_mix(seeds.to(torch.int64)).unsqueeze(-1) + counter * _GOLDEN)


def uniform(seeds: Tensor, count: int) -> Tensor:
    """Return `count` float32 values in [0, 1 - 2^-22] for each seed: (*S,) -> (*S, count).

    They have 22 bits, so that the product with a float32 total stays below that total: an inverse-CDF draw always finds
    a category.
    """
    return _shift_right(bits(seeds, count), 42).to(torch.float32) * 2.0**-22


def normal(seeds: Tensor, count: int) -> Tensor:
    """Return `count` standard normal values for each seed, by Box and Muller: float32 (*S,) -> (*S, count)."""
    radius, angle = uniform(seeds, 2 * count).unflatten(-1, (2, count)).unbind(-2)
    return (-2 * torch.log1p(-radius)).sqrt() * (2 * math.pi * angle).cos()


def exponential(seeds: Tensor, count: int) -> Tensor:
    """Return `count` exponential values of rate 1 for each seed: float32 (*S,) -> (*S, count), all above 0.

    They follow from 63 bits, so that the least of many is as random as any.
    """
    share = _shift_right(bits(seeds, count), 1).to(torch.float32) * 2.0**-63
    return -torch.log1p(-share.clamp(2.0**-63, 1 - 2.0**-24))


def of_images(seed: int | Iterable[int], count: int) -> Tensor:
    """Return the seeds of `count` images: seed, seed + 1, ..., or the given ones. int64 (count,)."""
    try:
        seeds: Sequence[int]
        if isinstance(seed, Iterable):
            seeds = [_integer(one) for one in seed]
        else:
            seeds = range(_integer(seed), _integer(seed) + count)
    except TypeError:
        raise ValueError(f"a seed is a whole number, got {seed!r}") from None
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} images: give one for each, or a single one to count from")
    if count and not -(1 << 63) <= min(seeds) <= max(seeds) < 1 << 63:
        raise ValueError(f"seeds are numbers of 64 bits, {seed!r} leads outside")
    return torch.tensor(list(seeds), dtype=torch.int64)


def _integer(value: int) -> int:
    """Return an integer of any type, torch's too; a TypeError for others and for True and False."""
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)
