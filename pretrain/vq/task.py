"""A tokenizer as a task of the training loop: its batches, its optimizer and its validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randfeat.tokenizers import LlamaGenVQ

from ..data import Share
from ..optim import EMA, adamw, parameter_groups
from ..parallel import all_reduce
from ..trainer import Task
from .config import TokenizerConfig
from .data import Canvases, ImageBatches, central
from .losses import Perceptual
from .objective import TokenizerObjective, Trainee, terms_of

VALIDATION_BATCH = 32  # images, where `micro_batch` says nothing else
SHOWN = 16  # held-out images of a validation's sheet
FILLING = 4  # latents for each code among which the first codes are drawn


@dataclass(frozen=True)
class Reconstruction:
    """Argument of `on_validation`, called while the tokenizer has the validated weights and is in evaluation mode.

    loss: of reconstruction, weighted as in training. terms: l1 and psnr (dB, of values in [0, 1], the mean over
    images), usage (share of the codes that the held-out images take) and perplexity (exp of the entropy of their
    frequencies). images, reconstructed: some held-out images, evenly spread, (n, C, H, W) in [0, 1].
    """

    step: int
    loss: float
    terms: dict[str, float]
    tokenizer: LlamaGenVQ
    images: Tensor
    reconstructed: Tensor


class TokenizerTask(Task):
    """A tokenizer, the images that it learns from and the held-out ones."""

    model: Trainee

    def __init__(
        self,
        recipe: TokenizerConfig,
        tokenizer: LlamaGenVQ,
        canvases: Canvases,
        held_out: Canvases | None,
        perceptual: Perceptual | None = None,
        fresh: bool = True,
    ) -> None:
        """held_out: canvases in memory. fresh: give the codes the values of latents before the first step."""
        self.recipe, self.config, self.terms = recipe, recipe.training, terms_of(recipe)
        self.model = Trainee(tokenizer, recipe)
        self.canvases, self.held_out, self.fresh = canvases, held_out, fresh
        self.perceptual = perceptual
        self.unread: dict[int, str] = {}  # rows that could not be read when they were to be shown, and the reasons

    @property
    def validates(self) -> bool:
        return self.held_out is not None

    def settings(self) -> dict[str, Any]:
        return {"tokenizer": self.model.tokenizer.config}

    def objective(self, in_bfloat16: bool) -> nn.Module:
        return TokenizerObjective(self.model, self.recipe, self.perceptual, in_bfloat16)

    def steps(self, share: Share) -> ImageBatches:
        return ImageBatches(self.canvases, self.recipe, share, self.unread)

    def optimizer(self) -> torch.optim.Optimizer:
        groups = parameter_groups(self.model.tokenizer, self.config)
        if self.model.discriminator is not None:
            gan = self.recipe.loss.gan
            own: dict[str, float] = {"first_step": gan.start}
            if gan.learning_rate is not None:
                own["rate_factor"] = gan.learning_rate / self.config.learning_rate
            groups += parameter_groups(self.model.discriminator, self.config, **own)
        return adamw(groups, self.config)

    @property
    def clipped(self) -> list[nn.Module]:
        return [one for one in (self.model.tokenizer, self.model.discriminator) if one is not None]

    def begin(self) -> None:
        if self.fresh:
            self._fill_codes(0)

    @torch.no_grad()
    def _fill_codes(self, step: int, ema: EMA | None = None) -> None:
        """Give the codes of vq the values of latents of the images from a step on."""
        care, tokenizer = self.model.care, self.model.tokenizer
        if care is None:
            return
        device = next(tokenizer.parameters()).device
        latents, wanted = [], FILLING * tokenizer.vocab_size
        for batch in self.steps(Share(VALIDATION_BATCH)).ahead(step):  # all processes draw from the same images
            for piece in batch:
                latents.append(tokenizer.latents(piece.images.to(device)).movedim(1, -1).flatten(0, 2))
                wanted -= len(latents[-1])
            if wanted <= 0:
                break
        care.fill(torch.cat(latents), step, ema)

    def finish_step(self, step: int, optimizer: torch.optim.Optimizer, ema: EMA | None) -> None:
        start = self.recipe.quantizer.start
        if step == start < self.config.steps:
            self._fill_codes(step, ema)
        elif self.model.care is not None and step > start:
            self.model.care.finish_step(step, optimizer, ema)

    def skip_step(self) -> None:
        if self.model.care is not None:
            self.model.care.forget()

    def measure(self, objective: nn.Module, share: Share, step: int) -> tuple[float, Reconstruction]:
        held, tokenizer = self.held_out, self.model.tokenizer
        assert held is not None
        assert held.held is not None
        own = TokenizerObjective(self.model, self.recipe, self.perceptual)  # in float32, as tokenizers encode
        device = next(tokenizer.parameters()).device
        size = share.size or VALIDATION_BATCH
        starts = range(0, len(held), size)
        sums = torch.zeros(3, dtype=torch.float64)
        counts = torch.zeros(tokenizer.vocab_size, dtype=torch.float64)
        with torch.no_grad():
            for start in list(starts)[share.rank :: share.world]:
                images = central(held.held[start : start + size], self.recipe.images.size).to(device)
                tokens, made = reconstruct(tokenizer, images)
                loss, values = own.reconstruction(images, made)
                psnr = -10 * (made - images).square().mean((1, 2, 3)).clamp_min(1e-10).log10()
                found = torch.stack([loss, values["l1"], psnr.mean()]).double().cpu()
                sums += len(images) * found
                counts += torch.bincount(tokens.flatten(), minlength=len(counts)).double().cpu()
            spread = torch.linspace(0, len(held) - 1, min(SHOWN, len(held))).round().long().numpy()
            shown = central(held.held[spread], self.recipe.images.size)
            made = reconstruct(tokenizer, shown.to(device))[1].cpu()
        loss_sum, l1, psnr = (all_reduce(sums) / len(held)).tolist()
        shares = all_reduce(counts) / counts.sum()
        used = shares[shares > 0]
        terms = {
            "l1": l1,
            "psnr": psnr,
            "usage": len(used) / len(shares),
            "perplexity": math.exp(float(-(used * used.log()).sum())),
        }
        return loss_sum, Reconstruction(step, loss_sum, terms, tokenizer, shown, made)


def reconstruct(tokenizer: LlamaGenVQ, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens (B, h, w) and the images made of them, clamped to [0, 1], of images (B, C, H, W) in [0, 1]."""
    tokens = tokenizer.encode(images)
    return tokens, tokenizer.decode(tokens)
