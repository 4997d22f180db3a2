"""Decoding loop of every generator: an order per image, tokens per step, guidance per step, known tokens, sweeps.

An image's seed alone fixes its order and its noise, whatever the batch it is sampled in. Tokens then agree between
batches in float32 except for near-ties, because matrix products of another size round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..models import Generator, orders, packed
from ..utils import rng
from ..utils.checks import check_whole_number, is_finite_number
from . import exact
from .bias import checked_bias
from .fixed import fixed_steps
from .schedules import Guidance, Schedule, tokens_per_step, with_plain_numbers
from .step import UNKNOWN, Pass, Scale, Step, advance, filter_logits


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    steps: network calls; None decodes one token at a time. schedule: a name, or the tokens of each step, see
        `schedules.tokens_per_step`.
    temperature: > 0. top_k: keep the k likeliest (0 = all). top_p: keep the likeliest that sum to this (1 = all).
    order: an order mode of `orders.MODES`, by default the model's first: random where it can.
    locality: proximity and repulsion thresholds of order `locality` (see `orders.locality`), whose groups are those of
        the schedule.
    within_step: see `Generator.start`.
    sweeps: Gibbs refinement sweeps over the finished image (block Gibbs sampling): each draws one half of its tokens
        anew given the others, then the other half. ARPG predicts the first tokens of an image without knowing their
        positions, and on a small grid such a bad start shows; one sweep mends most of it (`PositionedARPG` has no
        such start).
    control_guidance: guidance away from the same class without the condition, for a model with control: logits = cond +
        (guidance - 1) * (cond - no class) + (control_guidance - 1) * (cond - no condition). Each guidance that is on
        adds a branch to the batch.
    exact: decode one token after the other, in fewer calls than tokens (see `exact`). Its draws are others than those
        of one step for each token, of the same distribution; `within_step` decides nothing then.
    draft: with exact, tokens at most that one call checks ahead. It decides how many calls are taken, no token.
    compile: decode in steps of few shapes through torch's compiler (see `fixed`), RandAR and ARPG. It is for GPUs: a
        program takes a minute or more to compile, a step then no time of the host. It decides no token.
    """

    steps: int | None = None
    schedule: Schedule | tuple[int, ...] = "cosine-randar"
    guidance: Guidance = field(default_factory=Guidance)
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    order: str | None = None
    within_step: str | None = None
    sweeps: int = 0
    control_guidance: Guidance = field(default_factory=Guidance)
    locality: tuple[float, float] = (1.0, 2.0)
    exact: bool = False
    draft: int = 16
    compile: bool = False

    def __post_init__(self) -> None:
        with_plain_numbers(self)
        for name in ("guidance", "control_guidance"):
            if not isinstance(value := getattr(self, name), Guidance):
                raise ValueError(f"{name} is an object, got {value!r}: write Guidance({value!r})")
        if not (is_finite_number(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be above 0, got {self.temperature}; top_k=1 is greedy")
        check_whole_number("top_k", self.top_k, 0)
        if not (is_finite_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        check_whole_number("sweeps", self.sweeps, 0)
        if not isinstance(self.order, (str, type(None))):
            raise ValueError(f"order is the name of an order mode, got {self.order!r}")
        if len(self.locality) != 2 or not all(is_finite_number(one) and one >= 0 for one in self.locality):
            raise ValueError(f"locality is a proximity and a repulsion threshold from 0, got {self.locality}")
        tokens_per_step(self.schedule, 1, self.steps)  # raises for a wrong name or number of steps
        check_whole_number("draft", self.draft, 0)
        for name in ("exact", "compile"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} is True or False, got {value!r}")
        if self.exact and self.compile:
            raise ValueError("exact sampling takes calls of sizes that nothing knows before: leave compile out")
        if self.exact and (self.steps is not None or not isinstance(self.schedule, str)):
            raise ValueError(
                "exact sampling is that of one token a step, in as few calls as it can: leave steps and sizes out"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON takes them. What is as it was before there was such a setting is left out, as in
        settings that were written then.
        """
        made = asdict(self)
        for name in ("control_guidance", "locality", "exact", "draft", "compile"):
            if getattr(self, name) == getattr(Sampling(), name):
                del made[name]
        for name in {"guidance", "control_guidance"} & made.keys():
            if made[name]["power"] == Guidance.power:
                del made[name]["power"]
        return made

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Sampling:
        """Return the settings that `as_dict` made, with JSON's lists as tuples again; a ValueError for others."""
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        try:
            for name in {"guidance", "control_guidance"} & made.keys():
                made[name] = Guidance(**{**made[name], "interval": tuple(made[name]["interval"])})
            return cls(**made)
        except (KeyError, TypeError) as error:
            raise ValueError("settings of sampling have a field missing, unknown or of another type") from error

    def filtered(self, logits: Tensor) -> Tensor:
        """Return the logits that tokens are drawn from, by temperature, then top-k, then top-p: (..., V)."""
        return filter_logits(logits if self.temperature == 1 else logits / self.temperature, self.top_k, self.top_p)


def decode(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
    bias: Tensor | None = None,
) -> Iterator[Step]:
    """Decode tokens step by step, then refine them by the sweeps of `sampling`; yield after each step.

    label: (B,) class indices, num_classes for the null class. seeds: (B,) int64. order: (B, N), else drawn from the
    seeds by `sampling.order`. known: (B, N) tokens in raster space, UNKNOWN where they are to be decoded; as many are
    known in each image. They come first in the order, so that decoded tokens depend on all of them. A model of raster
    order alone takes them at their positions, in any number: its tokens depend on those before them. condition: (B, N,
    D) in raster space, `model.control(images)`. bias: see `bias.checked_bias`. The model is used in evaluation mode, in
    its state at the first step.
    """
    _check_sweeps(model, sampling)
    label, seeds = label.to(model.device), seeds.to(model.device)
    tokens = torch.full((len(label), model.num_tokens), UNKNOWN) if known is None else known
    tokens = tokens.to(model.device)
    drawn = tokens == UNKNOWN
    bias = None if bias is None else checked_bias(bias, len(label), model).to(model.device)
    model = packed.inference_copy(model)  # once for all sweeps
    branches, calls = _Branches(model, label, sampling, condition), torch.zeros_like(label)
    for step in _decode_once(model, branches, seeds, sampling, order, tokens, bias):
        tokens, calls = step.tokens, step.calls
        yield step
    for sweep in range(sampling.sweeps):
        again = rng.derive(seeds, 2, sweep)
        redraw = orders.known_first(orders.random(model.grid, again), drawn)[:, : int(drawn[0].sum())]
        for number, half in enumerate(redraw.tensor_split(2, 1)):
            hidden, before = tokens.scatter(1, half, UNKNOWN), calls
            for step in _decode_once(model, branches, rng.derive(again, number), sampling, None, hidden, bias):
                tokens, calls = step.tokens, before + step.calls
                yield replace(step, calls=calls)


def sample(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
    bias: Tensor | None = None,
    tick: Callable[[Tensor], object] = lambda calls: None,
) -> Tensor:
    """Return the tokens that `decode`, with the same arguments, ends with: int64 (B, N) in raster space.

    tick is called in the end with the network calls that each image took, (B,).
    """
    tokens, calls = known, torch.zeros_like(seeds)
    for step in decode(model, label, seeds, sampling, order, known, condition, bias):
        tokens, calls = step.tokens, step.calls
    assert tokens is not None  # without known tokens there is a step
    tick(calls)
    return tokens.to(model.device)


class _Branches:
    """Branches of guidance, stacked along the batch: the conditional one; where guidance is on, the null class; where
    control guidance is on, the class without the condition.
    """

    def __init__(self, model: Generator, label: Tensor, sampling: Sampling, condition: Tensor | None) -> None:
        guidance, control = sampling.guidance, sampling.control_guidance
        if not (guidance.off or model.num_classes):
            raise ValueError("this model has no classes that guidance could lead to: leave guidance out")
        labels = [label]
        if not guidance.off:
            labels.append(torch.full_like(label, model.num_classes))
        conditions = [] if condition is None else [condition.to(label.device)] * len(labels)
        self.controlled = condition is not None and not control.off
        if self.controlled:
            labels.append(label)
            conditions.append(torch.zeros_like(conditions[0]))
        self.count, self.sampling = len(labels), sampling
        self.labels = torch.cat(labels)  # (count * B,)
        self.conditions = torch.cat(conditions) if conditions else None  # (count * B, N, D)

    def guide(self, raw: Tensor, scales: Sequence[Scale]) -> Tensor:
        """Return the logits of a step after guidance and control guidance, see `Pass.guide`."""
        (scale, control), batch = scales, len(raw) // self.count
        logits = raw[:batch]
        if not self.sampling.guidance.off:
            logits = guided(raw[: 2 * batch], scale)
        if self.controlled:
            logits = logits + (control - 1) * (raw[:batch] - raw[-batch:])
        return logits


@torch.no_grad()
def _decode_once(
    model: Generator,
    branches: _Branches,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None,
    known: Tensor,
    bias: Tensor | None,
) -> Iterator[Step]:
    """Decode the unknown tokens of `known`, (B, N) on the model's device, in one pass without sweeps."""
    count, device = model.num_tokens, model.device
    drawn = known == UNKNOWN
    if model.raster_only:
        places = drawn.any(0).nonzero().flatten().tolist()
        done, end = (places[0], places[-1] + 1) if places else (count, count)
    else:
        done, end = _count_known(known), count
    sizes = tokens_per_step(sampling.schedule, end - done, sampling.steps)
    if model.one_token_a_step and max(sizes, default=1) > 1:
        raise ValueError(f"{type(model).__name__} decodes one token a step, not {max(sizes)}: leave steps out")
    if order is None:
        mode = model.check_order_mode(sampling.order)
        order = orders.make(mode, model.grid, rng.derive(seeds, 0), sizes, sampling.locality, ~drawn)
    orders.validate(order, model.grid)
    model.check_order(order)
    order = order.to(device).expand(len(known), -1)
    if not model.raster_only:
        order = orders.known_first(order, ~drawn)
    prefix, copies = order[:, :done], branches.count
    state = model.start(
        branches.labels,
        known.gather(1, prefix).repeat(copies, 1),
        prefix.repeat(copies, 1),
        # the first call of exact sampling asks for all positions, each as if it came next
        "causal" if sampling.exact else sampling.within_step,
        condition=branches.conditions,
    )
    guidances = sampling.guidance, sampling.control_guidance
    run = Pass(model, state, seeds, order, known, done, guidances, branches.guide, sampling.filtered, bias)
    yield from steps(run, sampling, sizes)


def guided(raw: Tensor, scale: Scale) -> Tensor:
    """Apply classifier-free guidance to conditional, then unconditional logits: (2B, n, V) -> (B, n, V).

    scale: see `step.scale_at`.
    """
    conditional, unconditional = raw.chunk(2)
    return torch.lerp(unconditional, conditional, scale)


def steps(run: Pass, sampling: Sampling, sizes: Sequence[int]) -> Iterator[Step]:
    """Decode one pass, by steps of given sizes, compiled or not, or exactly, and yield after each step."""
    if sampling.exact:
        yield from exact.steps(run, sampling.draft)
    elif sampling.compile:
        with fixed_steps(run, sizes) as step:
            yield from _steps_of(run, sizes, step)
    else:
        yield from _steps_of(run, sizes, partial(plain_step, run))


def plain_step(
    run: Pass, last: Tensor | None, asked: Tensor, noise: Tensor, done: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step after `done` tokens, see `step.advance`."""
    with torch.inference_mode():  # the many small operations are faster without records for gradients
        return advance(run, last, asked, noise, run.scales(done, asked.shape[1]))


@torch.no_grad()
def _steps_of(run: Pass, sizes: Sequence[int], step: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Iterator[Step]:
    """Decode by steps of given sizes, and yield after each."""
    done, tokens, last = run.done, run.known, None
    noise = rng.uniform(rng.derive(run.seeds, 1), run.order.shape[1])
    for call, size in enumerate(sizes, 1):
        queries = run.order[:, done : done + size]
        raw, logits, new = step(last, queries.repeat(run.copies, 1), noise[:, done : done + size], done)
        tokens = tokens.scatter(1, queries, new)
        last, done = new.repeat(run.copies, 1), done + size
        yield Step(tokens, queries, logits, raw, torch.full_like(run.seeds, call))


def _check_sweeps(model: Generator, sampling: Sampling) -> None:
    """Raise a ValueError where sweeps are asked of a model that cannot see later tokens."""
    if sampling.sweeps and model.raster_only:
        raise ValueError(
            f"a sweep draws tokens given later ones, which {type(model).__name__} cannot see: leave sweeps out"
        )


def _count_known(tokens: Tensor) -> int:
    """Return the number of known tokens, the same for each image. Raises a ValueError where it is not."""
    counts = (tokens != UNKNOWN).sum(1)
    if (counts != counts[0]).any():
        raise ValueError(
            f"every image of a batch needs the same number of known tokens, got {counts.unique().tolist()}: "
            "sample images with different masks in separate batches"
        )
    return int(counts[0])
