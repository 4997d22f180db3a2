"""Table of published weights: repository and file, model and tokenizer, and the sampling settings of their authors.

All were trained on ImageNet's 1,000 classes. Guidance, steps and schedules are those of the official sampling commands:
RandAR's documentation.md, ARPG's and LlamaGen's GETTING_STARTED.md, LPD's evaluation scripts, RAR's README_RAR.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .. import models
from ..inference.sampling import Sampling
from ..inference.schedules import Guidance
from ..models import Generator
from ..tokenizers import VQ8, VQ16

NUM_CLASSES, CLASS_NAMES = 1000, "imagenet-1k"


@dataclass(frozen=True)
class PublishedTokenizer:
    """Published tokenizer. model, config: registered name and keywords. file: its name in the hub's `repository`."""

    name: str
    repository: str
    file: str
    model: str
    config: dict[str, Any]

    @property
    def vocab_size(self) -> int:
        """Number of codes."""
        return self.config["vocab_size"]


@dataclass(frozen=True)
class PublishedModel:
    """Published generator. size: a key of `models.SIZES`. file: name in `repository`. grid: rows, columns of tokens."""

    name: str
    repository: str
    file: str
    size: str
    tokenizer: PublishedTokenizer
    sampling: Sampling
    grid: tuple[int, int] = (16, 16)


_LLAMAGEN = "FoundationVision/LlamaGen"
VQ_16 = PublishedTokenizer(
    "llamagen-vq16", _LLAMAGEN, "vq_ds16_c2i.pt", "llamagen_vq", dict(vocab_size=16384, multipliers=[*VQ16])
)
VQ_8 = PublishedTokenizer(
    "llamagen-vq8", _LLAMAGEN, "vq_ds8_c2i.pt", "llamagen_vq", dict(vocab_size=16384, multipliers=[*VQ8])
)
MASKGIT = PublishedTokenizer(
    "maskgit-vq",
    "fun-research/TiTok",
    "maskgit-vqgan-imagenet-f16-256.bin",
    "maskgit_vq",
    dict(vocab_size=1024, multipliers=[1, 1, 2, 2, 4]),
)
TOKENIZERS = {row.name: row for row in (VQ_16, VQ_8, MASKGIT)}


def _randar(name: str, parameters: str, size: str, tokenizer: PublishedTokenizer) -> PublishedModel:
    codes = "maskgit" if tokenizer is MASKGIT else "llamagen"
    file = f"randar_{parameters}_{codes}_360k_bs_1024_lr_0.0004.safetensors"
    sampling = Sampling(88, "cosine-randar", Guidance(4.0, "linear", start=1.0, counted="before"))
    return PublishedModel(name, "ziqipang/RandAR", file, size, tokenizer, sampling)


def _arpg(name: str, parameters: str, size: str, guidance: float) -> PublishedModel:
    sampling = Sampling(64, "arccos", Guidance(guidance))
    return PublishedModel(name, "hp-l33/ARPG", f"arpg_{parameters}.pt", size, VQ_16, sampling)


def _llamagen(name: str, file: str, size: str, guidance: float, side: int) -> PublishedModel:
    sampling = Sampling(None, "one-by-one", Guidance(guidance))
    return PublishedModel(name, _LLAMAGEN, file, size, VQ_16, sampling, (side, side))


def _lpd(name: str, size: str, guidance: float, repulsion: float, side: int = 16, steps: int = 20) -> PublishedModel:
    repository = f"{size}_{16 * side}"
    linear = Guidance(guidance, "linear", counted="token")
    sampling = Sampling(steps, "lpd", linear, order="locality", locality=(1.0, float(repulsion)))
    return PublishedModel(name, f"mit-han-lab/{repository}", f"{repository}.pth", size, VQ_16, sampling, (side, side))


def _rar(size: str, guidance: float, power: float, temperature: float) -> PublishedModel:
    rising = Guidance(guidance, "power-cosine", power=power)
    sampling = Sampling(None, "one-by-one", rising, temperature)
    return PublishedModel(size.replace("_", "-"), "yucornetto/RAR", f"{size}.bin", size, MASKGIT, sampling)


