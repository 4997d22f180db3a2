"""Identification of official checkpoints by the names and shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..models import MODELS, size_of
from ..models.rar import SPARE_STEPS
from .official import first_few

Shapes = Mapping[str, tuple[int, ...]]
SHORT = 0.5  # length of a code that was hardly ever normalised


@dataclass(frozen=True)
class Identity:
    """Model of a checkpoint.

    model: registered name of a generator or a tokenizer. config: the keywords that follow from shapes; a generator's
    heads and grid do not. kv_dim: width of the keys where several heads may share them, else None. tokens: their number
    in an image, where learned positions tell it, else None.
    """

    model: str
    config: dict[str, Any]
    kv_dim: int | None = None
    tokens: int | None = None

    @property
    def is_generator(self) -> bool:
        """True of a generator, False of a tokenizer."""
        return self.model in MODELS

    @property
    def size(self) -> str | None:
        """Name of the published size with this depth and width, or None."""
        return size_of(self.model, self.config)

    @property
    def stride(self) -> int:
        """Pixels per token of a tokenizer."""
        return 2 ** (len(self.config["multipliers"]) - 1)

    def __str__(self) -> str:
        title, config = _FAMILIES[self.model].title, self.config
        codes = f"{config['vocab_size']:,} codes"
        if not self.is_generator:
            return f"{title} of {codes}, {self.stride} pixels a token"
        blocks = "blocks a half" if self.model == "arpg" else "blocks"
        return f"{title} of width {config['embed_dim']} with {config['depth']} {blocks} and {codes}"


def identify(state: Mapping[str, Tensor]) -> Identity:
    """Return the model of an official state_dict, which may be on the meta device.

    Raises a ValueError that lists the first names of an unknown state, or the missing ones of a known model.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for model, family in _FAMILIES.items():
        if any(name.startswith(family.mark) for name in shapes):
            missing = [name for name in family.needed if name not in shapes]
            if missing:
                raise ValueError(f"this looks like {family.title} without {first_few(missing)}: part of it is missing")
            try:
                config = family.config(shapes)
                kv_dim = (shapes[_QKV][0] - config["embed_dim"]) // 2 if _QKV in family.needed else None
                return Identity(model, config, kv_dim, family.tokens(shapes))
            except (IndexError, KeyError, ValueError, ZeroDivisionError):
                seen = ", ".join(f"{name} {shapes[name]}" for name in family.needed)
                raise ValueError(f"this looks like {family.title} of impossible shapes: {seen}") from None
    raise ValueError(f"this looks like no model that randfeat knows: it begins with {first_few(list(shapes))}")


def compared_by_angle(state: Mapping[str, Tensor]) -> bool | None:
    """Return whether LlamaGen's VQ of a state compares its codes by angle, None where their lengths fit both.

    LlamaGen starts codes at unit length if they are compared by angle, and training then makes none shorter, for the
    gradient is orthogonal to the code. Otherwise it starts them in [-1 / V, 1 / V], where unused ones remain.
    """
    codes = state["quantize.embedding.weight"].float()
    reach = min(1 / len(codes), SHORT * codes.shape[1] ** -0.5)  # fewer codes than channels could reach unit length
    if (codes.abs().amax(1) <= reach).any():
        return False
    return None if (codes.norm(dim=1) < SHORT).any() else True


def _count(shapes: Shapes, numbered: str) -> int:
    """Return the number of modules of a pattern such as `layers.*`, from the highest index."""
    pattern = re.compile(re.escape(numbered).replace(r"\*", r"(\d{1,9})") + r"\.")
    found = (int(match[1]) for name in shapes if (match := pattern.match(name)))
    return (
        max((i for i in found if i < len(shapes)), default=-1) + 1
    )  # no more than there are tensors, whatever the names say


def _gpt(shapes: Shapes) -> dict[str, Any]:
    """Return the config of RandAR or LlamaGen: RandAR's code grew from LlamaGen's and kept its names."""
    vocab_size, embed_dim = shapes["tok_embeddings.weight"]
    return dict(
        vocab_size=vocab_size,
        num_classes=shapes["cls_embedding.embedding_table.weight"][0] - 1,  # the last is the null class
        embed_dim=embed_dim,
        depth=_count(shapes, "layers.*"),
        ffn_dim=shapes["layers.0.feed_forward.w1.weight"][0],
    )


