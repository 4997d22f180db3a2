"""Steps of few shapes, each as one program of torch's compiler, which on a GPU is one CUDA graph.

A step feeds the tokens of the last one and asks for the next; both are padded to one width, a power of two, and
attention runs over a quarter, a half or all of a preallocated cache. So a schedule of many sizes needs few programs: at
most three for each width. Where a step stands in the sequence, and its scales of guidance and noise, are values on the
device, made before the first step: no host waits. The first step, as long as there are known tokens, is not compiled.

Tokens are those of the plain steps in float32 but for near-ties, because sums of another length round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Generator, packed
from ..models.fixed import ALIGNED, FixedCache
from .step import Pass, advance, check_finite

OPTIONS: dict[str, Any] = {"mode": "reduce-overhead"}  # of torch.compile

# the cache of the last batch of a model, for the next of the same shape: a CUDA graph writes where it was recorded
_KEPT: WeakKeyDictionary[Generator, tuple[tuple, FixedCache]] = WeakKeyDictionary()


@contextmanager
def fixed_steps(run: Pass, sizes: Sequence[int]) -> Iterator[Callable[..., tuple[Tensor, Tensor, Tensor]]]:
    """Give a function that takes a step of `run` as `sampling.plain_step` does; steps have the given sizes.

    Raises a ValueError for a model whose steps have no fixed shapes.
    """
    if not run.model.fixed_shapes:
        raise ValueError(f"{type(run.model).__name__} has no steps of fixed shapes to compile: leave compile out")
    network, state = packed.original(run.model), run.state
    mode = torch.is_inference_mode_enabled(), torch.is_autocast_enabled(state.waiting.device.type)
    shape = (len(state.waiting), state.cache.capacity, state.waiting.dtype, *mode)
    kept = _KEPT.pop(network, None)
    if kept and kept[0] == shape:
        state.cache = kept[1]
    else:
        state.cache = FixedCache(len(state.cache.keys), state.cache.capacity, state.waiting.device)
    state.table = torch.view_as_real(state.table)  # the compiler knows no complex numbers
    try:
        yield _FixedSteps(replace(run, model=packed.plain_copy(network)), state.cache, sizes)
    finally:
        _KEPT[network] = shape, state.cache


class _FixedSteps:
    def __init__(self, run: Pass, cache: FixedCache, sizes: Sequence[int]) -> None:
        self.run, self.cache = run, cache
        self.scales = [_scales_of_all(guidance.scales, run, sizes) for guidance in run.guidances]

    def __call__(self, last: Tensor | None, asked: Tensor, noise: Tensor, done: int) -> tuple[Tensor, Tensor, Tensor]:
        run, size, each = self.run, asked.shape[1], self.run.model.inputs_per_token
        scales = [scale[done - run.done :][:size] for scale in self.scales]
        keys = each * (1 + done) + size
        if last is None:
            self.cache.at(0, 0, min(keys, self.cache.slots_in_all))
            found = advance(run, last, asked, noise, scales)
            for part in (*self.cache.keys, *self.cache.values):
                assert part is not None  # the step has written it
                torch._dynamo.mark_static_address(part, guard=False)
            return found
        fed = last.shape[1]
        width = 1 << (max(fed, size) - 1).bit_length()
        self.cache.at(each * (1 + done - fed), each * (width - fed), self._upto(keys))
        assert run.state.asked is not None  # the step before this one has set it
        run.state.asked = _padded(run.state.asked, width)
        padded = (_padded(part, width) for part in (last, asked, noise))
        if asked.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        with torch._dynamo.config.patch(recompile_limit=packed.COMPILATIONS):
            found = _compiled(*OPTIONS.items())(run, *padded, [F.pad(one, (0, 0, 0, width - size)) for one in scales])
        # copies, since the next step of a CUDA graph writes over its results
        raw, logits, new = (part[:, :size].clone() for part in found)
        check_finite(logits.amax(-1))
        return raw, logits, new

    def _upto(self, keys: int) -> int:
        """Return the number of slots to attend to: a quarter, a half or all of them."""
        every = self.cache.slots_in_all
        parts = (-(-every // share // ALIGNED) * ALIGNED for share in (4, 2))
        return next((part for part in parts if keys <= part), every)


def _scales_of_all(scales: Callable[[int, int, int], list[float]], run: Pass, sizes: Sequence[int]) -> Tensor:
    """Return the scale of guidance of each token that is decoded: (n, 1)."""
    done, found, total = run.done, list[float](), run.order.shape[1]
    for size in sizes:
        found += scales(done, size, total)
        done += size
    return torch.tensor(found, dtype=torch.float32, device=run.order.device).unsqueeze(1)


def _padded(values: Tensor, width: int) -> Tensor:
    """Return values (B, n) as (B, width), with zeros behind them or without the last, which were such zeros."""
    return F.pad(values, (0, width - values.shape[1]))


@cache
def _compiled(*options: tuple[str, Any]) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(advance, fullgraph=True, dynamic=False, **dict(options))
