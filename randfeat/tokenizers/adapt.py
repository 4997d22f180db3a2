"""Adaptation of a trained tokenizer to other images or codes, from where it is trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import Tokenizer
from .llamagen_vq import LlamaGenVQ
from .quantizers import Codebook

CHANGES = ("channels", "vocab_size", "code_dim", "quantizer", "l2_norm", "levels", "value_range")
NOISE = 0.05  # of the copies of codes, as a fraction of their length


def adapted(tokenizer: Tokenizer, **changes: Any) -> LlamaGenVQ:
    """Return a LlamaGenVQ with keywords changed and the weights of a given one, as far as they serve.

    changes: keywords of `LlamaGenVQ` named in `CHANGES`; the network stays as it is. Where `channels` change, an image
    whose channels are all equal has the latents that it had before, and new channels of the output are the mean of the
    old ones. Of a smaller codebook the first codes are kept; a larger one gets near copies. Another `quantizer` or
    `code_dim` starts afresh, and with another `code_dim` so do the 1x1 convolutions around it. Raises a ValueError for
    other tokenizers and other changes.
    """
    if not isinstance(tokenizer, LlamaGenVQ):
        raise ValueError(
            f"a {type(tokenizer).__name__} cannot be trained on: give a LlamaGenVQ, such as llamagen-vq16, or none"
        )
    fixed = sorted(set(changes) - set(CHANGES))
    if fixed:
        raise ValueError(f"{', '.join(fixed)} cannot change in trained weights, only {', '.join(CHANGES)} can")
    given = dict(tokenizer.config)
    if changes.get("quantizer", given.get("quantizer", "vq")) != given.get("quantizer", "vq"):
        for name in ("vocab_size", "code_dim", "l2_norm", "levels"):  # of the quantiser that goes
            given.pop(name, None)
    made = LlamaGenVQ(**(given | changes)).to(next(tokenizer.parameters()).device)
    fresh = () if tokenizer.quantize.code_dim == made.quantize.code_dim else ("quant_conv.", "post_quant_conv.")
    old, new = tokenizer.state_dict(), made.state_dict()
    new |= {name: value for name, value in old.items() if not name.startswith(("quantize.", *fresh))}
    new["encoder.conv_in.weight"] = _inputs(old["encoder.conv_in.weight"], made.channels)
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        new[name] = _extended(old[name], made.channels, dim=0)
    if not fresh and isinstance(tokenizer.quantize, Codebook) and isinstance(made.quantize, Codebook):
        codes = tokenizer.quantize.codes(torch.arange(tokenizer.vocab_size, device=old["quant_conv.bias"].device))
        new["quantize.embedding.weight"] = _resized(codes.detach(), made.vocab_size)
    made.load_state_dict(new)
    return made


def _inputs(weight: Tensor, channels: int) -> Tensor:
    """Return a convolution's weight (out, C, k, k) for other input channels, whose sum over channels stays."""
    return _extended(weight, channels, dim=1) * (weight.shape[1] / channels)


def _extended(weight: Tensor, channels: int, dim: int) -> Tensor:
    """Return a weight with another number of channels on `dim`: the old and their mean, or the mean alone if fewer."""
    before, mean = weight.shape[dim], weight.mean(dim, keepdim=True)
    kept = [weight] if channels >= before else []
    return torch.cat([*kept, *[mean] * (channels - before if kept else channels)], dim)


def _resized(codes: Tensor, vocab_size: int) -> Tensor:
    """Return a codebook (V, E) with `vocab_size` codes: the first ones, or all and near copies of them."""
    copies = codes[torch.arange(len(codes), max(vocab_size, len(codes)), device=codes.device) % len(codes)]
    noise = torch.randn(copies.shape, generator=torch.Generator().manual_seed(0)).to(codes)
    scale = NOISE * copies.norm(dim=1, keepdim=True) / codes.shape[1] ** 0.5
    return torch.cat([codes, copies + scale * noise])[:vocab_size]
