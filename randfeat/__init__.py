"""Features, samples and likelihoods from random-order autoregressive image generators.

    import randfeat
    model = randfeat.load("demo/models/randar")
    model.features(images, "random*4/causal/token/L3/grid4/mean")

Importing this package imports nothing heavy: names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .features.sklearn import FeatureExtractor
    from .index import Index
    from .inference.editing import Framing
    from .inference.readout import FeatureSpec
    from .inference.sampling import Sampling
    from .inference.schedules import Guidance
    from .pipeline.pipeline import Pipeline, load
    from .weights.loading import load_tokenizer

__all__ = [
    "FeatureExtractor",
    "FeatureSpec",
    "Framing",
    "Guidance",
    "Index",
    "Pipeline",
    "Sampling",
    "SuccessiveHalving",
    "load",
    "load_tokenizer",
]

_HOME = {
    "FeatureExtractor": "features.sklearn",
    "FeatureSpec": "inference.readout",
    "Framing": "inference.editing",
    "Guidance": "inference.schedules",
    "Index": "index",
    "Pipeline": "pipeline.pipeline",
    "SuccessiveHalving": "inference.successive_halving",
    "Sampling": "inference.sampling",
    "load": "pipeline.pipeline",
    "load_tokenizer": "weights.loading",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("randfeat")
    if name not in _HOME:
        raise AttributeError(f"module 'randfeat' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
