"""One decoding loop for every generator: an order per image, tokens per step, guidance per step, known tokens.

An image's seed alone fixes its order and its noise, whatever the batch it is sampled in. Tokens then agree between
batches in float32 except for near-ties, because matrix products of another size round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    """How to sample.

    steps: network calls; None decodes one token at a time. schedule: see `schedules.tokens_per_step`.
    temperature: > 0. top_k: keep the k likeliest (0 = all). top_p: keep the likeliest that sum to this (1 = all).
    order: an order mode of `orders.MODES`, by default the model's first: random where it can.
    within_step: see `Generator.start`.
    sweeps: how often the finished image is gone over again (block Gibbs sampling): half of its tokens are drawn anew
    given the others, then the other half. ARPG predicts the first tokens of an image without knowing where they lie,
    and on a small grid such a bad start shows; one sweep mends most of it.
    control_guidance: away from the same class without the condition, where there is one, as guidance leads away from
    the same condition without the class: logits = cond + (guidance - 1) * (cond - no class) + (control_guidance - 1) *
    (cond - no condition). Each that is on takes another batch.
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
        """As JSON takes it. What nothing is said of since before there was control is left out."""
        made = asdict(self)
        if self.control_guidance == Guidance():
            del made["control_guidance"]
        return made

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Sampling:
        """What `as_dict` made of one, JSON's lists for tuples included."""
        made = dict(settings)
        for name in {"guidance", "control_guidance"} & made.keys():
            made[name] = Guidance(**{**made[name], "interval": tuple(made[name]["interval"])})
        return cls(**made)


@dataclass(frozen=True)
class Step:
    """One step of the loop, as it is seen from outside. Logits were made in torch's inference mode: clone them before
    they take part in anything with gradients.
    """

    tokens: Tensor  # (B, N) in raster space, UNKNOWN where nothing is decoded yet
    positions: Tensor  # (B, n) raster positions decoded in this step
    logits: Tensor  # (B, n, V) after guidance
    # (branches * B, n, V) before it: conditional, then, where guidance is on, without the class, without the condition
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
    """Inverse-CDF draw: logits (..., V) and noise (...) in [0, 1), as `seeding.uniform` makes it -> tokens (...).

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


@torch.no_grad()
def decode(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
) -> Iterator[Step]:
    """Decode tokens step by step and yields after each step.

    label: (B,) class indices, num_classes for the null class. seeds: (B,) int64. order: (B, N), else drawn from the
    seeds by `sampling.order`. known: (B, N) tokens in raster space, UNKNOWN where they are to be decoded; as many are
    known in each image. They come first in the order, so that what is decoded depends on all of them. A model of raster
    order alone takes them as it gets there, in any number: what it decodes depends on those before it. condition: (B,
    N, D) in raster space, `model.control(images)`. The model is used in evaluation mode, as it is when the first step
    is asked for.
    """
    batch, count, device = len(label), model.num_tokens, model.device
    label, seeds = label.to(device), seeds.to(device)
    if order is None:
        order = orders.make(model.check_order_mode(sampling.order), model.grid, rng.derive(seeds, 0))
    orders.validate(order, model.grid)
    model.check_order(order)
    noise = rng.uniform(rng.derive(seeds, 1), count)
    known = torch.full((batch, count), UNKNOWN, device=device) if known is None else known.to(device)
    order, drawn = order.to(device).expand(batch, -1), known == UNKNOWN
    if model.raster_only:
        places = drawn.any(0).nonzero().flatten().tolist()
        done, end = (places[0], places[-1] + 1) if places else (count, count)
    else:
        done, end = _count_known(known), count
        order = orders.known_first(order, ~drawn)
    sizes = tokens_per_step(sampling.schedule, end - done, sampling.steps)
    if model.raster_only and max(sizes, default=1) > 1:
        raise ValueError(f"{type(model).__name__} decodes one token a step, not {max(sizes)}: leave steps out")

    guidance = sampling.guidance
    if not (guidance.off or model.num_classes):
        raise ValueError("this model has no classes that guidance could lead to: leave guidance out")
    labels, control = [label], sampling.control_guidance
    if not guidance.off:
        labels.append(torch.full_like(label, model.num_classes))
    conditions = [] if condition is None else [condition.to(device)] * len(labels)
    steered = condition is not None and not control.off
    if steered:
        labels.append(label)
        conditions.append(torch.zeros_like(conditions[0]))
    copies = len(labels)
    prefix, given = order[:, :done], known.gather(1, order[:, :done])
    model = packed.inference_copy(model)
    state = model.start(
        torch.cat(labels),
        given.repeat(copies, 1),
        prefix.repeat(copies, 1),
        sampling.within_step,
        condition=torch.cat(conditions) if conditions else None,
    )

    def guide(raw: Tensor, done: int, size: int) -> Tensor:
        logits = raw[:batch] if guidance.off else guided(raw[: 2 * batch], guidance.at(done, size, count))
        if steered:
            logits = logits + (control.at(done, size, count) - 1) * (raw[:batch] - raw[-batch:])
        return logits

    yield from run(model, state, order, known, done, noise, sizes, sampling, guide)


def guided(raw: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: conditional, then unconditional logits (2B, n, V) -> (B, n, V)."""
    conditional, unconditional = raw.chunk(2)
    return torch.lerp(unconditional, conditional, scale)


