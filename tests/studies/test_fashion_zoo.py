"""The package's models and images as `python -m studies.fashion.zoo` makes them, of a run of a small recipe."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
import torch
from randfeat.pretrain import read_recipe

from randfeat import Pipeline, load
from randfeat.data.builtin import fashion, load_fashion_part
from randfeat.tokenizers import PatchTokenizer

NAMES = {"digits-arpg": ["a", "b", "c"], "digits-randar-free": []}


def number(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 10000}


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The tool, with a zoo of its own at `tmp_path`/zoo."""
    tool = importlib.import_module("studies.fashion.zoo")
    monkeypatch.setattr(tool, "CHECKED", 4)
    monkeypatch.setattr(tool.zoo, "folder", lambda: tmp_path / "zoo")
    return tool


@pytest.fixture
def runs(tmp_path):
    """A folder of two runs, as `randfeat pretrain` writes them, with random weights."""
    tokenizer = PatchTokenizer(7, 4, 1)
    tokenizer.codebook.copy_(torch.rand(7, 16))
    for name, classes in NAMES.items():
        recipe = name.replace("-", "_")
        history = {"train": [[1, 6.0]], "validation": [[5, 2.5]], "skipped": [], "kept_step": 5, "seconds": 7200.0}
        record = {
            "recipe": json.loads(json.dumps(asdict(read_recipe(recipe)))),
            "tokens": {"tokens": "abc"},
            "validation": 0.0833,
            "init": None,
            "history": history,
        }
        generator = tiny.model(recipe.split("_")[1], (7, 7), num_classes=len(classes))
        Pipeline(tokenizer, generator, classes, record).save(tmp_path / "runs" / recipe / "model")
    return tmp_path / "runs"


