"""What classifiers with one logit per class have in common."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin


class LogitClassifier(ClassifierMixin, BaseEstimator):
    """Predicts from the `_logits` (n, classes) that a subclass computes."""

    classes_: NDArray[Any]

    def _logits(self, x: Any) -> NDArray[np.floating]:
        raise NotImplementedError

    def decision_function(self, x: Any) -> NDArray[np.floating]:
        """Logits (n, classes), or for two classes (n,), those of the second less those of the first."""
        logits = self._logits(x)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, x: Any) -> NDArray[np.float64]:
        """Probabilities (n, classes), the classes in the order of `classes_`."""
        return softmax(self._logits(x).astype(np.float64), axis=1)

    def predict(self, x: Any) -> NDArray[Any]:
        """Labels (n,)."""
        best = self._logits(x).argmax(axis=1)
        return self.classes_[best]
