"""Decoding loop of every generator: an order per image, tokens per step, guidance per step, known tokens, sweeps.

An image's seed alone fixes its order and its noise, whatever the batch it is sampled in. Tokens then agree between
batches in float32 except for near-ties, because matrix products of another size round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Generator, State, orders, packed
from ..utils import rng
from ..utils.checks import check_whole_number
from .schedules import Guidance, Schedule, tokens_per_step, with_plain_numbers

UNKNOWN = -1  # the value of a token that is not decoded yet
BLOCK = 128  # of the vocabulary, in `draw`


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    steps: network calls; None decodes one token at a time. schedule: see `schedules.tokens_per_step`.
    temperature: > 0. top_k: keep the k likeliest (0 = all). top_p: keep the likeliest that sum to this (1 = all).
    order: an order mode of `orders.MODES`, by default the model's first: random where it can.
    within_step: see `Generator.start`.
    sweeps: Gibbs refinement sweeps over the finished image (block Gibbs sampling): each draws one half of its tokens
        anew given the others, then the other half. ARPG predicts the first tokens of an image without knowing their
        positions, and on a small grid such a bad start shows; one sweep mends most of it.
    control_guidance: guidance away from the same class without the condition, for a model with control: logits = cond +
        (guidance - 1) * (cond - no class) + (control_guidance - 1) * (cond - no condition). Each guidance that is on
        adds a branch to the batch.
    """

    steps: int | None = None
    schedule: Schedule = "cosine-randar"
    guidance: Guidance = field(default_factory=Guidance)
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    order: str | None = None
    within_step: str | None = None
    sweeps: int = 0
    control_guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        with_plain_numbers(self)
        for name in ("guidance", "control_guidance"):
            if not isinstance(value := getattr(self, name), Guidance):
                raise ValueError(f"{name} is an object, got {value!r}: write Guidance({value!r})")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; top_k=1 is greedy")
        check_whole_number("top_k", self.top_k)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        check_whole_number("sweeps", self.sweeps, 0)
        tokens_per_step(self.schedule, 1, self.steps)  # raises for a wrong name or number of steps

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON takes them. A control_guidance that is off is left out, as in settings that were
        written before there was control.
        """
        made = asdict(self)
        if self.control_guidance == Guidance():
            del made["control_guidance"]
        return made

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Sampling:
        """Return the settings that `as_dict` made, with JSON's lists as tuples again."""
        made = dict(settings)
        for name in {"guidance", "control_guidance"} & made.keys():
            made[name] = Guidance(**{**made[name], "interval": tuple(made[name]["interval"])})
        return cls(**made)


@dataclass(frozen=True)
class Step:
    """One step of decoding. Logits were made in torch's inference mode: clone them before they take part in anything
    with gradients.
    """

    tokens: Tensor  # (B, N) in raster space, UNKNOWN where nothing is decoded yet
    positions: Tensor  # (B, n) raster positions decoded in this step
    logits: Tensor  # (B, n, V) after guidance
    # (branches * B, n, V) before guidance, see `_Branches`
    raw_logits: Tensor


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set to -inf what top-k, then top-p (nucleus) sampling excludes. (..., V) -> (..., V).

    Top-k keeps ties with the k-th value; k <= 0 is off and k > V keeps all. Top-p keeps a token if those likelier than
    it sum to at most p, so the first is always kept; p >= 1 is off.
    """
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        values, places = logits.sort(-1, descending=True)
        probability = values.softmax(-1)
        removed = probability.cumsum(-1) - probability > top_p
        logits = logits.masked_fill(removed.gather(-1, places.argsort(-1)), -torch.inf)
    return logits


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw tokens by inverse CDF: logits (..., V) and noise (...) in [0, 1), as `rng.uniform` makes it -> tokens (...).

    Raises a ValueError for logits that are not finite (-inf excludes a token), on the CPU only.
    """
    # in two levels, first the block of the vocabulary and then the token in it: on a CPU a long cumulative sum is slow
    # (and, in float32, coarse), short ones and plain sums are not
    if rest := -logits.shape[-1] % BLOCK:
        logits = F.pad(logits, (0, rest), value=-torch.inf)
    probability = logits.float().softmax(-1).unflatten(-1, (-1, BLOCK))
    upto = probability.sum(-1).cumsum(-1)
    total = upto[..., -1:]
    if total.device.type == "cpu" and not total.isfinite().all():  # elsewhere the device would have to stop for it
        raise ValueError("the logits are not finite: are weights, temperature and guidance what they should be?")
    threshold = noise.unsqueeze(-1) * total
    block = torch.searchsorted(upto, threshold, right=True)
    within = probability.take_along_dim(block.unsqueeze(-1), -2).squeeze(-2).cumsum(-1)
    # the two levels round differently: a token that the filters excluded must not follow from it
    left = torch.minimum(threshold - F.pad(upto, (1, 0)).gather(-1, block), within[..., -1:] * (1 - 2**-22))
    return (block * BLOCK + torch.searchsorted(within, left, right=True)).squeeze(-1)


def decode(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
) -> Iterator[Step]:
    """Decode tokens step by step, then refine them by the sweeps of `sampling`; yield after each step.

    label: (B,) class indices, num_classes for the null class. seeds: (B,) int64. order: (B, N), else drawn from the
    seeds by `sampling.order`. known: (B, N) tokens in raster space, UNKNOWN where they are to be decoded; as many are
    known in each image. They come first in the order, so that decoded tokens depend on all of them. A model of raster
    order alone takes them at their positions, in any number: its tokens depend on those before them. condition: (B, N,
    D) in raster space, `model.control(images)`. The model is used in evaluation mode, in its state at the first step.
    """
    _check_sweeps(model, sampling)
    label, seeds = label.to(model.device), seeds.to(model.device)
    tokens = torch.full((len(label), model.num_tokens), UNKNOWN) if known is None else known
    tokens = tokens.to(model.device)
    drawn = tokens == UNKNOWN
    model = packed.inference_copy(model)  # once for all sweeps
    branches = _Branches(model, label, sampling, condition)
    for step in _decode_once(model, branches, seeds, sampling, order, tokens):
        tokens = step.tokens
        yield step
    for sweep in range(sampling.sweeps):
        again = rng.derive(seeds, 2, sweep)
        redraw = orders.known_first(orders.random(model.grid, again), drawn)[:, : int(drawn[0].sum())]
        for number, half in enumerate(redraw.tensor_split(2, 1)):
            hidden = tokens.scatter(1, half, UNKNOWN)
            for step in _decode_once(model, branches, rng.derive(again, number), sampling, None, hidden):
                tokens = step.tokens
                yield step


def sample(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """Return the tokens that `decode`, with the same arguments, ends with: int64 (B, N) in raster space."""
    tokens = known
    for step in decode(model, label, seeds, sampling, order, known, condition):
        tokens = step.tokens
    assert tokens is not None  # without known tokens there is a step
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
        self.batch, self.count, self.sampling = len(label), len(labels), sampling
        self.labels = torch.cat(labels)  # (count * B,)
        self.conditions = torch.cat(conditions) if conditions else None  # (count * B, N, D)
        self.num_tokens = model.num_tokens

    def guide(self, raw: Tensor, done: int, size: int) -> Tensor:
        """Return the logits of a step after guidance, see `Loop.guide`."""
        guidance, control, batch = self.sampling.guidance, self.sampling.control_guidance, self.batch
        logits = raw[:batch]
        if not guidance.off:
            logits = guided(raw[: 2 * batch], guidance.at(done, size, self.num_tokens))
        if self.controlled:
            logits = logits + (control.at(done, size, self.num_tokens) - 1) * (raw[:batch] - raw[-batch:])
        return logits


@torch.no_grad()
def _decode_once(
    model: Generator, branches: _Branches, seeds: Tensor, sampling: Sampling, order: Tensor | None, known: Tensor
) -> Iterator[Step]:
    """Decode the unknown tokens of `known`, (B, N) on the model's device, in one pass without sweeps."""
    count, device = model.num_tokens, model.device
    if order is None:
        order = orders.make(model.check_order_mode(sampling.order), model.grid, rng.derive(seeds, 0))
    orders.validate(order, model.grid)
    model.check_order(order)
    order, drawn = order.to(device).expand(len(known), -1), known == UNKNOWN
    if model.raster_only:
        places = drawn.any(0).nonzero().flatten().tolist()
        done, end = (places[0], places[-1] + 1) if places else (count, count)
    else:
        done, end = _count_known(known), count
        order = orders.known_first(order, ~drawn)
    sizes = tokens_per_step(sampling.schedule, end - done, sampling.steps)
    if model.raster_only and max(sizes, default=1) > 1:
        raise ValueError(f"{type(model).__name__} decodes one token a step, not {max(sizes)}: leave steps out")
    prefix, copies = order[:, :done], branches.count
    state = model.start(
        branches.labels,
        known.gather(1, prefix).repeat(copies, 1),
        prefix.repeat(copies, 1),
        sampling.within_step,
        condition=branches.conditions,
    )
    yield from Loop(model, state, sampling, seeds, order, known, done, sizes, branches.guide).steps()


def guided(raw: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance to conditional, then unconditional logits: (2B, n, V) -> (B, n, V)."""
    conditional, unconditional = raw.chunk(2)
    return torch.lerp(unconditional, conditional, scale)


@dataclass(frozen=True)
class Loop:
    """The decoding loop of one pass, from a state that was started with the known tokens, once for each branch."""

    model: Generator  # an inference copy
    state: State
    sampling: Sampling
    seeds: Tensor  # (B,), of the noise
    order: Tensor  # (B, N)
    known: Tensor  # (B, N) tokens in raster space, UNKNOWN where they are to be drawn
    done: int  # the state was started with so many tokens, the first in the order
    sizes: Sequence[int]  # tokens of each step
    # (logits of a step (branches * B, n, V), tokens decoded before it, tokens that it decodes) -> (B, n, V)
    guide: Callable[[Tensor, int, int], Tensor]

    @torch.no_grad()
    def steps(self) -> Iterator[Step]:
        """Decode step by step, and yield after each."""
        order, known, done, tokens, last = self.order, self.known, self.done, self.known, None
        copies, noise = len(self.state.waiting) // len(order), rng.uniform(rng.derive(self.seeds, 1), order.shape[1])
        temperature, top_k, top_p = self.sampling.temperature, self.sampling.top_k, self.sampling.top_p
        for size in self.sizes:
            queries = order[:, done : done + size]
            with torch.inference_mode():  # the many small operations are faster without records for gradients
                raw = self.model.step(self.state, last, queries.repeat(copies, 1)).float()
            logits = self.guide(raw, done, size)
            cooled = logits if temperature == 1 else logits / temperature
            new = draw(filter_logits(cooled, top_k, top_p), noise[:, done : done + size])
            given = known.gather(1, queries)
            new = torch.where(given == UNKNOWN, new, given)
            tokens = tokens.scatter(1, queries, new)
            last, done = new.repeat(copies, 1), done + size
            yield Step(tokens, queries, logits, raw)


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
