"""Measures of features: the same search on training images for every reader, and one score on test images.

Settings are chosen on the validation part with probes fitted to `Fashion.searched`; the chosen probe is fitted anew to
all training images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from randfeat.probes import (
    KNN,
    RBFSVM,
    AttentiveProbe,
    Components,
    LinearProbe,
    few_shot,
    retrieval_scores,
    scaling,
)
from sklearn.base import BaseEstimator, clone

CS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)  # of linear probes, for features of variance 1
QUICK_C = 3e-3  # which ranks variants
FINALISTS = 2  # variants whose scaling and C are searched
WORSE = 0.01  # accuracy below the best at which a path of C ends
KS = (3, 5, 10, 20, 50)
SHOTS, DRAWS, SEARCHED_DRAWS = 5, 20, 5
SHOT_CS = (1.0, 30.0, 1000.0, 30000.0)
RANKED = 2500  # validation images, at most, that measures by distances and few-shot are chosen on
RATES, EPOCHS = (1e-3, 3e-3, 1e-2, 3e-2), 20  # of the attentive probe
HEADS = 12  # of AIM's probe
SCALERS: dict[str, Callable[[], BaseEstimator]] = {
    "none": lambda: scaling("none"),
    "standard": lambda: scaling("standard"),
    "whitened 64": lambda: Components(64, whiten=True),
    "whitened 256": lambda: Components(256, whiten=True),
}
Pair = tuple[np.ndarray, np.ndarray]  # features of the searched and of the validation images


@dataclass(frozen=True)
class Choice:
    """Choice made on training images. accuracy: on the validation part. tried: best accuracy of each variant."""

    variant: str
    setting: dict[str, Any]
    accuracy: float
    tried: dict[str, float] = field(default_factory=dict)


class Measure(ABC):
    """Measure of features (n, d). name: in files and tables. dense: reads maps (n, D, h, w) in place of vectors."""

    name: str
    dense = False

    @property
    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """All that a record depends on beside features and images: what is searched, and how it is scored."""

    @abstractmethod
    def search(self, variants: Mapping[str, Callable[[], Pair]], y: np.ndarray, truth: np.ndarray) -> Choice:
        """Return the best variant and setting. y, truth: labels of the searched and of the validation images."""

    @abstractmethod
    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        """Return the score of each test image, 0 to 1: (m,), or of several draws (draws, m)."""


class Tried(Measure):
    """Measure whose settings are tried one by one, for every variant."""

    @abstractmethod
    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        """Yield settings and their mean scores, fitted to x (n, d) and y, of the queries (m, d)."""

    def search(self, variants: Mapping[str, Callable[[], Pair]], y: np.ndarray, truth: np.ndarray) -> Choice:
        best: Choice | None = None
        ranked: dict[str, float] = {}
        for name, read in variants.items():
            x, queries = read()
            step = math.ceil(len(queries) / RANKED)
            for setting, score in self.tries(_single(x), y, _single(queries[::step]), truth[::step]):
                ranked[name] = max(score, ranked.get(name, 0.0))
                if best is None or score > best.accuracy:
                    best = Choice(name, setting, score)
        if best is None:
            raise ValueError(f"{self.name} has no features to choose from: name a variant")
        return Choice(best.variant, best.setting, best.accuracy, ranked)


class Linear(Measure):
    """Logistic regression: variants are ranked at one C, the best few at each scaling and C."""

    name = "linear"

    @property
    def settings(self) -> tuple[object, ...]:
        return CS, QUICK_C, FINALISTS, WORSE

    def search(self, variants: Mapping[str, Callable[[], Pair]], y: np.ndarray, truth: np.ndarray) -> Choice:
        ranked = {}
        for name, read in variants.items():
            x, queries = (_single(one) for one in read())
            quick = LinearProbe(C=QUICK_C, scaling="standard", tol=1e-3)
            ranked[name] = float((quick.fit(x, y).predict(queries) == truth).mean())
        best = Choice("", {}, -1.0)
        for name in sorted(ranked, key=ranked.__getitem__, reverse=True)[:FINALISTS]:
            x, queries = (_single(one) for one in variants[name]())
            for how in ("standard", "none"):
                for c, accuracy in _path(how, x, y, queries, truth):
                    ranked[name] = max(ranked[name], accuracy)
                    if accuracy > best.accuracy:
                        best = Choice(name, {"scaling": how, "C": c}, accuracy)
        return Choice(best.variant, best.setting, best.accuracy, ranked)

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        x = _single(x)
        probe = LinearProbe(_relative(setting["C"], setting["scaling"], x), setting["scaling"], tol=1e-4)
        return probe.fit(x, y).predict(_single(test)) == truth


def _path(
    how: str, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
) -> Iterator[tuple[float, float]]:
    """Yield each C with its accuracy, from the strongest penalty on, until it is clearly past the best."""
    probe, best = LinearProbe(scaling=how, tol=1e-4, max_iter=300, warm_start=True), 0.0
    for c in CS:
        probe.set_params(C=_relative(c, how, x))
        accuracy = float((probe.fit(x, y).predict(queries) == truth).mean())
        yield c, accuracy
        best = max(best, accuracy)
        if accuracy < best - WORSE:
            return


def _relative(c: float, how: str, x: np.ndarray) -> float:
    """Return the C that means the same for unscaled features as `c` for those of variance 1."""
    return c if how == "standard" else c / max(float(x.var(axis=0, dtype=np.float64).mean()), 1e-12)


class Neighbours(Tried):
    """k-NN classifier by cosine."""

    name = "knn"

    @property
    def settings(self) -> tuple[object, ...]:
        return (*SCALERS,), KS, RANKED

    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        for how in SCALERS:
            seen, asked = _scaled(how, x, queries)
            for k, found in KNN().fit(seen, y).predict_each(asked, KS).items():
                yield {"scaling": how, "k": k}, float((found == truth).mean())

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        seen, asked = _scaled(setting["scaling"], _single(x), _single(test))
        return KNN(setting["k"]).fit(seen, y).predict(asked) == truth


class FewShot(Tried):
    """Logistic regression on five labelled images a class; scalings are fitted to all images, without labels."""

    name = "fewshot5"

    @property
    def settings(self) -> tuple[object, ...]:
        return (*SCALERS,), SHOTS, DRAWS, SEARCHED_DRAWS, SHOT_CS, RANKED

    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        for how in SCALERS:
            seen, asked = _scaled(how, x, queries)
            for c in SHOT_CS:
                yield {"scaling": how, "C": c}, float(_shots(c, seen, y, asked, truth, SEARCHED_DRAWS).mean())

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        seen, asked = _scaled(setting["scaling"], _single(x), _single(test))
        return _shots(setting["C"], seen, y, asked, truth, DRAWS)


def _shots(c: float, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray, draws: int) -> np.ndarray:
    return few_shot(x, y, queries, truth, SHOTS, draws, estimator=LinearProbe(C=c, scaling="l2")).T


class Retrieval(Tried):
    """MAP@R of each test image among the others, by cosine."""

    name = "retrieval"

    @property
    def settings(self) -> tuple[object, ...]:
        return (*SCALERS,), RANKED

    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        for how in SCALERS:
            asked = _scaled(how, x, queries)[1]
            yield {"scaling": how}, float(retrieval_scores(asked, truth)["map_at_r"].mean())

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        asked = _scaled(setting["scaling"], _single(x), _single(test))[1]
        return retrieval_scores(asked, truth)["map_at_r"]


class Attentive(Tried):
    """AIM's attentive probe of maps."""

    name = "attentive"
    dense = True

    @property
    def settings(self) -> tuple[object, ...]:
        return RATES, EPOCHS, HEADS, RANKED

    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        for rate in RATES:
            yield {"rate": rate}, float((_attentive(rate, x).fit(x, y).predict(queries) == truth).mean())

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        return _attentive(setting["rate"], x).fit(x, y).predict(test) == truth


