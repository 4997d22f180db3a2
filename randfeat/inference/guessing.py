"""Which class a picture of which only a part is known may be of.

With the known tokens first, the chain rule stops after them: what a random-order model gives is log p(known | class),
of any part of a picture. The class under which the known part is likeliest is then what the rest is painted as. In the
null class, which it saw in a small part of its training, a model guesses anew at every token, and does so less well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import Generator, orders, packed
from ..utils import rng

ROWS = 256  # pictures times classes at a time, of 256 tokens; fewer of more


@torch.no_grad()
def known_log_prob(model: Generator, tokens: Tensor, known: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return the mean over `count` orders of log p(known tokens | class), in nats: float32 (B, classes).

    tokens: (B, N) in raster space, where those that are not known do not matter; known: bool (N,). Of a model of raster
    order alone it is about the known tokens before the first other one.
    """
    tokens, known = tokens.to(model.device), known.to(model.device)
    network, classes, batch = packed.inference_copy(model), model.num_classes, len(tokens)
    total = torch.zeros(batch * classes, device=model.device)
    count = 1 if model.raster_only else count
    for k in range(count):
        seeds = rng.derive(torch.tensor([seed]), 7, k)
        order = orders.make(model.order_modes[0], model.grid, seeds).to(model.device)
        if not model.raster_only:
            order = orders.known_first(order, known)
        counted = _readable(model, known)[order[0]]
        read = tokens.gather(1, order.expand(batch, -1))
        for rows in torch.arange(batch * classes, device=model.device).split(max(1, ROWS * 256 // tokens.shape[1])):
            of = rows // classes
            logits = network(tokens[of], rows % classes, order.expand(len(rows), -1))[:, counted].float()
            picked = logits.log_softmax(-1).gather(-1, read[of][:, counted].unsqueeze(-1))
            total[rows] += picked.sum((1, 2)) / count
    return total.view(batch, classes)


def guess(model: Generator, tokens: Tensor, known: Tensor, count: int) -> Tensor:
    """Return the class under which the known tokens are likeliest, the null class where none is known: int64 (B,)."""
    scores = known_log_prob(model, tokens, known, count)
    if not _readable(model, known).any():
        return torch.full((len(tokens),), model.num_classes)
    return scores.argmax(1).cpu()


def _readable(model: Generator, known: Tensor) -> Tensor:
    """Known tokens whose predecessors are all known, in some order that the model can read."""
    return known.cummin(0).values if model.raster_only else known
