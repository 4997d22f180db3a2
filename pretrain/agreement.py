"""Agreement of two crops of an image: a loss on pooled states beside that of the tokens, so that features of a picture
stay where it is moved, mirrored or cut, and the network still writes.

The projector is a part of the generator while it is trained, as checkpoints, averages of weights and several processes
keep the parameters of a generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randfeat.models import Context, Generator, orders
from randfeat.utils import rng

from .config import AgreementConfig
from .objective import Objective

PROJECTOR = "projector"  # its name in the generator


class Projector(nn.Sequential):
    """Two layers from pooled states (B, D) to vectors (B, dim) that are compared.

    The inner normalisation is over the images at once, which keeps them apart, and has no state.
    """

    def __init__(self, width: int, config: AgreementConfig) -> None:
        super().__init__(
            nn.Linear(width, config.width),
            nn.BatchNorm1d(config.width, track_running_stats=False),
            nn.ReLU(),
            nn.Linear(config.width, config.dim),
        )


@contextmanager
def projecting(model: Generator, config: AgreementConfig, seed: int) -> Iterator[None]:
    """Give a generator a fresh projector inside the context, a function of the seed, and take it away afterwards."""
    with torch.random.fork_rng([]):
        torch.manual_seed(int(rng.derive(seed, 6)))
        projector = Projector(model.embed_dim, config)
    model.add_module(PROJECTOR, projector.to(model.device, model.dtype))
    try:
        yield
    finally:
        delattr(model, PROJECTOR)


class AgreementObjective(Objective):
    """Loss of the tokens and, in training, of the agreement of two crops."""

    def __init__(self, generator: Generator, in_bfloat16: bool, config: AgreementConfig) -> None:
        super().__init__(generator, in_bfloat16)
        self.config = config

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        order: Tensor,
        paired: Tensor | None = None,
        sizes: tuple[int, ...] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the same as `Objective`. paired: tokens (B, N) of another crop of each image; None for the loss of the
        tokens alone.
        """
        total, losses = super().forward(tokens, labels, order, None, sizes)
        if paired is None:
            return total, losses
        with self.precision(tokens.device):
            pooled = self._pooled(torch.cat((tokens, paired)), torch.cat((order, order)))
            vectors = self.generator.get_submodule(PROJECTOR)(pooled).float()
        first, second = vectors.chunk(2)
        loss = nt_xent(first, second, self.config.temperature)
        return total + self.config.weight * tokens.numel() * loss, losses

    def _pooled(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Return the mean state after the last block: tokens (B, N) -> (B, D)."""
        raster = orders.raster(self.generator.grid).to(tokens.device).expand_as(order)
        context = cast(Context, self.config.context)
        return self.generator.hidden(tokens, None, raster, [self.generator.depth], context, "query")[0].mean(1)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean loss of telling each vector's partner from all others: (B, d), (B, d) -> ().

    Similarities are cosines over the temperature (SimCLR, arXiv 2002.05709, section 2.1).
    """
    vectors = F.normalize(torch.cat((first, second)), dim=-1)
    count = len(first)
    similarities = (vectors @ vectors.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * count, device=vectors.device).roll(count)
    return F.cross_entropy(similarities, partners)
