"""Changes of pretraining that might make a random-order generator read better, each beside the plain recipe for as many
steps.

All of them leave the network as it is, so what they train is read and sampled like any RandAR or ARPG.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from randfeat.pretrain import Objective, cross_entropy
from torch import Tensor, nn

from randfeat.models import Generator, orders
from randfeat.models.arpg import ARPG
from randfeat.models.layers import causal_mask, rope_at
from randfeat.models.randar import RandAR


class Variant(nn.Module, ABC):
    """An objective of a generator; held out it is the plain one, so that losses can be compared."""

    def __init__(self, model: Generator, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.generator, self.plain = model, Objective(model)

    def forward(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if not self.generator.training:
            return self.plain(tokens, labels, order)
        return self.trained(tokens, labels, order, paired)

    @abstractmethod
    def trained(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, while training. paired: tokens (B, N) of the same images at another place."""


class Prefix(Variant):
    """Half of the steps let the first places of the order, as many as a draw says, see each other without a mask, and
    predict the others from them: context `full` is then what the network was trained with.
    """

    def trained(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        count, drawn = tokens.shape[1], torch.rand(2)
        if drawn[0] < 0.5:
            return self.plain(tokens, labels, order)
        known = 1 + int(drawn[1] * (count - 1))
        return self.behind(tokens, labels, order, known)

    def behind(self, tokens: Tensor, labels: Tensor | None, order: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """Return the loss behind the first `known` places, made as large as if it were one of all N."""
        model, read = self.generator, orders.gather(tokens, order)
        states = PREDICTORS[type(model)](model, model.labels(labels, len(tokens)), read, order, known)
        targets = read[:, known:]
        weight = tokens.shape[1] / targets.shape[1]
        total, losses = cross_entropy(states.flatten(0, 1), model.head.weight, targets.flatten())
        return total * weight, F.pad(losses.view_as(targets) * weight, (known, 0))


def _randar(model: RandAR, label: Tensor, read: Tensor, order: Tensor, known: int) -> Tensor:
    """What the head reads to predict the tokens behind the first `known`, which see each other: (B, N - known, D). Each
    later one sees those before it, too."""
    table = model.rope(read.device)
    x, places = model._sequence(model._instructions(table), label, read, order)
    x, rope = x[:, :-1], rope_at(table, places[:, :-1])
    mask = causal_mask(x.shape[1], x.shape[1], read.device)
    mask[: 2 * known + 1, : 2 * known + 1] = True  # the class, and an instruction and a token of each place
    for block in model.blocks:
        x = block(x, rope, mask=mask)
    return model.norm(x[:, 1::2])[:, known:]


def _arpg(model: ARPG, label: Tensor, read: Tensor, order: Tensor, known: int) -> Tensor:
    """Return the same of ARPG, whose later ones see the known tokens alone."""
    table = model.rope(read.device)
    x, places = model._content(label, read[:, :known], order[:, :known])
    rope = rope_at(table, places)
    for block in model.blocks:
        x = block(x, rope)
    k, v = model._shared(x, rope)
    asked = order[:, known:]
    y, target = model._queries(asked), rope_at(table, asked)
    for block in model.cross_blocks:
        y = block(y, target, k, v)
    return model.norm(y)


PREDICTORS = {RandAR: _randar, ARPG: _arpg}


class Noise(Variant):
    """A tenth of the tokens that are fed are drawn at random; what is predicted is not."""

    share = 0.1

    def trained(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        model = self.generator
        wrong = torch.rand(tokens.shape, device=tokens.device) < self.share
        noisy = torch.where(wrong, torch.randint_like(tokens, model.vocab_size), tokens)
        states, targets = model.pre_logits(noisy, labels, order), orders.gather(tokens, order)
        total, losses = cross_entropy(states.flatten(0, 1), model.head.weight, targets.flatten())
        return total, losses.view_as(targets)


class Agree(Variant):
    """Half of the images, each in two orders: beside the tokens the mean of an image's states shall tell which of the
    others is the same image (InfoNCE, arXiv 1807.03748), a light distillation between two orders that costs no more.
    """

    share, temperature = 0.1, 0.1  # of the loss of all tokens, for a nat that the images are not told apart by

    def trained(
        self, tokens: Tensor, labels: Tensor | None, order: Tensor, paired: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        half = len(tokens) // 2
        if not half:
            return self.plain(tokens, labels, order)
        other = tokens if paired is None else paired
        twice, order = torch.cat((tokens[:half], other[:half])), order[: 2 * half]
        labels = None if labels is None else labels[:half].repeat(2)
        states, targets = self.generator.pre_logits(twice, labels, order), orders.gather(twice, order)
        total, losses = cross_entropy(states.flatten(0, 1), self.generator.head.weight, targets.flatten())
        one, two = F.normalize(states.mean(1), dim=-1).chunk(2)
        likeness, same = one @ two.T / self.temperature, torch.arange(half, device=tokens.device)
        apart = (F.cross_entropy(likeness, same) + F.cross_entropy(likeness.T, same)) / 2
        whole = len(tokens) / (2 * half)  # of an odd batch one image is left out
        return whole * (total + self.share * apart * targets.numel()), losses.view_as(targets)
