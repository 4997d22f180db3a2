"""Measurement of samples and inpaintings of photographs, on crops and models made here."""

import csv
import importlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from randfeat import Pipeline
from randfeat.models import create
from randfeat.tokenizers import PatchTokenizer


@pytest.fixture
def made(tmp_path):
    """A folder as `randfeat make photographs --size 64` writes it."""
    rng = np.random.default_rng(0)
    (tmp_path / "made" / "images").mkdir(parents=True)
    rows = [("path", "label", "split", "part")]
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / f"made/images/{i}.png")
        rows.append((f"images/{i}.png", f"photo {i % 2}", "test" if i % 3 == 0 else "train", "a"))
    with (tmp_path / "made" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "made"


def test_crops_are_divided_and_models_are_measured(made, tmp_path, monkeypatch):
    photographs = importlib.import_module("studies.tokenizers.photographs")
    monkeypatch.setattr(photographs, "TRAINED", 10)
    monkeypatch.setattr(photographs, "COUNT", 4)
    monkeypatch.setattr(photographs, "SHOWN", 2)
    photographs.crops(made, tmp_path / "crops")
    assert len([*(tmp_path / "crops" / "train").rglob("*.png")]) == 10
    assert len([*(tmp_path / "crops" / "test").rglob("*.png")]) == 8
    torch.manual_seed(0)
    tokenizer = PatchTokenizer(16, 8, 3)
    tokenizer.codebook.copy_(torch.rand(16, 3).repeat_interleave(64, 1))  # flat patches: all change is at borders
    network = create("arpg", grid=(8, 8), vocab_size=16, num_classes=2, embed_dim=16, depth=1, num_heads=2)
    torch.nn.init.normal_(network.head.weight)
    for name in ("learned", "patches"):
        Pipeline(tokenizer, network, ["a", "b"]).save(tmp_path / name)
    models = {name: tmp_path / name for name in ("learned", "patches")}
    photographs.measure(tmp_path / "crops" / "test", models, tmp_path / "found")
    record = json.loads((tmp_path / "found" / "photographs.json").read_text())
    assert record["real images"]["samples"]["value"] == pytest.approx(1, abs=0.05)  # noise has no borders
    assert "samples" not in record["patches"]  # nothing changes inside of flat patches
    assert record["patches"]["inpaintings"]["value"] > 1
    with Image.open(tmp_path / "found" / "photographs.png") as sheet:
        assert sheet.width > 2 * 64
