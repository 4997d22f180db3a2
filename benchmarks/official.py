"""Official implementations, imported from checkouts outside this repository, which `python -m benchmarks --help` names.

They are built with the sizes of our model, given its weights, and run unchanged.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randfeat import weights
from randfeat.inference.sampling import Sampling
from randfeat.models import ARPG, Generator, RandAR
from randfeat.tokenizers import LlamaGenVQ

CHECKOUTS = ("randar", "arpg", "llamagen")


def _module(path: Path, package: Path) -> Any:
    """Return the module of one file of a checkout. package: folder that its own imports come from."""
    sys.path.insert(0, str(package))
    spec = importlib.util.spec_from_file_location(f"official_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is no Python file: check the folder of checkouts")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(model: Generator, checkout: Path) -> nn.Module:
    """Return the official network of a RandAR or an ARPG, with the same weights, in evaluation mode."""
    side = model.grid[0]
    if isinstance(model, RandAR):
        sys.path.insert(0, str(checkout))
        from RandAR.model.randar_gpt import RandARTransformer

        official = RandARTransformer(
            dim=model.embed_dim,
            n_layer=model.depth,
            n_head=model.num_heads,
            vocab_size=model.vocab_size,
            block_size=side * side,
            num_classes=model.num_classes,
            model_type="c2i",
            class_dropout_prob=0.1,
        )
    elif isinstance(model, ARPG):
        code = _module(checkout / "models" / "arpg.py", checkout)
        official = code.Transformer(
            code.ModelArgs(
                dim=model.embed_dim,
                n_layer=2 * model.depth,
                n_head=model.num_heads,
                vocab_size=model.vocab_size,
                block_size=side * side,
                num_classes=model.num_classes,
            )
        )
    else:
        raise ValueError(f"there is no official code for {type(model).__name__}: give a RandAR or an ARPG")
    official.load_state_dict(weights.to_official(model))
    return official.to(model.head.weight.dtype).eval()


def sampler(official: nn.Module, label: Tensor, order: Tensor, sampling: Sampling) -> Callable[[], Tensor]:
    """Return a call that samples with the official code.

    order: (B, N); ARPG's code has one for the batch, so all rows must be equal. Raises a ValueError for settings that
    the official code does not have.
    """
    guidance = sampling.guidance
    if hasattr(official, "remove_caches"):  # RandAR
        if (sampling.schedule, guidance.schedule, guidance.counted) != ("cosine-randar", "linear", "before"):
            raise ValueError("the official RandAR samples with cosine-randar and linear guidance")

        @torch.no_grad()
        def call() -> Tensor:
            return official.generate(
                label,
                order,
                (guidance.start, guidance.scale),
                sampling.steps or -1,
                sampling.temperature,
                sampling.top_k,
                sampling.top_p,
            )

        return call

    if (sampling.schedule, guidance.schedule) != ("arccos", "constant") or (order != order[0]).any():
        raise ValueError("the official ARPG samples here with arccos, constant guidance and one order for the batch")

    def call_arpg() -> Tensor:
        drawn = torch.rand
        # the code takes no order: it sorts random numbers, which are replaced here
        ranks = order[0].argsort().float()
        torch.rand = lambda *size, **kwargs: ranks.to(kwargs.get("device"))  # type: ignore[assignment]
        try:
            return official.generate(
                label.clone(),
                guidance.scale,
                "constant",
                "arccos",
                sampling.temperature,
                sampling.top_k,
                num_iter=sampling.steps,
                seq_len=order.shape[1],
            )
        finally:
            torch.rand = drawn

    return call_arpg


def build_tokenizer(tokenizer: LlamaGenVQ, checkout: Path) -> nn.Module:
    """Return LlamaGen's official VQ tokenizer with the same weights."""
    path = checkout / "tokenizer" / "tokenizer_image" / "vq_model.py"
    code, config = _module(path, checkout), tokenizer.config
    levels, latent_dim = config["multipliers"], config["latent_dim"]
    official = code.VQModel(
        code.ModelArgs(
            codebook_size=config["vocab_size"],
            codebook_embed_dim=config["code_dim"],
            encoder_ch_mult=levels,
            decoder_ch_mult=levels,
            z_channels=latent_dim,
        )
    )
    # the config has no width
    official.encoder = code.Encoder(ch=config["width"], ch_mult=levels, z_channels=latent_dim)
    official.decoder = code.Decoder(latent_dim, config["width"], levels)
    # the code makes this buffer a parameter, which torch no longer lets it write to in place
    quantizer: Any = official.quantize
    used = quantizer.codebook_used.detach()
    del quantizer.codebook_used
    quantizer.register_buffer("codebook_used", used)
    missing, unexpected = official.load_state_dict(tokenizer.state_dict(), strict=False)
    if unexpected or set(missing) - set(tokenizer.unused):
        raise ValueError(f"the official tokenizer has other weights: {missing} missing, {unexpected} unexpected")
    return official.eval()
