"""One step of decoding: the record of it, and the tokens that follow from its logits.

A token is drawn in one of two ways, both exact and both a function of noise that belongs to its place in the order:
`draw` inverts the cumulative distribution by one number, `draw_by_race` lets all tokens race by a number each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Generator, State
from ..utils import rng
from .schedules import Guidance

UNKNOWN = -1  # the value of a token that is not decoded yet
BLOCK = 128  # of the vocabulary, in `draw`
Scale = float | Tensor  # of guidance


@dataclass(frozen=True)
class Step:
    """One step of decoding. Logits were made in torch's inference mode: clone them before they take part in anything
    with gradients.
    """

    tokens: Tensor  # (B, N) in raster space, UNKNOWN where nothing is decoded yet
    # (B, n) raster positions decoded in this step; in exact sampling UNKNOWN behind those of an image with fewer
    positions: Tensor
    logits: Tensor  # (B, n, V) after guidance and bias
    # (branches * B, n, V) before guidance; the branches are those of `sampling.decode`
    raw_logits: Tensor
    calls: Tensor  # (B,) network calls that each image has taken so far


@dataclass(frozen=True)
class Pass:
    """One pass over an image, from a state that was started with the known tokens, once for each branch of guidance."""

    model: Generator  # an inference copy
    state: State
    seeds: Tensor  # (B,), of the noise
    order: Tensor  # (B, N)
    known: Tensor  # (B, N) tokens in raster space, UNKNOWN where they are to be drawn
    done: int  # the state was started with so many tokens, the first in the order
    guidances: tuple[Guidance, ...]
    # (logits of some images of the batch (branches * B, n, V), scales of a step, one for each guidance) -> (B, n, V)
    guide: Callable[[Tensor, Sequence[Scale]], Tensor]
    filtered: Callable[[Tensor], Tensor]  # from logits to those that tokens are drawn from
    bias: Tensor | None  # (B, N, V) in raster space

    @property
    def copies(self) -> int:
        """Number of branches."""
        return len(self.state.waiting) // len(self.order)

    def scales(self, done: int | Tensor, size: int) -> tuple[Scale, ...]:
        """Return the scale of each guidance in a step, see `scale_at`."""
        count, device = self.order.shape[1], self.order.device
        return tuple(scale_at(guidance, done, size, count, device) for guidance in self.guidances)

    def logits(self, raw: Tensor, scales: Sequence[Scale], queries: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return logits after guidance and bias: (branches * B, n, V), positions (B, n) -> (B, n, V).

        rows: indices of the images, where they are some of the batch.
        """
        found = self.guide(raw, scales)
        if self.bias is None:
            return found
        rows = torch.arange(len(queries), device=queries.device) if rows is None else rows
        return found + self.bias[rows.unsqueeze(1), queries]


def scale_at(guidance: Guidance, done: int | Tensor, size: int, total: int, device: torch.device) -> Scale:
    """Return the scale of a step, or where its tokens differ that of each, (size, 1).

    done: tokens before the step; or places in the order (B, n), each decoded by a step of its own, for (B, n, 1).
    """
    if isinstance(done, Tensor):
        every = torch.tensor([guidance.at(one, 1, total) for one in range(total)], dtype=torch.float32, device=device)
        return every[done.clamp(max=total - 1)].unsqueeze(-1)
    scales = guidance.scales(done, size, total)
    if guidance.counted != "token":
        return scales[0]
    return torch.tensor(scales, dtype=torch.float32, device=device).unsqueeze(1)  # scales may be whole numbers


def advance(
    run: Pass, last: Tensor | None, asked: Tensor, noise: Tensor, scales: Sequence[Scale]
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step: return its logits before guidance, those after it, and tokens (B, n).

    last: (branches * B, m), the tokens of the last step; None in the first. asked: (branches * B, n) raster positions.
    noise: (B, n). A position of a known token keeps it.
    """
    raw, queries = run.model.step(run.state, last, asked).float(), asked[: len(run.order)]
    logits = run.logits(raw, scales, queries)
    given = run.known.gather(1, queries)
    return raw, logits, torch.where(given == UNKNOWN, draw(run.filtered(logits), noise), given)


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
    check_finite(total)
    threshold = noise.unsqueeze(-1) * total
    block = torch.searchsorted(upto, threshold, right=True)
    within = probability.take_along_dim(block.unsqueeze(-1), -2).squeeze(-2).cumsum(-1)
    # the two levels round differently: a token that the filters excluded must not follow from it
    left = torch.minimum(threshold - F.pad(upto, (1, 0)).gather(-1, block), within[..., -1:] * (1 - 2**-22))
    return (block * BLOCK + torch.searchsorted(within, left, right=True)).squeeze(-1)


def draw_by_race(logits: Tensor, seeds: Tensor) -> Tensor:
    """Draw tokens by the Gumbel-max trick: logits (..., V) and a seed (...) for each draw -> tokens (...).

    Each token of the vocabulary arrives after an exponential time of its own divided by its probability, and the first
    to arrive is drawn. Two draws of one seed from similar distributions are mostly the same token: they differ with a
    probability of at most 2 d / (1 + d), where d is the total variation distance of the distributions. Inverse CDFs of
    one number differ far more often where the vocabulary is large.

    Raises a ValueError as `draw` does.
    """
    best, token = (logits - rng.exponential(seeds, logits.shape[-1]).log()).max(-1)
    check_finite(best)
    return token


def check_finite(values: Tensor) -> None:
    """Raise a ValueError for logits from which no finite values followed, on the CPU: others would have to stop."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling() and not values.isfinite().all():
        raise ValueError("the logits are not finite: are weights, temperature and guidance what they should be?")
