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
    from .editing import Framing
    from .extractor import FeatureExtractor
    from .features import FeatureSpec
    from .index import Index
    from .loading import load, load_tokenizer
    from .pipeline import Pipeline
    from .sampling import Sampling
    from .schedules import Guidance

__all__ = [
    "FeatureExtractor",
    "FeatureSpec",
    "Framing",
    "Guidance",
    "Index",
    "Pipeline",
    "Race",
    "Sampling",
    "load",
    "load_tokenizer",
]

_HOME = {
    "FeatureExtractor": "extractor",
    "FeatureSpec": "features",
    "Framing": "editing",
    "Guidance": "schedules",
    "Index": "index",
    "Pipeline": "pipeline",
    "Race": "racing",
    "Sampling": "sampling",
    "load": "loading",
    "load_tokenizer": "loading",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("randfeat")
    if name not in _HOME:
        raise AttributeError(f"module 'randfeat' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