def _attentive(rate: float, x: np.ndarray) -> AttentiveProbe:
    return AttentiveProbe(math.gcd(HEADS, x.shape[1]), rate, epochs=EPOCHS)


class GaussianSVM(Tried):
    """SVM with a Gaussian kernel, for pixels alone: on 128 principal components, a sixth of the time of 784 pixels."""

    name = "svm"
    kept, cs, gammas = 128, (3.0, 10.0, 30.0), (1.0, 2.0, 4.0)

    @property
    def settings(self) -> tuple[object, ...]:
        return self.kept, self.cs, self.gammas, RANKED

    def tries(
        self, x: np.ndarray, y: np.ndarray, queries: np.ndarray, truth: np.ndarray
    ) -> Iterator[tuple[dict[str, Any], float]]:
        seen, asked = self._cut(x, queries)
        for gamma in self.gammas:
            for c in self.cs:
                found = RBFSVM(c, gamma).fit(seen, y).predict(asked)
                yield {"C": c, "relative_gamma": gamma}, float((found == truth).mean())

    def score(
        self, setting: Mapping[str, Any], x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray
    ) -> np.ndarray:
        seen, asked = self._cut(_single(x), _single(test))
        return RBFSVM(**setting).fit(seen, y).predict(asked) == truth

    def _cut(self, x: np.ndarray, queries: np.ndarray) -> Pair:
        fitted = Components(self.kept).fit(x)
        return fitted.transform(x), fitted.transform(queries)


MEASURES: tuple[Measure, ...] = (Linear(), Neighbours(), FewShot(), Attentive(), Retrieval())


def _scaled(how: str, x: np.ndarray, queries: np.ndarray) -> Pair:
    """Return both, as scaled by what is fitted to the first, without labels."""
    fitted = clone(SCALERS[how]()).fit(x)
    return fitted.transform(x), fitted.transform(queries)


def _single(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float32)


def names(measures: Sequence[Measure] = MEASURES) -> tuple[str, ...]:
    """Return the names of measures."""
    return tuple(one.name for one in measures)
