"""Feature extraction as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..data.errors import OnError
from ..inference.readout import FeatureSpec
from ..pipeline.pipeline import Pipeline
from .opening import open_encoder


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """scikit-learn transformer from images to features: `FeatureExtractor(model).fit_transform(paths)`.

    model: a pipeline, or what `open_encoder` takes: a path, a name, `timm:NAME`. spec: one feature spec; None is the
    model's default. batch_size: images at a time. device: for a model that is opened here. on_error: "skip" makes the
    row of an image that cannot be read NaN, with a warning that has path and reason, see `data.errors.OnError`; leave
    such rows out before an estimator that takes no NaN.

    X is any sequence of images: paths, PIL images, arrays. `fit` opens the model and learns nothing. A search over
    `spec` reads all images again for each candidate: open the model first, so that it is loaded once only, or give
    the pipeline `memory=`, and the model by its path, so that nothing is computed twice.

    Attributes: spec_, the feature spec with layers as numbers.
    """

    def __init__(
        self,
        model: str | Pipeline = "randar-l-llamagen",
        spec: str | FeatureSpec | None = None,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        on_error: OnError = "raise",
    ) -> None:
        self.model, self.spec, self.batch_size, self.device, self.on_error = model, spec, batch_size, device, on_error

    def fit(self, X: Any = None, y: Any = None) -> FeatureExtractor:
        """Open the model. X and y are ignored."""
        encoder = open_encoder(self.model, [] if self.spec is None else [self.spec], self.device)
        shape = encoder.features([encoder.example()])[0].shape
        if len(shape) != 2:
            raise ValueError(
                f"spec {encoder.specs[0]} makes maps, and scikit-learn takes vectors: choose another pool than none"
            )
        self.spec_, self._n_features_out, self._encoder = encoder.specs[0], shape[1], encoder
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:
        """Return the features of images, float32 (n, F); NaN where one was skipped."""
        check_is_fitted(self)
        if not hasattr(self, "_encoder"):  # after unpickling
            self._encoder = open_encoder(self.model, [self.spec_], self.device)
        return self._encoder.features(X, self.batch_size, self.on_error)[0]

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters without the open model, which is opened again where it is needed."""
        return {name: value for name, value in super().__getstate__().items() if name != "_encoder"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags
