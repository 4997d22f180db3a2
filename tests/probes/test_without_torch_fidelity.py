"""One sentence about torch-fidelity where it is needed and not installed."""

import sys

import numpy as np
import pytest
from randfeat.probes.tasks.generation import frechet_distance, measure_quality

from randfeat.features.evaluators import Inception

SAID = "needs torch-fidelity: pip install torch-fidelity"


@pytest.fixture(autouse=True)
def _missing(monkeypatch):
    parts = ("feature_extractor_inceptionv3", "metric_fid", "metric_isc", "metric_prc")
    for name in ("torch_fidelity", *(f"torch_fidelity.{part}" for part in parts)):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_quality_of_samples_needs_it():
    features = np.random.default_rng(0).standard_normal((8, 3))
    with pytest.raises(ValueError, match=f"^the quality of samples {SAID}$"):
        measure_quality(features, features, "numbers")
    with pytest.raises(ValueError, match=f"^a Fréchet distance {SAID}$"):
        frechet_distance(features, features)


def test_inception_needs_it():
    with pytest.raises(ValueError, match=f"^FID {SAID}$"):
        Inception()
