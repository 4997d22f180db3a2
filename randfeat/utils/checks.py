"""Checks of arguments that many modules share, with one form of message for each."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import numpy as np


def is_whole_number(value: object, low: int | None = None) -> TypeGuard[int]:
    """Return whether a value is an integer, Python's or NumPy's, from `low` on; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and (low is None or int(value) >= low)


def check_whole_number(name: str, value: Any, low: int | None = None) -> None:
    """Raise a ValueError that names the argument unless `is_whole_number`."""
    if not is_whole_number(value, low):
        range_ = "" if low is None else f" from {low}"
        raise ValueError(
            f"{name} must be a whole number{range_}, got {repr(value) if isinstance(value, str) else value}"
        )


def is_finite_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, Python's or NumPy's, neither NaN nor infinite nor True or False."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def finite_rows(array: np.ndarray) -> np.ndarray:
    """Return whether each row holds neither NaN nor infinity: (n, ...) -> bool (n,)."""
    import numpy as np  # late: `randfeat sample --help` reads this module

    return np.isfinite(array).reshape(len(array), math.prod(array.shape[1:])).all(axis=1)
