"""Changes of RandAR's pretraining that might make it read better, each beside the plain recipe at the same cost.

All of them leave the network as it is, so what they train is read and sampled like any RandAR.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from randfeat.pretrain import Objective, cross_entropy
from torch import Tensor, nn

from randfeat import orders
from randfeat.layers import causal_mask, rope_at
from randfeat.models.randar import RandAR


class Variant(nn.Module, ABC):
    """An objective of RandAR; held out it is the plain one, so that losses can be compared."""

    def __init__(self, model: RandAR, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.generator, self.plain = model, Objective(model)

    def forward(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        if not self.generator.training:
            return self.plain(tokens, labels, order)
        return self.trained(tokens, labels, order)

    @abstractmethod
    def trained(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, while training."""


class Prefix(Variant):
    """Half of the steps let the first places of the order, as many as a draw says, see each other without a mask, and
    predict the others: context `full` is then what the network was trained with.
    """

    def trained(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        known = _known(tokens.shape[1])
        if not known:
            return self.plain(tokens, labels, order)
        model, inputs = self.generator, 2 * tokens.shape[1]
        mask = causal_mask(inputs, inputs, tokens.device)
        mask[: 2 * known + 1, : 2 * known + 1] = True  # the class, and an instruction and a token of each place
        return _after(model, tokens, labels, order, torch.arange(tokens.shape[1]), known, mask)


class Echo(Variant):
    """Half of the steps read the first places of the order twice before they predict the others: context `echo` is then
    what the network was trained with.
    """

    def trained(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        known = _known(tokens.shape[1])
        if not known:
            return self.plain(tokens, labels, order)
        places = torch.cat((torch.arange(known), torch.arange(tokens.shape[1])))
        return _after(self.generator, tokens, labels, order, places, 2 * known, None)


class Noise(Variant):
    """A tenth of the tokens that are fed are drawn at random; what is predicted is not."""

    share = 0.1

    def trained(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        model = self.generator
        wrong = torch.rand(tokens.shape, device=tokens.device) < self.share
        noisy = torch.where(wrong, torch.randint_like(tokens, model.vocab_size), tokens)
        states, targets = model.pre_logits(noisy, labels, order), orders.gather(tokens, order)
        total, losses = cross_entropy(states.flatten(0, 1), model.head.weight, targets.flatten())
        return total, losses.view_as(targets)


def _known(count: int) -> int:
    """How many places are known before the first is predicted: 0 in half of the steps, or from 1 to count - 1."""
    drawn = torch.rand(2)
    return 0 if drawn[0] < 0.5 else 1 + int(drawn[1] * (count - 1))


def _after(
    model: RandAR, tokens: Tensor, labels: Tensor | None, order: Tensor, places: Tensor, known: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The loss of the tokens behind the first `known` pairs of a sequence that goes through `places` of the order, made
    as large as if it had all N of them."""
    read, visited = orders.gather(tokens, order)[:, places], order[:, places]
    table = model.rope(tokens.device)
    x, positions = model._sequence(model._instructions(table), model.labels(labels, len(tokens)), read, visited)
    x, rope = x[:, :-1], rope_at(table, positions[:, :-1])
    for block in model.blocks:
        x = block(x, rope, mask=mask, causal=mask is None)
    states, targets = model.norm(x[:, 1::2])[:, known:], read[:, known:]
    total, losses = cross_entropy(states.flatten(0, 1), model.head.weight, targets.flatten())
    weight = tokens.shape[1] / targets.shape[1]
    by_place = F.pad(losses.view_as(targets) * weight, (tokens.shape[1] - targets.shape[1], 0))
    return total * weight, by_place
