"""Quantisers: latents to codes of a finite set, with a straight-through gradient and the losses that train them.

A learned codebook (VQ-VAE, arXiv 1711.00937; compared by angle as in arXiv 2110.04627), finite scalar quantisation
(FSQ, arXiv 2309.15505) and lookup-free quantisation (LFQ, arXiv 2310.05737). Shapes: E channels of a code, V codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.checks import check_whole_number
from .base import nearest

QUANTIZERS = ("vq", "fsq", "lfq")
MOST_BITS = 20  # of lookup-free codes: the entropy of the mean takes a table of all codes
MARGIN = 1e-3  # by which FSQ's bounds exceed the outermost levels, so that latents reach them
TEMPERATURE = 0.01  # of the probabilities in LFQ's entropies, as in MAGVIT-v2's open implementations


@dataclass(frozen=True)
class Quantized:
    """Codes of latents, for training.

    codes: (B, E, h, w), with a straight-through gradient to the latents. tokens: int64 (B, h, w). losses: scalars,
    unweighted means over positions: those of "codebook", "commitment" and "entropy" that the quantiser has.
    """

    codes: Tensor
    tokens: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Base of quantisers, from vectors of `code_dim` channels to one of `vocab_size` codes."""

    vocab_size: int
    code_dim: int

    def indices(self, latents: Tensor) -> Tensor:
        """Return the tokens of latents: (..., E) -> int64 (...)."""
        return self._nearest(self.prepared(latents))

    @abstractmethod
    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes of tokens, as a decoder takes them: int64 (...) -> (..., E)."""

    def forward(self, latents: Tensor) -> Quantized:
        """Return codes, tokens and losses of latents (B, E, h, w), in float32 under autocast too."""
        with torch.autocast(latents.device.type, enabled=False):  # half precision would change the nearest codes
            latents = latents.to(torch.promote_types(latents.dtype, torch.float32))
            prepared = self.prepared(latents.permute(0, 2, 3, 1))
            tokens = self._nearest(prepared.detach())
            codes = self.codes(tokens)
            straight = prepared + (codes - prepared).detach()
            return Quantized(straight.permute(0, 3, 1, 2), tokens, self._losses(prepared, codes))

    def prepared(self, latents: Tensor) -> Tensor:
        """Return latents (..., E) as they are compared with codes."""
        return latents

    @abstractmethod
    def _nearest(self, prepared: Tensor) -> Tensor:
        """Return the tokens of prepared latents: (..., E) -> int64 (...)."""

    @abstractmethod
    def _losses(self, prepared: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Return the losses of prepared latents and their codes, both (B, h, w, E)."""


class Codebook(Quantizer):
    """Learned codes (V, E), in a parameter with the name of official checkpoints, `embedding.weight`.

    normalised: latents and codes are divided by their lengths, so that codes are compared by angle. Fresh codes are
    LlamaGen's: of unit length where they are normalised, else uniform in [-1 / V, 1 / V].
    """

    def __init__(self, vocab_size: int, code_dim: int, normalised: bool = False) -> None:
        super().__init__()
        self.vocab_size, self.code_dim, self.normalised = vocab_size, code_dim, normalised
        self.embedding = nn.Embedding(vocab_size, code_dim)
        with torch.no_grad():
            if normalised and not self.embedding.weight.is_meta:  # there a norm makes PyTorch import its compiler
                self.embedding.weight.copy_(F.normalize(self.embedding.weight, dim=1))
            elif not normalised:
                self.embedding.weight.uniform_(-1 / vocab_size, 1 / vocab_size)

    def codes(self, indices: Tensor) -> Tensor:
        return self.prepared(self.embedding(indices))

    def prepared(self, latents: Tensor) -> Tensor:
        return F.normalize(latents, dim=-1) if self.normalised else latents

    @torch.no_grad()
    def _nearest(self, prepared: Tensor) -> Tensor:
        vectors = prepared.reshape(-1, self.code_dim)
        return nearest(vectors, self.prepared(self.embedding.weight)).view(prepared.shape[:-1])

    def _losses(self, prepared: Tensor, codes: Tensor) -> dict[str, Tensor]:
        return {
            "codebook": F.mse_loss(codes, prepared.detach()),
            "commitment": F.mse_loss(prepared, codes.detach()),
        }


