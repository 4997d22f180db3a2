"""Features, samples and likelihoods from random-order autoregressive image generators.

    import randfeat
    model = randfeat.load("digits_demo/models/randar")
    model.features(images, "random*4/causal/token/L3/grid4/mean")

Importing this package imports nothing heavy: names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .features.encoder import Encoder
    from .features.opening import open_encoder
    from .features.sklearn import FeatureExtractor
    from .features.store import FeatureStore
    from .index import Index
    from .index.image_map import image_map
    from .inference.editing import Framing
    from .inference.readout import FeatureSpec
    from .inference.sampling import Sampling
    from .inference.schedules import Guidance
    from .inference.successive_halving import SuccessiveHalving
    from .inference.views import Views
    from .pipeline.pipeline import Pipeline, load
    from .pipeline.sample_folder import write_samples
    from .weights.loading import load_tokenizer

__all__ = [
    "Encoder",
    "FeatureExtractor",
    "FeatureSpec",
    "FeatureStore",
    "Framing",
    "Guidance",
    "Index",
    "Pipeline",
    "Sampling",
    "SuccessiveHalving",
    "Views",
    "image_map",
    "load",
    "load_tokenizer",
    "open_encoder",
    "write_samples",
]

_HOME = {
    "Encoder": "features.encoder",
    "FeatureExtractor": "features.sklearn",
    "FeatureSpec": "inference.readout",
    "FeatureStore": "features.store",
    "Framing": "inference.editing",
    "Guidance": "inference.schedules",
    "Index": "index",
    "Pipeline": "pipeline.pipeline",
    "Sampling": "inference.sampling",
    "SuccessiveHalving": "inference.successive_halving",
    "Views": "inference.views",
    "image_map": "index.image_map",
    "load": "pipeline.pipeline",
    "load_tokenizer": "weights.loading",
    "open_encoder": "features.opening",
    "write_samples": "pipeline.sample_folder",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("randfeat")
    if name not in _HOME:
        raise AttributeError(f"module 'randfeat' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
