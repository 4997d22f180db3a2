"""Settings of sampling of what was trained here: the published ones of its size, and LPD's way for a small LPD."""

from __future__ import annotations

import pytest
import tiny

from randfeat import Guidance, Sampling, models
from randfeat.utils import devices
from randfeat.weights import published


@pytest.mark.parametrize("name", ["lpd-l", "rar-l", "arpg-xl", "randar-xl-llamagen", "lpd-l-512"])
def test_a_published_size_samples_as_published(name):
    row = published.MODELS[name]
    sizes = dict(grid=row.grid, vocab_size=row.tokenizer.vocab_size)
    with devices.meta():
        generator, free = (models.create(row.size, **sizes, num_classes=classes) for classes in (1000, 0))
    assert published.sampling_for(generator) == row.sampling
    for model, guidance in ((free, True), (generator, False)):
        found = published.sampling_for(model, guidance)
        assert found.guidance == Guidance()
        assert (found.steps, found.schedule, found.order) == (
            row.sampling.steps,
            row.sampling.schedule,
            row.sampling.order,
        )


def test_a_small_lpd_decodes_groups():
    model = tiny.model("lpd", (4, 4))
    found = published.sampling_for(model)
    assert (found.steps, found.schedule, found.order) == (5, "lpd", "locality")
    assert published.sampling_for(tiny.model("randar")) == Sampling()
    assert published.sampling_for(tiny.model("lpd", (16, 16))).steps == published.MODELS["lpd-l"].sampling.steps
