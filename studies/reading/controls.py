"""Control models: networks of similar blocks that are trained to fill in masked tokens or pixels, or to classify.

Features are read out of them as of a generator, with the one context and stream that they have: `full`, `token`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randfeat.models import Generator, orders
from randfeat.models.base import Context, State, Stream
from randfeat.models.layers import rope_at


class Control(Generator):
    """Base of networks without an order: features can be read out, sampling raises a TypeError."""

    contexts = ("full",)
    streams = ("token",)
    within_step = ("causal",)

    def pre_logits(
        self, tokens: Tensor, label: Tensor | None, order: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        raise TypeError(f"{type(self).__name__} predicts in no order: train it with its own objective")

    def start(self, label: Tensor, *known: Any, **how: Any) -> State:
        raise TypeError(f"{type(self).__name__} does not sample: use a generator")

    def step(self, state: State, tokens: Tensor | None, queries: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not sample: use a generator")


class MaskedTransformer(Control):
    """Masked-token transformer of RandAR's blocks without the causal mask; one vector replaces masked tokens.

    After MaskGIT (arXiv 2202.04200) and MAGE (arXiv 2211.09117), with MAGE's ratios and one network in place of two. No
    token is fed twice, so an image costs less than half of what it costs RandAR.
    """

    def build(self) -> None:
        self.token_embedding = nn.Embedding(self.vocab_size + 1, self.embed_dim)  # the last is the mask
        self.blocks = self.new_blocks(self.self_attention)
        self.norm = nn.RMSNorm(self.embed_dim, self.norm_eps)
        self.head = nn.Linear(self.embed_dim, self.vocab_size, bias=False)

    def fill(self, tokens: Tensor) -> Tensor:
        """Return the states that the head reads: tokens (B, N), some of them the mask -> (B, N, D), in raster space."""
        x, rope = self._embedded(tokens)
        for block in self.blocks:
            x = block(x, rope)
        return self.norm(x)

    def states(
        self,
        tokens: Tensor,
        label: Tensor,
        order: Tensor,
        layers: Sequence[int],
        context: Context,
        stream: Stream,
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        x, rope = self._embedded(tokens)
        states = self.through(self.blocks, x, rope, layers, slice(None))
        return [orders.gather(state, order) for state in states]

    def _embedded(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(self.num_tokens, device=tokens.device).expand(len(tokens), -1)
        return self.dropout(self.token_embedding(tokens)), rope_at(self.rope(tokens.device), places)


class MaskedObjective(nn.Module):
    """Cross-entropy at the masked positions, which are the last places of a random order.

    Their share follows MAGE's normal distribution (mean 0.55, std 0.25) truncated to 0.5 to 1; in evaluation the shares
    are spread evenly.
    """

    def __init__(self, model: MaskedTransformer, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.generator = model

    def forward(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        model, count = self.generator, tokens.shape[1]
        if self.generator.training:
            share = torch.nn.init.trunc_normal_(torch.empty(len(tokens), 1), 0.55, 0.25, 0.5, 1.0).to(tokens.device)
        else:
            share = torch.linspace(0.5, 1, len(tokens), device=tokens.device).unsqueeze(1)
        hidden = (share * count).ceil()
        masked = torch.arange(count, device=tokens.device) >= count - hidden  # by place in the order
        wanted = orders.gather(tokens, order)
        given = orders.scatter(wanted.masked_fill(masked, model.vocab_size), order)
        logits = model.head(orders.gather(model.fill(given), order))
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        losses = losses * masked * (count / hidden)  # every image has the same weight
        return losses.sum(), losses.detach()


class PixelAutoencoder(Control):
    """Masked autoencoder (arXiv 2111.06377) of timm's ViT blocks.

    The encoder reads a quarter of the patches, a decoder of two blocks predicts the others, each normalised by its own
    mean and std. In place of tokens it takes the pixels of an image patch by patch, bytes (B, N * p * p * C);
    `vocab_size` is 256.
    """

    patch: int  # values of a patch, p * p * C, set by `shaped`

    def build(self) -> None:
        from timm.layers import build_sincos2d_pos_embed
        from timm.models.vision_transformer import Block

        width, ratio = self.embed_dim, self.ffn_dim / self.embed_dim
        self.embed = nn.Linear(self.patch, width)
        self.register_buffer("places", build_sincos2d_pos_embed([*self.grid], width, interleave_sin_cos=True), False)
        self.blocks = nn.ModuleList(Block(width, self.num_heads, ratio, qkv_bias=True) for _ in range(self.depth))
        self.norm, self.into = nn.LayerNorm(width), nn.Linear(width, width)
        self.mask = nn.Parameter(torch.zeros(1, width))
        self.decoder = nn.ModuleList(Block(width, self.num_heads, ratio, qkv_bias=True) for _ in range(2))
        self.decoder_norm, self.head = nn.LayerNorm(width), nn.Linear(width, self.patch)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask, std=0.02, generator=generator)

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1] * self.patch

    def patches(self, tokens: Tensor) -> Tensor:
        """Return bytes (B, N * P) as float patches (B, N, P) from -1 to 1."""
        return tokens.to(self.dtype).div(127.5).sub(1).unflatten(1, (-1, self.patch))

    def states(
        self,
        tokens: Tensor,
        label: Tensor,
        order: Tensor,
        layers: Sequence[int],
        context: Context,
        stream: Stream,
        condition: Tensor | None = None,
    ) -> list[Tensor]:
        x, states = self.embed(self.patches(tokens)) + self.places, {}
        for i, block in enumerate(self.blocks[: max(layers)], 1):
            x = states[i] = block(x)
        return [orders.gather(states[i], order) for i in layers]


class Classifier(PixelAutoencoder):
    """The same encoder with a linear layer on the mean of its last states, trained on labels: what they are worth."""

    def build(self) -> None:
        super().build()
        self.head = nn.Linear(self.embed_dim, self.num_classes)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, classes) of bytes (B, N * P)."""
        x = self.embed(self.patches(tokens)) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class ClassifierObjective(nn.Module):
    """Cross-entropy of the class, in units of the engine's losses: as if every value of the image had it."""

    def __init__(self, model: Classifier, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.generator = model

    def forward(self, tokens: Tensor, labels: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        count = tokens.shape[1]
        losses = F.cross_entropy(self.generator.logits(tokens), labels, reduction="none") * count
        return losses.sum(), losses.detach().unsqueeze(1).expand(-1, count) / count


class PixelObjective(nn.Module):
    """Squared error of the normalised pixels of masked patches, scaled as the losses of the training loop are."""

    def __init__(self, model: PixelAutoencoder, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.generator = model

    def forward(self, tokens: Tensor, labels: Tensor | None, order: Tensor) -> tuple[Tensor, Tensor]:
        model = self.generator
        patches = model.patches(tokens)
        count = patches.shape[1]
        seen = count // 4
        x = model.embed(patches) + model.places
        x = orders.gather(x, order)[:, :seen]
        for block in model.blocks:
            x = block(x)
        x = model.into(model.norm(x))
        x = torch.cat((x, model.mask.expand(len(x), count - seen, -1)), 1)
        x = x + model.places[order]
        for block in model.decoder:
            x = block(x)
        painted = model.head(model.decoder_norm(x[:, seen:]))
        wanted = orders.gather(patches, order)[:, seen:]
        std = (wanted.var(-1, keepdim=True) + 1e-4).sqrt()
        errors = (painted - (wanted - wanted.mean(-1, keepdim=True)) / std).square() * (count / (count - seen))
        by_place = F.pad(errors.detach().flatten(1), (seen * model.patch, 0))
        return errors.sum(), by_place


def shaped(kind: type[PixelAutoencoder], patch: int) -> type[PixelAutoencoder]:
    """Return the class for patches of `patch` values."""
    return type(kind.__name__, (kind,), {"patch": patch})
