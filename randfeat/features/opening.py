"""Opening of encoders by the name of a model, of randfeat's or of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline, load
from ..weights.fresh import RANDOM, random_weights
from .encoder import TIMM, Encoder
from .generator_encoder import GeneratorEncoder


def open_encoder(
    model: str | Pipeline,
    specs: Sequence[str | FeatureSpec] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **options: Any,
) -> Encoder:
    """Return an encoder of one of randfeat's models or of timm's.

    model: a pipeline, which keeps its device and dtype; what `load` takes; or `timm:NAME` or `timm:NAME@CHECKPOINT`,
        a model of timm with its published weights or those of a file; `random:` before any of these gives it random
        weights, those of `seed`.
    specs: what `FeatureSpec` parses, or for timm's models `timm_encoder.TimmSpec`; without any, the model's own.
    device: "auto" takes CUDA, else Apple's MPS, else the CPU. dtype: of the weights. options: more keywords of `load`.

    Raises what `load` does, and a ValueError for a spec that the model cannot do.
    """
    if isinstance(model, Pipeline):
        return GeneratorEncoder(model, specs)
    plain = str(model).removeprefix(RANDOM)
    if plain.startswith(TIMM):
        from .timm_encoder import open_timm  # timm takes seconds to import

        if options:
            raise ValueError(f"{model} is a model of timm, which takes no {', '.join(options)}: leave it out")
        fresh = plain != str(model)
        with random_weights(seed):
            encoder = open_timm(plain.removeprefix(TIMM), [str(spec) for spec in specs], device, dtype, fresh)
        encoder.name = str(model)
        return encoder
    return GeneratorEncoder(load(model, device=device, dtype=dtype, seed=seed, **options), specs, str(model))