@torch.no_grad()
def run(
    model: Generator,
    state: State,
    order: Tensor,
    known: Tensor,
    done: int,
    noise: Tensor,
    sizes: list[int],
    sampling: Sampling,
    guide: Callable[[Tensor, int, int], Tensor],
) -> Iterator[Step]:
    """Yield the loop itself, from a state that was started with the known tokens, once for each branch of guidance.

    order: (B, N). known: (B, N) tokens in raster space, UNKNOWN where they are to be drawn. done: with so many of them,
    the first in the order, the state was started. noise: (B, N). sizes: tokens of each step. guide: the logits of a
    step (branches * B, n, V), how many tokens were decoded before it and how many it decodes -> (B, n, V).
    """
    copies, tokens, last = len(state.waiting) // len(order), known, None
    for size in sizes:
        queries = order[:, done : done + size]
        with torch.inference_mode():  # the many small operations are faster without records for gradients
            raw = model.step(state, last, queries.repeat(copies, 1)).float()
        logits = guide(raw, done, size)
        cooled = logits if sampling.temperature == 1 else logits / sampling.temperature
        filtered = filter_logits(cooled, sampling.top_k, sampling.top_p)
        new, given = draw(filtered, noise[:, done : done + size]), known.gather(1, queries)
        new = torch.where(given == UNKNOWN, new, given)
        tokens = tokens.scatter(1, queries, new)
        last, done = new.repeat(copies, 1), done + size
        yield Step(tokens, queries, logits, raw)


def sample(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """Return the finished tokens, (B, N) in raster space: those that `every_step` ends with. Arguments as in
    `decode`."""
    tokens = known
    for step in every_step(model, label, seeds, sampling, order, known, condition):
        tokens = step.tokens
    assert tokens is not None  # without known tokens there is a step
    return tokens.to(model.device)


def every_step(
    model: Generator,
    label: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    order: Tensor | None = None,
    known: Tensor | None = None,
    condition: Tensor | None = None,
) -> Iterator[Step]:
    """Yield the steps of `decode`, then those that go over the image again, `sampling.sweeps` times. Arguments as
    there."""
    check_sweeps(model, sampling)
    unknown = torch.full((len(label), model.num_tokens), UNKNOWN, device=model.device)
    tokens = unknown if known is None else known.to(model.device)
    model = packed.inference_copy(model)  # once for all sweeps
    drawn = tokens == UNKNOWN
    for step in decode(model, label, seeds, sampling, order, tokens, condition):
        tokens = step.tokens
        yield step
    for sweep in range(sampling.sweeps):
        again = rng.derive(seeds.to(model.device), 2, sweep)
        redraw = orders.known_first(orders.random(model.grid, again), drawn)[:, : int(drawn[0].sum())]
        for number, half in enumerate(redraw.tensor_split(2, 1)):
            hidden = tokens.scatter(1, half, UNKNOWN)
            for step in decode(model, label, rng.derive(again, number), sampling, None, hidden, condition):
                tokens = step.tokens
                yield step


def check_sweeps(model: Generator, sampling: Sampling) -> None:
    """Raise a ValueError where sweeps are asked of a model that cannot do them."""
    if sampling.sweeps and model.raster_only:
        raise ValueError(
            f"a sweep draws tokens given later ones, which {type(model).__name__} cannot see: leave sweeps out"
        )


def _count_known(tokens: Tensor) -> int:
    counts = (tokens != UNKNOWN).sum(1)
    if (counts != counts[0]).any():
        raise ValueError(
            f"every image of a batch needs the same number of known tokens, got {counts.unique().tolist()}: "
            "sample images with different masks in separate batches"
        )
    return int(counts[0])
