"""Opening of encoders by the name of a model: of randfeat's, of timm's or of open_clip's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline, load
from ..weights.fresh import RANDOM, random_weights
from .encoder import OPEN_CLIP, TIMM, Encoder
from .generator_encoder import GeneratorEncoder


def open_encoder(
    model: str | Pipeline,
    specs: Sequence[str | FeatureSpec] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **options: Any,
) -> Encoder:
    """Return an encoder of one of randfeat's models, of timm's or of open_clip's.

    model: a pipeline, which keeps its device and dtype; what `load` takes; `timm:NAME` or `timm:NAME@CHECKPOINT`, a
        model of timm with its published weights or those of a file; `open_clip:NAME@FILE`, a text-image model of
        open_clip (see `open_clip_encoder.open_model` for other forms); `random:` before any of these gives it random
        weights, those of `seed`.
    specs: what `FeatureSpec` parses, or for timm's models `timm_encoder.TimmSpec`; without any, the model's own.
    device: "auto" takes CUDA, else Apple's MPS, else the CPU. dtype: of the weights. options: more keywords of `load`.

    Raises what `load` does, and a ValueError for a spec that the model cannot do.
    """
    if isinstance(model, Pipeline):
        return GeneratorEncoder(model, specs)
    plain = str(model).removeprefix(RANDOM)
    family = next((one for one in (TIMM, OPEN_CLIP) if plain.startswith(one)), None)
    if family is None:
        return GeneratorEncoder(load(model, device=device, dtype=dtype, seed=seed, **options), specs, str(model))
    if options:
        library = family.removesuffix(":")
        raise ValueError(f"{model} is a model of {library}, which takes no {', '.join(options)}: leave it out")
    how = (plain.removeprefix(family), [str(spec) for spec in specs], device, dtype, plain != str(model))
    with random_weights(seed):
        encoder = _open_timm(*how) if family == TIMM else _open_clip(*how)
    encoder.name = str(model)
    return encoder


def _open_timm(*how: Any) -> Encoder:
    from .timm_encoder import open_timm  # timm takes seconds to import

    return open_timm(*how)


def _open_clip(*how: Any) -> Encoder:
    try:
        from .open_clip_encoder import open_model  # open_clip is an extra, and imports timm
    except ModuleNotFoundError:
        raise RuntimeError("models of open_clip need its package: pip install 'randfeat[text]'") from None
    return open_model(*how)