class FiniteScalar(Quantizer):
    """Finite scalar quantisation: each channel is bounded and rounded to one of its levels, without a codebook.

    levels: of each channel, at least 3; V is their product. Codes lie in [-1, 1].
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels:
            raise ValueError("FSQ needs levels: give a list of whole numbers, such as [8, 8, 8, 5, 5]")
        for level in levels:
            check_whole_number("each of FSQ's levels", level, 3)
        self.levels = [*map(int, levels)]
        self.vocab_size, self.code_dim = math.prod(self.levels), len(self.levels)

    def codes(self, indices: Tensor) -> Tensor:
        places = torch.tensor([math.prod(self.levels[:i]) for i in range(self.code_dim)], device=indices.device)
        levels = torch.tensor(self.levels, device=indices.device)
        digits = indices.unsqueeze(-1) // places % levels
        half = levels // 2
        return (digits - half).float() / half

    def prepared(self, latents: Tensor) -> Tensor:
        levels = latents.new_tensor(self.levels)
        reach = (levels - 1) * (1 + MARGIN) / 2
        offset = (1 - levels % 2) / 2  # an even number of levels lies half a level off 0
        return (torch.tanh(latents + torch.atanh(offset / reach)) * reach - offset) / (levels // 2)

    @torch.no_grad()
    def _nearest(self, prepared: Tensor) -> Tensor:
        half = torch.tensor(self.levels, device=prepared.device) // 2
        digits = (prepared * half).round().long() + half
        places = torch.tensor([math.prod(self.levels[:i]) for i in range(self.code_dim)], device=prepared.device)
        return (digits * places).sum(-1)

    def _losses(self, prepared: Tensor, codes: Tensor) -> dict[str, Tensor]:
        return {}


class LookupFree(Quantizer):
    """Lookup-free quantisation: a code is the signs of the latents, +1 or -1 in each of its E channels; V is 2^E.

    The entropy loss is the mean entropy of p(code | latents) minus the entropy of its mean, so that latents are decided
    and all codes are used; p is the softmax of squared distances over `TEMPERATURE`.
    """

    def __init__(self, code_dim: int) -> None:
        super().__init__()
        check_whole_number("code_dim of LFQ", code_dim, 1)
        if code_dim > MOST_BITS:
            raise ValueError(f"LFQ of {code_dim} channels has 2^{code_dim} codes: give a code_dim up to {MOST_BITS}")
        self.vocab_size, self.code_dim = 2 ** int(code_dim), int(code_dim)

    def codes(self, indices: Tensor) -> Tensor:
        return ((indices.unsqueeze(-1) >> self._shifts(indices.device)) & 1).float() * 2 - 1

    @torch.no_grad()
    def _nearest(self, prepared: Tensor) -> Tensor:
        return ((prepared > 0).long() << self._shifts(prepared.device)).sum(-1)

    def _shifts(self, device: torch.device) -> Tensor:
        return torch.arange(self.code_dim - 1, -1, -1, device=device)  # the first channel is the highest bit

    def _losses(self, prepared: Tensor, codes: Tensor) -> dict[str, Tensor]:
        return {
            "commitment": F.mse_loss(prepared, codes),
            "entropy": sign_entropy(prepared.flatten(0, -2), TEMPERATURE),
        }


def sign_entropy(latents: Tensor, temperature: float) -> Tensor:
    """Return the mean entropy of the signs of latents minus the entropy of their mean distribution, in nats.

    latents: (n, E). Over all 2^E codes p(code | latents) is the softmax of -|latents - code|^2 / temperature, which is
    a product over channels. So its entropy is a sum over channels, and the mean of n such products is one matrix
    product of the two halves of the channels: of n * 2^E numbers only n * 2^(E / 2) are ever in memory.
    """
    logits = 4 / temperature * latents  # of +1 against -1
    likely = torch.sigmoid(logits)
    each = (F.softplus(logits) - logits * likely).sum(1).mean()
    halves = latents.shape[1] // 2
    first, second = (_joint(part) for part in (likely[:, :halves], likely[:, halves:]))
    mean = first.T @ second / len(latents)
    return each + (mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()


def _joint(likely: Tensor) -> Tensor:
    """Return the probabilities of all signs of independent channels: (n, E) of +1 -> (n, 2^E)."""
    joint = likely.new_ones(len(likely), 1)
    for channel in likely.unbind(1):
        joint = torch.cat([joint * (1 - channel[:, None]), joint * channel[:, None]], 1)
    return joint


def create(
    kind: str,
    vocab_size: int | None = None,
    code_dim: int | None = None,
    normalised: bool = True,
    levels: Sequence[int] | None = None,
) -> Quantizer:
    """Return a quantiser by its name in `QUANTIZERS`.

    vocab_size, code_dim: by default 16,384 and 8 of a codebook; of FSQ those of its `levels`, and of LFQ each follows
    from the other. normalised: of a codebook. Raises a ValueError where they contradict one another.
    """
    if kind not in QUANTIZERS:
        raise ValueError(f"unknown quantizer {kind!r}, expected one of {', '.join(QUANTIZERS)}")
    if (levels is not None) != (kind == "fsq"):
        raise ValueError(f"levels are given for quantizer fsq and no other, got {levels} for {kind}")
    for name, value in (("vocab_size", vocab_size), ("code_dim", code_dim)):
        if value is not None:
            check_whole_number(name, value, 1)
    if kind == "vq":
        return Codebook(16384 if vocab_size is None else vocab_size, 8 if code_dim is None else code_dim, normalised)
    if not normalised:
        raise ValueError(f"l2_norm is about the codes of quantizer vq, which {kind} has not: leave it out")
    if kind == "fsq":
        made: Quantizer = FiniteScalar(levels or ())
    else:
        made = LookupFree(code_dim or max(1, ((vocab_size or 16384) - 1).bit_length()))
    for name, value, found in (
        ("vocab_size", vocab_size, made.vocab_size),
        ("code_dim", code_dim, made.code_dim),
    ):
        if value not in (None, found):
            raise ValueError(
                f"{kind} of {made.code_dim} channels has {made.vocab_size:,} codes, got {name}={value}: leave it out"
            )
    return made