def _by_name(rows: Iterable[PublishedModel]) -> dict[str, PublishedModel]:
    return {row.name: row for row in rows}


MODELS = _by_name(
    (
        _randar("randar-l-llamagen", "0.3b", "randar_l", VQ_16),
        _randar("randar-l-maskgit", "0.3b", "randar_l", MASKGIT),
        _randar("randar-xl-llamagen", "0.7b", "randar_xl", VQ_16),
        _arpg("arpg-l", "300m", "arpg_l", 5.0),
        _arpg("arpg-xl", "700m", "arpg_xl", 6.0),
        _arpg("arpg-xxl", "1b", "arpg_xxl", 7.5),
        _lpd("lpd-l", "lpd_l", 4.8, 2),
        _lpd("lpd-l-512", "lpd_l", 7.3, 4, 32, 48),
        _lpd("lpd-xl", "lpd_xl", 4.9, 2),
        _lpd("lpd-xl-512", "lpd_xl", 6.0, 4, 32, 48),
        _lpd("lpd-xxl", "lpd_xxl", 5.9, 3),
        _rar("rar_b", 16.0, 2.75, 1.0),
        _rar("rar_l", 15.5, 2.5, 1.02),
        _rar("rar_xl", 6.9, 1.5, 1.02),
        _rar("rar_xxl", 8.0, 1.2, 1.02),
        _llamagen("llamagen-b", "c2i_B_256.pt", "llamagen_b", 2.0, 16),
        _llamagen("llamagen-b-384", "c2i_B_384.pt", "llamagen_b", 2.0, 24),
        _llamagen("llamagen-l", "c2i_L_256.pt", "llamagen_l", 2.0, 16),
        _llamagen("llamagen-l-384", "c2i_L_384.pt", "llamagen_l", 2.0, 24),
        _llamagen("llamagen-xl", "c2i_XL_384.pt", "llamagen_xl", 1.75, 24),
        _llamagen("llamagen-xxl", "c2i_XXL_384.pt", "llamagen_xxl", 1.75, 24),
        _llamagen("llamagen-3b", "c2i_3B_384.pt", "llamagen_3b", 1.65, 24),
    )
)


def alike(size: str | None, vocab_size: int, file: str, tokens: int | None = None) -> PublishedModel | None:
    """Return the published model of a size and vocabulary, and of so many tokens where these are known, or None.

    Of several it is the one with this file name, else the first, of 256 x 256 pixels.
    """
    rows = [
        row
        for row in MODELS.values()
        if (row.size, row.tokenizer.vocab_size) == (size, vocab_size) and tokens in (None, math.prod(row.grid))
    ]
    return next((row for row in rows if row.file == file), rows[0] if rows else None)


def sampling_for(model: Generator, guidance: bool = True) -> Sampling:
    """Return the settings of sampling of a generator that was trained here: those of the published one of its size and
    number of tokens, the usual ones where there is none.

    A small LPD decodes groups in the order of locality, in 1.25 times as many steps as a side has tokens, as the
    published ones of 256 tokens do. guidance: whether the null class was trained, which guidance leads away from.
    """
    name = models.name_of(model)
    found = alike(models.size_of(name, model.config), model.vocab_size, "", model.num_tokens)
    if found is not None:
        return found.sampling if guidance and model.num_classes else replace(found.sampling, guidance=Guidance())
    if name == "lpd":
        return Sampling(max(1, round(1.25 * math.sqrt(model.num_tokens))), "lpd", order="locality")
    return Sampling()


def tokenizer_of(vocab_size: int) -> PublishedTokenizer | None:
    """Return the published tokenizer with this many codes, or None; of several, the one of 16 pixels per token."""
    return next((row for row in TOKENIZERS.values() if row.vocab_size == vocab_size), None)


def from_repository(repository: str) -> list[str]:
    """Return the short names of the models and tokenizers of a repository on the hub."""
    rows: list[PublishedModel | PublishedTokenizer] = [*MODELS.values(), *TOKENIZERS.values()]
    return [row.name for row in rows if row.repository == repository]
