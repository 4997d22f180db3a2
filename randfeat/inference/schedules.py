"""Schedules of sampling: the number of tokens and the guidance scale of each step.

In double precision on plain numbers: nothing here needs a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from ..utils.checks import is_finite_number, is_whole_number
from .group_sizes import group_sizes

Schedule = Literal["cosine-randar", "cosine-arpg", "arccos", "linear", "one-by-one", "lpd"]


def tokens_per_step(
    schedule: Schedule | Sequence[int], count: int, steps: int | None = None, done: int = 0
) -> list[int]:
    """Return the number of tokens that each step decodes, at least one; with `done` they sum to `count`.

    steps: number of steps; None, or more than `count`, means `count`. `cosine-randar` always starts with one token
    (RandAR, arXiv 2412.01827), so it takes two steps where one is asked for. `arccos` and `cosine-arpg` are those of
    ARPG (arXiv 2503.10568), whose first step may decode several tokens. `lpd` are the tables of LPD (arXiv 2507.01957),
    and the cosine behind them where there is none. schedule: also the tokens of each step themselves; of another sum
    than `count` they are taken as shares. done: tokens decoded before; a step then decodes one until the schedule,
    which starts from none, has caught up.
    """
    if steps is not None and not is_whole_number(steps, 1):
        raise ValueError(f"sampling takes whole steps, at least one step, got steps={steps}")
    if not isinstance(schedule, str):
        return _by_shares(schedule, count, steps, done)
    if schedule not in get_args(Schedule):
        raise ValueError(f"unknown schedule {schedule!r}, expected one of {', '.join(get_args(Schedule))}")
    steps = count if steps is None or schedule == "one-by-one" else min(steps, count)
    if schedule == "lpd" and (table := group_sizes(count, steps)):
        return _by_shares(table, count, None, done)
    sizes: list[int] = []
    while done < count:
        size = _decoded_after(schedule, len(sizes), steps, count) - done
        size = min(max(size, 1), count - done)
        sizes.append(size)
        done += size
    return sizes


def _by_shares(sizes: Sequence[int], count: int, steps: int | None, done: int) -> list[int]:
    """Return the tokens of each step where those of all steps are given, see `tokens_per_step`."""
    if not sizes or not all(is_whole_number(size, 1) for size in sizes):
        raise ValueError(f"a schedule of sizes holds whole numbers of tokens from 1, got {sizes}")
    if steps is not None and steps != len(sizes):
        raise ValueError(f"this schedule has {len(sizes)} steps, got steps={steps}: leave steps out")
    found, total = [], sum(sizes)
    for upto in accumulate(sizes):
        size = min(max(round(count * upto / total) - done, 1), count - done)
        found += [size] if size > 0 else []
        done += max(size, 0)
    return found


def with_plain_numbers(settings: Any) -> None:
    """Turn numpy's numbers in the fields of a frozen dataclass into Python's, which can be written as JSON."""

    def plain(value: Any) -> Any:
        return value.item() if type(value).__module__ == "numpy" else value  # numpy itself would slow the help down

    for name, value in vars(settings).items():
        several = isinstance(value, (tuple, list))
        object.__setattr__(settings, name, type(value)(map(plain, value)) if several else plain(value))


def _decoded_after(schedule: Schedule, step: int, steps: int, count: int) -> int:
    """Return the number of tokens decoded after step 0, 1, ... of a schedule."""
    share = (step + 1) / steps
    if schedule == "cosine-randar":
        return 1 if step == 0 else math.floor((1 - math.cos(math.pi / 2 * share)) * count + 1)
    if share >= 1:
        return count
    if schedule == "cosine-arpg":
        return count - max(1, math.floor(count * math.cos(math.pi / 2 * share)))
    if schedule == "lpd":
        return round(count * (1 - math.cos(math.pi / 2 * share)))
    if schedule == "arccos":
        return count - max(1, math.floor(count * math.acos(share) / (math.pi / 2)))
    return round(count * share)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: logits = uncond + scale * (cond - uncond). A scale of 1 throughout is off.

    scale: the scale, or with `linear` and `power-cosine` the one to which it rises from `start`: by the share u of the
        image already decoded, or by (1 - cos(pi u^power)) / 2, as RAR does from a start of 1.
    counted: whether u counts the tokens decoded before the step, as RandAR and RAR do; after it, as ARPG does from a
        start of 1, so that the last step uses exactly `scale`; or for each token of the step those before it in the
        order, as LPD does.
    interval: shares of the image already decoded between which guidance acts; outside it is off. LlamaGen's
        cfg_interval c is (0, (c + 1) / N).
    """

    scale: float = 1.0
    schedule: Literal["constant", "linear", "power-cosine"] = "constant"
    start: float = 1.0
    counted: Literal["before", "after", "token"] = "before"
    interval: tuple[float, float] = (0.0, 1.0)
    power: float = 1.0

    def __post_init__(self) -> None:
        with_plain_numbers(self)
        for name in ("scale", "start", "power"):
            value = getattr(self, name)
            if not is_finite_number(value):
                raise ValueError(f"guidance {name} must be a finite number, got {value!r}")
        if self.schedule not in ("constant", "linear", "power-cosine"):
            raise ValueError(f"guidance schedule must be constant, linear or power-cosine, got {self.schedule!r}")
        if self.counted not in ("before", "after", "token"):
            raise ValueError(f"guidance is counted before or after the step, or by token, got {self.counted!r}")
        if self.power < 0:
            raise ValueError(f"guidance power must be 0 or more, got {self.power}")
        if (
            not isinstance(self.interval, Sequence)
            or len(self.interval) != 2
            or not self.interval[0] <= self.interval[1]
        ):
            raise ValueError(f"guidance interval must be two shares, the lower first, got {self.interval}")

    @property
    def off(self) -> bool:
        """True where no step needs the unconditional branch."""
        return self.scale == 1 and (self.schedule == "constant" or self.start == 1)

    def at(self, done: int, size: int, total: int) -> float:
        """Return the scale of a step that decodes `size` of `total` tokens after `done` of them."""
        if not self.interval[0] <= done / total <= self.interval[1]:
            return 1.0
        if self.schedule == "constant":
            return self.scale
        share = (done + size if self.counted == "after" else done) / total
        risen = share if self.schedule == "linear" else (1 - math.cos(math.pi * share**self.power)) / 2
        return self.start + (self.scale - self.start) * risen

    def scales(self, done: int, size: int, total: int) -> list[float]:
        """Return the scale of each token of such a step."""
        if self.counted == "token":
            return [self.at(done + place, 1, total) for place in range(size)]
        return [self.at(done, size, total)] * size
