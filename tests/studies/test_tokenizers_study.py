"""The study of tokenizers as its commands run it: read, reconstructed, resumed and tabled, on a few enlarged digits."""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from randfeat.data.builtin import make_digits
from randfeat.weights.loading import load_tokenizer

SMALL = (
    "network.width=4",
    "network.multipliers=[1,1,2]",
    "network.latent_dim=4",
    "network.norm_groups=2",
    "training.steps=3",
    "training.warmup=1",
    "training.batch_size=16",
    "training.eval_every=3",
)
SEEN = {"fit": 200, "probed": 240, "tested": 60}


def module(name):
    return importlib.import_module(f"studies.tokenizers.{name}")


def enlarged(seed=0, split_seed=None):
    """Return scikit-learn's digits on 16 x 16 pixels."""
    made = make_digits(split_seed=split_seed or 0)
    return replace(made, images=np.kron(made.images, np.ones((2, 2), np.uint8)))


@pytest.fixture
def study(monkeypatch, tmp_path, capsys):
    """Runs a module of the study with its arguments, small: what it prints."""
    sets, arms, units = (module(name) for name in ("sets", "arms", "units"))
    reading = importlib.import_module("studies.reading.scoring")
    for name in ("cluttered", "fashion"):
        monkeypatch.setitem(sets.MAKERS, name, enlarged)
        monkeypatch.setitem(sets.SETTINGS, name, sets.Setting(4, 16, **SEEN, steps=3))
        monkeypatch.setitem(arms.TRAINED, name, SMALL)
    monkeypatch.setattr(units, "SIZE", replace(units.SIZE, width=16, batch=16))
    monkeypatch.setattr(units, "READINGS", units.READINGS[:2])
    monkeypatch.setattr(units, "ATTENTIVE", ((3e-3, 2),))
    monkeypatch.setattr(module("results"), "DRAWS", 200)
    for name, draws in (("DRAWS", 4), ("SEARCHED_DRAWS", 2)):
        monkeypatch.setattr(reading, name, draws)
    settings = reading._settings
    monkeypatch.setattr(reading, "_settings", lambda measure: dict([*settings(measure).items()][-1:]))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        module(name).main()
        return capsys.readouterr().out

    return run


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


@pytest.mark.slow
def test_units_are_read_once_and_tabled(study, tmp_path, monkeypatch):
    work, found = tmp_path / "work", tmp_path / "found"
    how = work, "--found", found, "--sets", "cluttered", "--seeds"
    arms = "--arms", "patches", "shifted"
    study("__main__", "read", *how, 0, *arms)
    records = {name: found / "cluttered" / name / "0" / "record.json" for name in arms[1:]}
    told = {name: json.loads(path.read_text()) for name, path in records.items()}
    assert {(one["tokens"], one["codes"]) for one in told.values()} == {(16, 16)}
    assert told["patches"]["generator_parameters"] == told["shifted"]["generator_parameters"]
    assert told["patches"]["generator"]["steps"] == told["shifted"]["generator"]["steps"] == 3
    assert set(module("results").COLUMNS.values()) <= set(told["shifted"]["means"])
    before = {path: path.stat().st_mtime_ns for path in found.rglob("*.json")}
    study("__main__", "read", *how, 0, *arms)
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*.json")} == before
    # stopped before its results were written, a unit is made of the parts that it had finished
    shutil.rmtree(records["patches"].parent)
    monkeypatch.setattr(module("units"), "train", None)
    monkeypatch.setattr(module("units"), "measure", None)
    study("__main__", "read", *how, 0, *arms)
    again = json.loads(records["patches"].read_text())
    assert again["means"] == told["patches"]["means"]
    study("tables", tmp_path / "docs", "--found", found)
    head, patches, shifted = rows_of(tmp_path / "docs" / "results" / "tokenizers_cluttered.csv")
    assert head[0] == "cluttered, 60 test images, 1 seed"
    assert (patches[0], shifted[0]) == ("k-means patches", "learned, shifted images")
    assert float(patches[1].split()[0]) == pytest.approx(100 * told["patches"]["means"]["linear|as it is"], abs=0.051)
    head, difference = rows_of(tmp_path / "docs" / "results" / "tokenizers_differences.csv")
    assert difference[0] == "cluttered: learned, shifted images − k-means patches, 1 seed"
    ours, theirs = (100 * told[name]["means"]["knn|2 x 2 shifts"] for name in ("shifted", "patches"))
    cell = difference[head.index("k-NN, 2 x 2")].strip("*").replace("−", "-")
    assert float(cell.split()[0]) == pytest.approx(ours - theirs, abs=0.051)


@pytest.mark.slow
def test_reconstructions_of_test_images(study, tmp_path):
    work, found = tmp_path / "work", tmp_path / "found"
    study("__main__", "reconstruction", work, "--found", found, "--sets", "fashion")
    record = json.loads((found / "reconstruction" / "fashion" / "reconstruction.json").read_text())
    pictures = module("sets").make("fashion", work / "fashion")
    pixels = torch.from_numpy(pictures.images[pictures.tested]).float()[:, None] / 255
    for arm, title in (("patches", "k-means patches"), ("learned", "learned")):
        made = load_tokenizer(work / "fashion" / arm / "0" / "tokenizer")
        with torch.no_grad():
            error = (made.decode(made.encode(pixels)) - pixels).square().mean().item()
        assert record["tokenizers"][title]["mse"]["value"] == pytest.approx(error, rel=1e-4)
    ratio = record["comparisons"][0]["mse_ratio"]
    errors = [record["tokenizers"][title]["mse"]["value"] for title in ("learned", "k-means patches")]
    assert ratio["low"] < ratio["value"] < ratio["high"]
    assert ratio["value"] == pytest.approx(errors[0] / errors[1], rel=1e-3)
    with Image.open(found / "reconstruction" / "fashion" / "sheet.png") as sheet:
        assert sheet.width > 12 * 16


def test_parts_of_a_set_share_no_group(study, tmp_path):
    pictures = module("sets").make("cluttered", tmp_path / "set")
    parts = {name: set(pictures.groups[getattr(pictures, name)]) for name in ("fit", "held_out", "probed", "tested")}
    assert not parts["fit"] & parts["held_out"]
    assert not parts["tested"] & (parts["fit"] | parts["held_out"] | parts["probed"])
    again = module("sets").make("cluttered", tmp_path / "set")
    assert np.array_equal(again.images, pictures.images)
    source = pictures.source(pictures.fit)
    assert np.array_equal(np.asarray(source.read(3)), source.values(3)[..., 0])


def test_tables_without_results_say_what_to_run(study, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m studies\.tokenizers read"):
        study("tables", tmp_path / "docs", "--found", tmp_path / "nothing")