def _arpg(shapes: Shapes) -> dict[str, Any]:
    vocab_size, embed_dim = shapes["head.weight"]
    return dict(
        vocab_size=vocab_size,
        num_classes=shapes["embeddings.weight"][0] - vocab_size - 3,  # see `ARPG.build`
        embed_dim=embed_dim,
        depth=max(_count(shapes, f"layers.{half}.*") for half in ("self_dec", "cross_dec")),
        ffn_dim=shapes["layers.self_dec.0.ffn.w1.weight"][0],
    )


def _lpd(shapes: Shapes) -> dict[str, Any]:
    return _vision_transformer(shapes, "head.weight") | dict(num_classes=shapes["class_emb.weight"][0])


def _rar(shapes: Shapes) -> dict[str, Any]:
    config = _vision_transformer(shapes, "lm_head.weight")
    # tokens, a mask token and the null class, see `RAR.build`
    return config | dict(num_classes=shapes["embeddings.weight"][0] - config["vocab_size"] - 2)


def _vision_transformer(shapes: Shapes, head: str) -> dict[str, Any]:
    vocab_size, embed_dim = shapes[head]
    return dict(
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        depth=_count(shapes, "blocks.*"),
        ffn_dim=shapes["blocks.0.mlp.fc1.weight"][0],
    )


def _llamagen_vq(shapes: Shapes) -> dict[str, Any]:
    config = _vq(shapes, "encoder.conv_blocks.*", "encoder.conv_blocks.{}.res.*")
    channels = shapes["encoder.conv_in.weight"][1]
    return (
        config
        | dict(latent_dim=shapes["encoder.conv_out.weight"][0])
        | ({} if channels == 3 else {"channels": channels})
    )


def _maskgit_vq(shapes: Shapes) -> dict[str, Any]:
    return _vq(shapes, "encoder.down.*", "encoder.down.{}.block.*")


def _vq(shapes: Shapes, levels: str, blocks: str) -> dict[str, Any]:
    """Return the config of a VQ tokenizer. levels, blocks: names of the encoder's levels, and of the blocks of one."""
    vocab_size, code_dim = shapes["quantize.embedding.weight"]
    width = shapes["encoder.conv_in.weight"][0]
    first = [blocks.format(level).replace("*", "0") for level in range(_count(shapes, levels))]
    return dict(
        vocab_size=vocab_size,
        code_dim=code_dim,
        width=width,
        multipliers=[shapes[f"{block}.conv1.weight"][0] // width for block in first],
        num_res_blocks=_count(shapes, blocks.format(0)),
    )


@dataclass(frozen=True)
class _Family:
    """Names of one family of official checkpoints. config: derives the keywords from shapes."""

    title: str
    mark: str  # prefix of a name that only this family has; families are tried in turn
    needed: tuple[str, ...]  # tensors that its config is derived from
    config: Callable[[Shapes], dict[str, Any]]
    tokens: Callable[[Shapes], int | None] = lambda shapes: None  # of an image


_QKV = "layers.0.attention.wqkv.weight"
_GPT = (
    "tok_embeddings.weight",
    "cls_embedding.embedding_table.weight",
    _QKV,
    "layers.0.feed_forward.w1.weight",
)
_VQ = ("quantize.embedding.weight", "encoder.conv_in.weight", "encoder.conv_out.weight")
_FAMILIES = {
    "arpg": _Family(
        "ARPG",
        "layers.self_dec.",
        ("embeddings.weight", "head.weight", "layers.self_dec.0.ffn.w1.weight"),
        _arpg,
    ),
    "lpd": _Family(
        "LPD",
        "fake_latent",
        ("class_emb.weight", "pos_embed", "head.weight", "blocks.0.mlp.fc1.weight"),
        _lpd,
        lambda shapes: shapes["pos_embed"][1] - 1,  # the class has a row, too
    ),
    "rar": _Family(
        "RAR",
        "target_aware_pos_embed",
        ("embeddings.weight", "timesteps_embeddings", "lm_head.weight", "blocks.0.mlp.fc1.weight"),
        _rar,
        lambda shapes: shapes["timesteps_embeddings"][1] - SPARE_STEPS,
    ),
    "randar": _Family("RandAR", "pos_instruct_embeddings", _GPT, _gpt),
    "llamagen": _Family("LlamaGen", "tok_embeddings.", _GPT, _gpt),
    "llamagen_vq": _Family("LlamaGen's VQ tokenizer", "encoder.conv_blocks.", _VQ, _llamagen_vq),
    "maskgit_vq": _Family("MaskGIT's VQGAN tokenizer", "encoder.down.", _VQ, _maskgit_vq),
}