@pytest.fixture
def results(tool, tmp_path, monkeypatch):
    found = {
        "linear": {"arpg": {"top1": number(0.5)}, "randar": {"top1": number(0.9125)}},
        "knn": {},
        "likelihood": {"arpg": {"k1": {"top1": number(0.8)}}},
        "samples": {"best": "arpg", "arpg": {"agreement": number(0.96), "nearest_train_ratio": number(1.02)}},
    }
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "fashion.json")
    tool.RESULTS.write_text(json.dumps(found))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_becomes_a_model_of_the_package(tool, runs, results, name, tmp_path):
    trained = load(runs / name.replace("-", "_") / "model")
    said = tool.ship(name, runs, tmp_path / "zoo")
    shipped, folder = load(tmp_path / "zoo" / name), tmp_path / "zoo" / name
    assert f"{tool.size_of(folder):,} bytes, weights rounded by at most" in said
    for key, value in trained.generator.state_dict().items():
        assert torch.equal(shipped.generator.state_dict()[key], value.half().float())
    assert torch.equal(shipped.tokenizer.codebook, trained.tokenizer.codebook)
    assert shipped.class_names == NAMES[name]
    history = {"validation": [[5, 2.5]], "kept_step": 5, "seconds": 7200.0}
    assert shipped.training_record["history"] == history
    assert shipped.training_record.keys() == {"data", "recipe", "history"}
    assert {one.name for one in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    tool.ship(name, runs, tmp_path / "zoo")  # again, over the first
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before


def test_models_share_one_tokenizer_and_another_stays_with_its_model(tool, runs, tmp_path):
    for name in NAMES:
        tool.ship(name, runs, tmp_path / "zoo")
    inside = {one.name for one in (tmp_path / "zoo").iterdir()}
    assert inside == {*NAMES, "tokenizer"}
    model = load(runs / "digits_arpg" / "model")
    model.tokenizer.codebook += 0.1
    model.save(runs / "digits_arpg" / "model")
    other = tmp_path / "zoo" / "digits-randar-free"
    before = {path: path.read_bytes() for path in other.rglob("*")}
    shared = (tmp_path / "zoo" / "tokenizer" / "model.safetensors").read_bytes()
    tool.ship("digits-arpg", runs, tmp_path / "zoo")
    assert torch.equal(load(tmp_path / "zoo" / "digits-arpg").tokenizer.codebook, model.tokenizer.codebook)
    assert (tmp_path / "zoo" / "tokenizer" / "model.safetensors").read_bytes() == shared
    assert {path: path.read_bytes() for path in other.rglob("*")} == before


def test_a_card_holds_what_was_measured_of_the_model(tool, runs, results, tmp_path):
    cards = {}
    for name in NAMES:
        tool.ship(name, runs, tmp_path / "zoo")
        cards[name] = (tmp_path / "zoo" / name / "README.md").read_text()
    labelled, free = cards.values()
    assert "| class by likelihood, 1 order, top-1 | 80.0% | 79.0 to 81.0 | 10,000 |\n" in labelled
    assert "| samples that a CNN recognises | 96.0% | 95.0 to 97.0 | 10,000 |\n" in labelled
    assert "samples / test images | 1.02 | 1.01 to 1.03 | 10,000 |\n" in labelled
    assert "| linear probe, top-1 | 91.2% | 90.2 to 92.2 | 10,000 |\n" in free
    assert ("linear probe" in labelled, "k-NN" in free, "samples that" in free) == (False, False, False)
    assert ("of no class that one names" in labelled, "of no class that one names" in free) == (False, True)
    for name, card in cards.items():
        recipe = name.replace("-", "_")
        assert "license: mit\n" in card
        assert "copyright (c) 2017 Zalando SE" in card
        assert "a share of 8.3%, drawn at random, said which step to keep" in card
        assert f"- recipe: `configs/{recipe}.yaml`\n- hardware: one of two CPU cores\n" in card
        assert f"- steps: {read_recipe(recipe).training.steps}\n" in card
        assert "- time: 2 hours\n" in card
        assert "| 5 | 2.5000 |\n" in card


def test_a_run_of_another_recipe_is_refused(tool, runs, tmp_path):
    model = load(runs / "digits_arpg" / "model")
    recipe = read_recipe("digits_arpg", ["training.steps=5", "size.dropout=0"])
    model.training_record["recipe"] = asdict(recipe)
    model.save(runs / "digits_arpg" / "model")
    with pytest.raises(
        ValueError, match=r"configs/digits_arpg.yaml: it has size.dropout 0.0, not 0.1; training.steps 5"
    ):
        tool.ship("digits-arpg", runs, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
    with pytest.raises(FileNotFoundError, match="digits_raster_free"):
        tool.ship("digits-raster-free", runs, tmp_path / "zoo")
    model.training_record = {}
    with pytest.raises(ValueError, match="no record of its recipe"):
        tool.check_recipe(model, "digits_arpg")


def test_a_recipe_older_than_a_field_is_its_default(tool, runs):
    model = load(runs / "digits_arpg" / "model")
    del model.training_record["recipe"]["training"]["max_not_finite"], model.training_record["recipe"]["running"]
    tool.check_recipe(model, "digits_arpg")


def test_what_is_too_large_is_refused(tool, runs, results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool.zoo, "NAMES", tuple(NAMES))
    monkeypatch.setattr("sys.argv", ["zoo", "models", str(runs), "--out", str(tmp_path / "zoo")])
    tool.main()
    assert (
        f"models and images: {sum(map(tool.size_of, (tmp_path / 'zoo', fashion.PART))):,} bytes"
        in capsys.readouterr().out
    )
    assert (tmp_path / "zoo" / "fashion.json").read_bytes() == tool.RESULTS.read_bytes()
    monkeypatch.setattr(tool, "LIMIT", 1000)
    with pytest.raises(ValueError, match="expected at most 1,000: make the models smaller"):
        tool.main()


def test_images_are_the_first_of_each_split(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "TRAIN", 3)
    monkeypatch.setattr(tool, "TEST", 2)
    part = load_fashion_part()
    for _ in range(2):  # the second takes the place of the first
        tool.write_images(part, tmp_path / "images")
    monkeypatch.setattr(fashion, "PART", tmp_path / "images")
    read, rows = load_fashion_part(), np.r_[0:3, 3000:3002]
    for field in ("images", "labels", "test"):
        assert np.array_equal(getattr(read, field), getattr(part, field)[rows])
    assert "the first 3 and 2 of them" in (tmp_path / "images" / "README.md").read_text()
    with pytest.raises(FileExistsError, match="holds something else"):
        tool.write_images(replace(part), tmp_path)
