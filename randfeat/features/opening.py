"""Opening of encoders by the name of a model, of randfeat's or of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline, load
from .encoder import TIMM, Encoder
from .generator_encoder import GeneratorEncoder


def open_encoder(
    model: str | Pipeline,
    specs: Sequence[str | FeatureSpec] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Encoder:
    """Return an encoder of one of randfeat's models or of timm's.

    model: a pipeline, which keeps its device and dtype; what `load` takes; or `timm:NAME` or `timm:NAME@CHECKPOINT`,
        a model of timm with its published weights or those of a file.
    specs: what `FeatureSpec` parses, or for timm's models `timm_encoder.TimmSpec`; without any, the model's own.
    device: "auto" takes CUDA, else Apple's MPS, else the CPU. dtype: of the weights. options: more keywords of `load`.

    Raises what `load` does, and a ValueError for a spec that the model cannot do.
    """
    if isinstance(model, Pipeline):
        return GeneratorEncoder(model, specs)
    if str(model).startswith(TIMM):
        from .timm_encoder import open_timm  # timm takes seconds to import

        if options:
            raise ValueError(f"{model} is a model of timm, which takes no {', '.join(options)}: leave it out")
        return open_timm(str(model).removeprefix(TIMM), [str(spec) for spec in specs], device, dtype)
    return GeneratorEncoder(load(model, device=device, dtype=dtype, **options), specs, str(model))
