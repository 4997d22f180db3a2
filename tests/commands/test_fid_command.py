"""`randfeat fid` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pipelines import make_sampler

from randfeat import cli

FAST = ["--device", "cpu"]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")
    return tmp_path / "photos"


def fid(*words):
    return cli.main(["fid", *map(str, words), *FAST])


def test_samples_beside_photographs(photos, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    more = ["--evaluator", tmp_path / "model", "--spec", "raster/causal/token/L1/mean/mean", "-o", tmp_path / "out"]
    assert fid(photos, photos, *more, "--count", 8) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() in shown
    found = json.loads((tmp_path / "out" / "quality.json").read_text())[str(photos)]
    assert (found["samples"], found["reference"]) == (8, 12)
    assert found["evaluator"].endswith("raster/causal/token/L1/mean/mean")
    assert found["precision"] == 1


def test_a_search_over_guidance_ends_with_the_best_scale_and_more_samples(photos, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    judge = ["--evaluator", f"likelihood:{tmp_path / 'model'}", "--orders", 1]
    more = ["-o", tmp_path / "out", "--guidance", 1, 3, "--search-count", 6, "--count", 10, "--steps", 2]
    assert fid(tmp_path / "model", photos, *judge, *more) == 0
    found = json.loads((tmp_path / "out" / "quality.json").read_text())
    tried = {name: one for name, one in found.items() if "best" not in name}
    assert list(tried) == ["guidance 1", "guidance 3"]
    best = min(tried, key=lambda name: tried[name]["frechet"])
    assert list(found)[-1] == f"{best}, the best"
    assert found[f"{best}, the best"]["samples"] == 10
    assert {one["samples"] for one in tried.values()} == {6}
    images = {name: len(list((tmp_path / "out" / name.replace(" ", "-") / "images").iterdir())) for name in tried}
    assert images == {name: 10 if name == best else 6 for name in tried}
    before = (tmp_path / "out" / "quality.json").read_bytes()
    assert fid(tmp_path / "model", photos, *judge, *more) == 0  # nothing is sampled again
    assert (tmp_path / "out" / "quality.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{photos}", "{photos}", "--weights", "{missing}"], "the weights of Inception are not at"),
        (["{missing}.npz", "{photos}", "--evaluator", "{model}"], "there is no"),
        (["{model}", "{photos}", "--guidance", "2"], "give a folder for them, with -o DIR"),
        (["{photos}", "{photos}", "--evaluator", "{model}", "--weights", "{missing}"], "leave them out"),
    ],
)
def test_bad_input_is_one_sentence(photos, tmp_path, capsys, words, message):
    make_sampler().save(tmp_path / "model")
    names = {name: tmp_path / name for name in ("photos", "model", "missing")}
    assert fid(*(word.format(**names) for word in words)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message in said[0]


def test_files_that_cannot_be_read_are_skipped_and_listed(photos, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    judge = ["--evaluator", tmp_path / "model", "--spec", "raster/causal/token/L1/mean/mean"]
    assert fid(photos, photos, *judge, "-o", tmp_path / "whole") == 0
    (photos / "03a.png").write_text("a note that somebody renamed")
    assert fid(photos, photos, *judge, "-o", tmp_path / "out") == 3
    found, whole = (json.loads((tmp_path / name / "quality.json").read_text()) for name in ("out", "whole"))
    assert found == whole
    assert (tmp_path / "out" / "skipped.csv").read_text() == (
        'path,reason\n03a.png,"text, no picture"\n03a.png,"text, no picture"\n'
    )
    assert "2 skipped, since they cannot be read, listed in" in capsys.readouterr().err


def test_a_reference_that_cannot_be_read_is_said_with_the_reasons(photos, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    judge = ["--evaluator", tmp_path / "model", "--spec", "raster/causal/token/L1/mean/mean"]
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(12):
        (bad / f"{number}.png").write_text("a note")
    assert fid(photos, bad, *judge) == 1
    assert "none of the 12 images could be read (12 text, no picture): 0.png, " in capsys.readouterr().err
    assert fid(bad, photos, *judge) == 1
    assert "none of the 12 images could be read (12 text, no picture)" in capsys.readouterr().err
    Image.new("RGB", (6, 4)).save(bad / "0.png")
    assert fid(photos, bad, *judge) == 1
    assert "12 samples and 1 of reference: give 4 at least; 11 could not be read (11 text" in capsys.readouterr().err


def test_samples_are_named_by_their_path_or_as_the_user_does(photos, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    judge = ["--evaluator", tmp_path / "model", "--spec", "raster/causal/token/L1/mean/mean"]
    assert fid(photos, photos, *judge) == 0
    assert f"| {tmp_path.name}/photos | " in capsys.readouterr().out
    assert fid(photos, photos, *judge, "--name", "mine") == 0
    assert "| mine | " in capsys.readouterr().out
    assert fid(photos, photos, *judge, "--name", "mine", "--guidance", "1", "-o", tmp_path / "out") == 1
    assert "names its rows by the scales" in capsys.readouterr().err
