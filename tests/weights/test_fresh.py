"""`random:` before a model: the same network, tokenizer and classes, weights of a seed."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import make_sampler

from randfeat import cli, load, open_encoder


@pytest.fixture
def saved(tmp_path):
    make_sampler(3).save(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_model_with_random_weights(saved):
    trained, fresh, again, other = load(saved), load(f"random:{saved}"), load(f"random:{saved}"), None
    state = torch.random.get_rng_state()
    other = load(f"random:{saved}", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fresh.generator.config == trained.generator.config
    assert fresh.class_names == trained.class_names
    assert fresh.sampling == trained.sampling
    assert fresh.record()["weights"] == again.record()["weights"]
    assert len({one.record()["weights"] for one in (trained, fresh, other)}) == 3
    images = np.zeros((2, 4, 6, 3), np.uint8)
    assert (fresh.tokens(images) == trained.tokens(images)).all()
    with pytest.raises(FileNotFoundError, match="there is no file or directory"):
        load("random:no/such/place.pt")


def test_encoders_keep_their_name(saved):
    images = np.zeros((1, 40, 40, 3), np.uint8)
    for name in (f"random:{saved}", "random:timm:test_vit"):
        encoder = open_encoder(name)
        assert encoder.name == name
        np.testing.assert_array_equal(encoder.features(images)[0], open_encoder(name, seed=0).features(images)[0])
        assert not np.allclose(encoder.features(images)[0], open_encoder(name, seed=1).features(images)[0])


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_without_the_word_keeps_its_weights(monkeypatch, kind):
    told = []
    monkeypatch.setattr("randfeat.features.timm_encoder.open_timm", lambda *how: told.append(how[-1]) or Mock())
    for name in ("timm:test_vit", "random:timm:test_vit"):
        open_encoder(kind(name))
    assert told == [False, True]


def test_commands_take_it_as_a_model(saved, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.new("RGB", (9, 8), (80 * number, 0, 0)).save(photos / f"{number}.png")
    fast = ["--device", "cpu"]
    for name in (f"random:{saved}", "random:timm:test_vit"):
        out = tmp_path / name[-8:]
        assert cli.main(["extract", name, str(photos), "-o", str(out), "--workers", "0", *fast]) == 0
        build = ["index", "build", f"{out}.index", str(photos), "--model", name, "--workers", "0", *fast]
        assert cli.main(build) == 0
        assert cli.main(["search", f"{out}.index", str(photos / "1.png"), *fast]) == 0
        assert "1.0000" in capsys.readouterr().out
    model = f"random:{saved}"
    assert cli.main(["sample", model, "--count", "1", "-o", str(tmp_path / "samples"), *fast]) == 0
    assert cli.main(["classify", model, str(photos), "--orders", "1", *fast]) == 0
    assert cli.main(["surprise", model, str(photos), "--orders", "1", "-o", str(tmp_path / "odd"), *fast]) == 0
