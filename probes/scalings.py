"""The scalings that the method and every baseline choose from."""

from collections.abc import Callable

from sklearn.base import TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

SCALINGS: dict[str, Callable[[], TransformerMixin]] = {
    "none": FunctionTransformer,
    "standard": StandardScaler,
    "l2": Normalizer,
    "center-l2": lambda: make_pipeline(StandardScaler(with_std=False), Normalizer()),
}


def scaling(name: str) -> TransformerMixin:
    """A fresh transformer of features (n, d).

    "none" leaves them; "standard" gives each dimension mean 0 and variance 1 (a constant one becomes 0);
    "l2" gives each image norm 1 (a zero vector stays 0); "center-l2" does so after removing the mean.
    """
    if name not in SCALINGS:
        raise ValueError(f"scaling {name!r} is unknown, expected one of {', '.join(SCALINGS)}.")
    return SCALINGS[name]()
