"""Training objective of a tokenizer: reconstruction, the quantiser's own losses, perceptual and adversarial ones."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randfeat.tokenizers import LlamaGenVQ
from randfeat.tokenizers.quantizers import Codebook

from .codebook import CodebookCare
from .config import TokenizerConfig
from .losses import PatchDiscriminator, Perceptual, adaptive_weight, discriminator_loss, generator_loss


def layout_on(device: torch.device) -> torch.memory_format:
    """Return the memory format in which convolutions are trained fastest: on a CPU oneDNN chooses its own."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


class Trainee(nn.Module):
    """All that a tokenizer's training changes: the tokenizer, its discriminator, and the use of its codes."""

    def __init__(self, tokenizer: LlamaGenVQ, recipe: TokenizerConfig) -> None:
        super().__init__()
        device = next(tokenizer.parameters()).device
        layout = layout_on(device)
        self.tokenizer = tokenizer.to(memory_format=layout)
        self.discriminator: PatchDiscriminator | None = None
        if recipe.loss.gan.weight:
            with torch.random.fork_rng():
                torch.manual_seed(recipe.training.seed)
                made = PatchDiscriminator(tokenizer.channels, recipe.loss.gan.width, recipe.loss.gan.layers)
            made.check(recipe.images.size)
            self.discriminator = made.to(device).to(memory_format=layout)
        self.care: CodebookCare | None = None
        if isinstance(tokenizer.quantize, Codebook):
            self.care = CodebookCare(tokenizer.quantize, recipe.quantizer.revive_after, recipe.training.seed)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution."""
        return self.tokenizer.decoder.conv_out.weight


def terms_of(recipe: TokenizerConfig) -> tuple[str, ...]:
    """Return the names of the parts of the loss of a recipe, in the order in which the objective tells them."""
    own = {"vq": ("codebook", "commitment"), "fsq": (), "lfq": ("commitment", "entropy")}[recipe.quantizer.kind]
    more = [*(["perceptual"] if recipe.loss.perceptual.network else [])]
    more += ["adversarial", "discriminator"] if recipe.loss.gan.weight else []
    return ("l1", "mse", *own, *more)


class TokenizerObjective(nn.Module):
    """Trainee and losses as one module, which DDP wraps.

    Tokenizer and discriminator are trained in the same step, by one backward pass through the sum of their losses; the
    adversarial loss does not reach the discriminator's weights, nor the discriminator's loss the tokenizer's.
    """

    def __init__(
        self, trainee: Trainee, recipe: TokenizerConfig, perceptual: Perceptual | None = None, in_bfloat16: bool = False
    ) -> None:
        """in_bfloat16: compute the networks in bfloat16; the quantiser and the losses stay in float32."""
        super().__init__()
        self.trainee, self.recipe, self.in_bfloat16 = trainee, recipe, in_bfloat16
        self.terms = terms_of(recipe)
        self._perceptual = (perceptual,)  # not registered: it is not trained

    def forward(self, images: Tensor, moves: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the summed loss of the batch, (), and the sum of each of `terms`, without gradients.

        images: (B, channels, H, W) in [0, 1]. moves: (B, 2), see `data.ImageBatch`. step: 0, 1, ...
        """
        own, target, made = self._reconstruct(images, moves, step)
        loss, values = self.reconstruction(target, made)
        values |= own
        adversary, gan = self.trainee.discriminator, self.recipe.loss.gan
        total = loss + sum(getattr(self.recipe.quantizer, f"{name}_weight") * value for name, value in own.items())
        if step < self.recipe.quantizer.start:
            total = total + 0.0 * sum(p.sum() for p in self.trainee.tokenizer.quantize.parameters())  # as below
        if adversary is not None and step >= gan.start:
            with self._precision(images.device):
                values["adversarial"] = generator_loss(adversary, made)
                values["discriminator"] = discriminator_loss(adversary, target, made.detach())
            adaptive = adaptive_weight(loss, values["adversarial"], self.trainee.last_layer) if gan.adaptive else 1.0
            total = total + gan.weight * adaptive * values["adversarial"] + values["discriminator"]
        elif adversary is not None:
            total = total + 0.0 * sum(p.sum() for p in adversary.parameters())  # DDP wants a gradient for each
        zero = loss.new_zeros(())
        told = torch.stack([values.get(name, zero).detach().float() for name in self.terms])
        return len(images) * total, len(images) * told

    def _reconstruct(self, images: Tensor, moves: Tensor, step: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return the quantiser's losses, the images that are to be made of its codes, and those that are."""
        tokenizer, care = self.trainee.tokenizer, self.trainee.care
        images = images.contiguous(memory_format=layout_on(images.device))
        with self._precision(images.device):
            latents = tokenizer.latents(images)
        latents = latents.float()
        target = images
        if self.recipe.loss.equivariance:
            latents = moved(latents, moves / tokenizer.stride)
            target = moved(images, moves.float())
        if step < self.recipe.quantizer.start:
            codes, losses = tokenizer.quantize.prepared(latents.movedim(1, -1)).movedim(-1, 1), dict[str, Tensor]()
        else:
            found = tokenizer.quantize(latents)
            codes, losses = found.codes, found.losses
            if care is not None and self.training:
                care.see(found.tokens, latents)
        with self._precision(images.device):
            made = tokenizer.pixels(codes)
        return losses, target, made.float()

    def reconstruction(self, images: Tensor, made: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss of reconstruction, which is also what validation compares, and its parts.

        images, made: (B, channels, H, W), in [0, 1] and about so. The parts l1 and mse are in these units; the loss
        takes them in [-1, 1], as LlamaGen does, twice and four times as large.
        """
        loss, (perceptual,) = self.recipe.loss, self._perceptual
        values = {"l1": F.l1_loss(made, images), "mse": F.mse_loss(made, images)}
        total = loss.l1 * 2 * values["l1"] + loss.l2 * 4 * values["mse"]
        if perceptual is not None:
            with self._precision(images.device):
                values["perceptual"] = perceptual(images, made)
            total = total + loss.perceptual.weight * values["perceptual"]
        return total, values

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if self.in_bfloat16 else nullcontext()


def moved(images: Tensor, by: Tensor) -> Tensor:
    """Return images (B, C, H, W) moved down and right by (B, 2) pixels, bilinearly; borders are repeated."""
    height, width = images.shape[2:]
    shift = 2 * by.to(images) / torch.tensor([height, width], device=images.device)
    one = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], device=images.device)
    where = one.repeat(len(images), 1, 1)
    where[:, :, 2] = -shift.flip(1)  # x before y
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
