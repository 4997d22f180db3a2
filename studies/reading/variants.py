"""Variants of the pretraining objective that might improve features, each trained for as many steps as the plain one.

They leave the network as it is, so features and samples come from it as from any RandAR or ARPG.
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
    """Base of objectives that equal the plain one in evaluation, so that validation losses can be compared."""

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
        """Return the result of `forward` in training. paired: tokens (B, N) of the same images at another place."""


class Prefix(Variant):
    """Prefix objective: in half of the steps, a random number of first places see each other without a mask.

    The other places are predicted from them, so the network is trained with context `full`.
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
        """Return the loss behind the first `known` places, scaled to all N places."""
        model, read = self.generator, orders.gather(tokens, order)
        states = PREDICTORS[type(model)](model, model.labels(labels, len(tokens)), read, order, known)
        targets = read[:, known:]
        weight = tokens.shape[1] / targets.shape[1]
        total, losses = cross_entropy(states.flatten(0, 1), model.head.weight, targets.flatten())
        return total * weight, F.pad(losses.view_as(targets) * weight, (known, 0))


def _randar(model: RandAR, label: Tensor, read: Tensor, order: Tensor, known: int) -> Tensor:
    """Return the states that predict the tokens behind the first `known`, which see each other: (B, N - known, D).

    Each later token sees those before it, too.
    """
    table = model.rope(read.device)
    x, places = model._sequence(model._instructions(table), label, read, order)
    x, rope = x[:, :-1], rope_at(table, places[:, :-1])
    mask = causal_mask(x.shape[1], x.shape[1], read.device)
    mask[: 2 * known + 1, : 2 * known + 1] = True  # the class, and an instruction and a token of each place
    for block in model.blocks:
        x = block(x, rope, mask=mask)
    return model.norm(x[:, 1::2])[:, known:]


def _arpg(model: ARPG, label: Tensor, read: Tensor, order: Tensor, known: int) -> Tensor:
    """Return the same of ARPG, whose later tokens see only the known ones."""
    table = model.rope(read.device)
    x, places = model._content(label, read[:, :known], order[:, :known])
    rope = rope_at(table, places)
    for block in model.blocks:
        x = block(x, rope)
    k, v = model._shared(x, rope)
    asked = order[:, known:]
    target = rope_at(table, asked)
    y = model._queries(asked, target)
    for block in model.cross_blocks:
        y = block(y, target, k, v)
    return model.norm(y)


PREDICTORS = {RandAR: _randar, ARPG: _arpg}


class Noise(Variant):
    """Noise objective: a tenth of the input tokens are random; the targets are not."""

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
    """Agreement objective: half of the images, each in two orders, with InfoNCE (arXiv 1807.03748) between the states.

    The mean of an image's states has to identify the same image in the other order. It costs no more than the plain
    objective.
    """

    share, temperature = 0.1, 0.1  # weight of a nat of InfoNCE, as a share of the number of tokens

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
        all_images = len(tokens) / (2 * half)  # of an odd batch one image is left out
        return all_images * (total + self.share * apart * targets.numel()), losses.view_as(targets)
