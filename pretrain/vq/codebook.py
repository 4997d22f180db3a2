"""Care of a learned codebook: codes that no latent takes are moved to latents of the current batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from randfeat.tokenizers.quantizers import Codebook
from randfeat.utils import distributed, rng

from ..optim import EMA
from ..parallel import all_reduce

POOL = 8192  # latents of a step that dead codes are moved to, at most


class CodebookCare(nn.Module):
    """Counter of the steps for which each code has been idle, which moves codes that are idle for too long.

    A code without use gets no gradient and would never come back (arXiv 2005.00341, section 3, restarts them so).
    idle: int64 (V,), part of a checkpoint.
    """

    idle: Tensor

    def __init__(self, codebook: Codebook, revive_after: int, seed: int) -> None:
        """revive_after: steps without use, 0 to move none. seed: of the latents that are drawn."""
        super().__init__()
        self.after, self.seed = revive_after, seed
        self._codebook = (codebook,)  # in a tuple, so that its parameters are not this module's, too
        self.register_buffer("idle", torch.zeros(codebook.vocab_size, dtype=torch.int64))
        self.counts = torch.zeros_like(self.idle)
        self.pool: Tensor | None = None  # latents of the step, of its first part

    def see(self, tokens: Tensor, latents: Tensor) -> None:
        """Take part of a step: tokens (B, h, w) and latents (B, E, h, w), of which the first part is remembered."""
        used = torch.bincount(tokens.flatten(), minlength=len(self.idle))
        self.counts = self.counts.to(used.device) + used
        if self.pool is None:
            self.pool = latents.detach().movedim(1, -1).flatten(0, 2)

    def forget(self) -> None:
        """Forget what was seen of a step."""
        self.counts, self.pool = torch.zeros_like(self.idle), None

    @torch.no_grad()
    def fill(self, latents: Tensor, step: int = 0, ema: EMA | None = None) -> None:
        """Give codes the values of latents (n, E), drawn at random after a step; so does the average `ema`."""
        (codebook,) = self._codebook
        chosen = self._draw(step, len(latents), codebook.vocab_size)
        weight = codebook.embedding.weight
        weight[: len(chosen)] = codebook.prepared(latents[chosen])
        if distributed.world_size() > 1:
            same = weight.cpu()
            dist.broadcast(same, 0)  # sums may be rounded otherwise in each process
            weight.copy_(same)
        if ema and ema.values:
            self._averaged(ema).copy_(weight)

    @torch.no_grad()
    def finish_step(self, step: int, optimizer: torch.optim.Optimizer, ema: EMA | None) -> None:
        """Count idle steps after step 1, 2, ..., and move the codes that have been idle for too long."""
        (codebook,), pool = self._codebook, self.pool
        counts = all_reduce(self.counts.cpu()).to(self.idle.device)
        self.forget()
        self.idle += 1
        self.idle[counts > 0] = 0
        if not self.after:
            return
        dead = (self.idle >= self.after).nonzero()[:, 0]
        if not len(dead) or pool is None:
            return
        chosen = self._draw(step, min(len(pool), POOL), len(dead))
        # with more dead codes than latents several get the same one, and all but one of these stay dead for now
        fresh = codebook.prepared(pool[chosen.repeat(-(-len(dead) // len(chosen)))[: len(dead)]])
        if distributed.world_size() > 1:
            fresh = fresh.cpu()
            dist.broadcast(fresh, 0)  # each process has seen other latents
        self.idle[dead] = 0
        weight = codebook.embedding.weight
        moved = [weight.data, *(value for value in optimizer.state[weight].values() if value.ndim)]
        for tensor, value in zip(moved, (fresh.to(weight), *[0.0] * (len(moved) - 1)), strict=True):
            tensor[dead] = value
        if ema and ema.values:
            self._averaged(ema)[dead] = fresh.to(weight)

    def _averaged(self, ema: EMA) -> Tensor:
        """Return the average of the codes."""
        weight = self._codebook[0].embedding.weight
        return next(value for parameter, value in zip(ema.parameters, ema.values, strict=True) if parameter is weight)

    def _draw(self, step: int, latents: int, count: int) -> Tensor:
        """Return the numbers of up to `count` latents, drawn without repetition."""
        return rng.bits(rng.derive(self.seed, step, 6), latents).argsort()[:count]
