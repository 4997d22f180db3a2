"""Inputs of the page: a model, an index, both, or a model of timm."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import timm
from PIL import Image

from randfeat import load
from randfeat.commands.app import classify, html, page, paint, read, sample, search, state
from randfeat.features.timm_encoder import TimmEncoder
from randfeat.index import Index


def test_with_an_index_alone_the_model_that_read_it_does_everything(place):
    found = state.open_all(index=place / "digits.index", device="cpu")
    assert found.encoder is found.reader
    assert found.model is not None
    assert len(found.index) == 3000
    assert page.summary(found) == "digits.index: 3,000 rows · randar: RandAR of 8 × 8 pixels, 10 classes"
    same = state.open_all(str(place / "randar"), place / "digits.index", "cpu")
    assert same.encoder is same.reader  # opened once
    other = state.open_all(str(place / "raster"), place / "digits.index", "cpu")
    assert type(other.model.generator).__name__ == "LlamaGen"
    assert other.reader.name.endswith("randar")


def test_a_model_that_was_moved_reads_on(place, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(place / "randar", model)
    Index.open(place / "digits.index").save(tmp_path / "index")
    there = state.open_all(index=tmp_path / "index", device="cpu").reader
    meta = tmp_path / "index" / "meta.json"
    meta.write_text(meta.read_text().replace(str(place / "randar"), str(tmp_path / "gone")))
    with pytest.raises(FileNotFoundError, match="gone"):
        state.open_all(index=tmp_path / "index", device="cpu")
    moved = state.open_all(str(model), tmp_path / "index", "cpu")
    assert moved.encoder is moved.reader
    picture = Image.open(place / "plain" / "0000.png")
    assert (moved.reader.features([picture])[0] == there.features([picture])[0]).all()
    with pytest.raises(ValueError, match="is another"):  # a model that did not read it
        state.open_all(str(place / "raster"), tmp_path / "index", "cpu")


def test_a_model_of_timm_reads_and_the_other_tabs_say_why_not():
    network = timm.create_model("test_vit", pretrained=False, num_classes=0)
    given = state.AppState(TimmEncoder(network, name="timm:test_vit"))
    assert page.summary(given) == "timm:test_vit"
    for tab in (paint, sample, classify):
        assert (
            tab.unavailable(given)
            == "timm:test_vit reads pictures and makes none: give a model of randfeat with --model."
        )
    assert "There is no index" in search.unavailable(given)
    assert read.unavailable(given) == ""
    picture = Image.new("RGB", (300, 200), "teal")
    prepared = given.encoder.prepare(picture)
    assert html.from_array(prepared).mode == "RGB"
    for spec in read.dense_specs(None):
        own, grey = read.dense_features(given.encoder, prepared, spec)
        assert own.shape == grey.shape
        assert own.ndim == 3
    with pytest.raises(ValueError, match="one vector for the whole picture"):
        read.dense_features(given.encoder, prepared, "pooled")


def test_readings_that_are_offered_can_be_read(place):
    for name in ("randar", "raster"):
        model = load(place / name)
        offered = read.dense_specs(model)
        assert len(offered) == len(set(offered)) >= 2
        for spec in offered:
            assert model.features([np.zeros((8, 8), np.uint8)], spec).ndim == 4


def test_orders_are_read_in_rounds():
    assert classify.rounds(1, True) == [1]
    assert classify.rounds(16, True) == [1, 4, 16]
    assert classify.rounds(20, True) == [1, 4, 16, 20]
    assert classify.rounds(20, False) == [20]
