"""The learning-rate schedule of everything that is trained here, as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

Decay = Literal["cosine", "linear", "constant"]


def warmup_decay(
    step: int,
    steps: int,
    warmup: float,
    *,
    first: int = 0,
    decay: Decay = "cosine",
    decay_from: float | None = None,
    end: float = 0.0,
) -> float:
    """Return the multiplier of the learning rate at step 0, 1, ...: a linear rise to 1, then a decay.

    steps: length of the training, at which the decay reaches `end`; later steps stay there.
    warmup: length of the rise in steps; step s has (s + first) / warmup. With first=0 the first step is taken at a rate
        of zero, with first=1 the last step of the warm-up has the full rate.
    decay: half a cosine, a line, or none. decay_from: the last step at the full rate, by default `warmup`.
    """
    rise = min((step + first) / warmup, 1.0) if warmup > 0 else 1.0
    start = warmup if decay_from is None else decay_from
    if decay == "constant" or step <= start:
        return rise
    progress = min((step - start) / max(1, steps - start), 1)
    falling = (1 + math.cos(math.pi * progress)) / 2 if decay == "cosine" else 1 - progress
    return min(rise, end + (1 - end) * falling)
