"""Measurement of samples and inpaintings of photographs, on crops and models made here."""

import csv
import importlib
import json
import pathlib
import shutil

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


def test_the_table_of_the_page_is_made_of_the_records():
    tables = importlib.import_module("studies.tokenizers.tables")
    page = pathlib.Path(__file__).parents[2] / "docs" / "results" / "tokenizers_photographs.csv"
    assert tables.as_csv(tables.photographs(tables.FOUND / "photographs")) == page.read_bytes()
    rows = {row[0]: row[1:] for row in csv.reader(page.read_text("utf-8").splitlines())}
    assert rows["photographs"] == ["learned", "patches", "real images"]
    record = json.loads((tables.FOUND / "photographs" / "reconstruction.json").read_text())
    learned, patches = (one["mse"]["value"] for one in record["tokenizers"].values())
    assert [float(cell.split()[0]) for cell in rows["MSE"][:2]] == pytest.approx([learned, patches], abs=1e-5)
    assert rows["border ratio of samples"][1].startswith("8.067 [7.351, ")


def test_a_table_without_photographs_is_left_out(tmp_path, monkeypatch):
    tables = importlib.import_module("studies.tokenizers.tables")
    monkeypatch.setattr(importlib.import_module("studies.tokenizers.results"), "DRAWS", 20)
    shutil.copytree(tables.FOUND, tmp_path / "found")
    (tmp_path / "found" / "photographs" / "photographs.json").unlink()
    monkeypatch.setattr("sys.argv", ["tables", str(tmp_path / "docs"), "--found", str(tmp_path / "found")])
    tables.main()
    assert not (tmp_path / "docs" / "results" / "tokenizers_photographs.csv").exists()
    assert (tmp_path / "docs" / "results" / "tokenizers_letters.csv").exists()


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


def test_classes_are_divided_and_samples_of_them_are_recognised(made, tmp_path, monkeypatch, capsys):
    photographs = importlib.import_module("studies.tokenizers.photographs")
    with pytest.raises(ValueError, match="has 2 photographs, expected 14 or more"):
        photographs.classes(made, tmp_path / "classes")
    assert not (tmp_path / "classes").exists()
    monkeypatch.setattr(photographs, "OTHERS", (1,))
    photographs.classes(made, tmp_path / "classes")
    files = sorted(path.relative_to(tmp_path / "classes").parts[:3] for path in (tmp_path / "classes").rglob("*.png"))
    assert {*files} == {(part, split, name) for part, name in (("eighteen", "photo 0"), ("three", "photo 1"))
                        for split in ("train", "test")}  # fmt: skip
    for path in (tmp_path / "classes" / "three").rglob("*.png"):
        path.unlink()
    data = tmp_path / "classes" / "eighteen"
    for split in ("train", "test"):  # a second class, of white pictures
        (data / split / "white").mkdir()
        for i in range(8):
            Image.new("RGB", (64, 64), "white").save(data / split / "white" / f"{i}.png")
    tokenizer = PatchTokenizer(2, 8, 3)
    tokenizer.codebook.copy_(torch.stack([torch.rand(192), torch.ones(192)]))
    network = create("arpg", grid=(8, 8), vocab_size=2, num_classes=2, embed_dim=16, depth=1, num_heads=2)
    Pipeline(tokenizer, network, ["photo 0", "white"]).save(tmp_path / "model")
    monkeypatch.setattr(photographs, "COUNT", 6)
    drawn = torch.stack([tokenizer.decode(torch.full((1, 8, 8), i // 3))[0] for i in range(6)])
    drawn[5] = drawn[0]  # one sample of white is none
    monkeypatch.setattr(photographs, "_samples", lambda model: drawn)
    photographs.recognised(data, tmp_path / "model", tmp_path / "found")
    record = json.loads((tmp_path / "found" / "recognised.json").read_text())
    assert record["accuracy_of_judge"]["value"] == 1
    assert record["recognised"]["value"] == pytest.approx(5 / 6)
    assert "recognised: 83.3 [" in capsys.readouterr().out
