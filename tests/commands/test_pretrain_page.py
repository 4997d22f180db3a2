"""Output of a pretraining run that goes on: its plan, images above their decoded tokens, and its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from randfeat.probes.tasks.reconstruction import psnr

from randfeat import cli, load
from randfeat.utils import estimates

RECIPE = """
model: randar
labels: true
size: {embed_dim: 16, depth: 2, num_heads: 2, ffn_dim: 24}
training: {steps: 14, batch_size: 8, learning_rate: 0.01, warmup: 2, eval_every: 7}
running: {save_every: 5}
"""
PATCHES = ["--tokenizer", "patch", "--patch", "2", "--size", "4", "--vocab", "7", "--crops", "centre"]
FAST = ["--workers", "0", "--device", "cpu", "--samples", "0", "--no-knn"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two classes, a recipe, and a cache of their tokens."""
    root = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 250, (4, 4, 3), dtype=np.uint8)).save(path)
    (root / "recipe.yaml").write_text(RECIPE)
    words = ["tokenize", root / "photos", "-o", root / "cache", *PATCHES, "--workers", "0", "--device", "cpu"]
    assert cli.main(list(map(str, words))) == 0
    return root


def words(folder, out, *more, data="cache"):
    given = ["--config", folder / "recipe.yaml", "--data", folder / data, "-o", out]
    return ["pretrain", *map(str, [*given, *more]), *FAST]


def test_it_says_what_it_will_do_and_how_long_it_takes(folder, tmp_path, capsys, monkeypatch):
    for name in ("SHORT", "SURE"):
        monkeypatch.setattr(estimates, name, 0.0)
    assert cli.main(words(folder, tmp_path / "run")) == 0
    said = capsys.readouterr().err
    assert "pretraining randar with labels: 60 images, 3 held out; 4 tokens an image of 7 codes; 0.0 million" in said
    assert re.search(r"about \d+ seconds? for the other \d steps, .*, 1 validation included", said)


def test_held_out_images_stand_above_their_decoded_tokens(folder, tmp_path):
    run = tmp_path / "run"
    assert cli.main(words(folder, run, *PATCHES, "--held-out", 0.2, data="photos")) == 0
    record = json.loads((run / "reconstructions.json").read_text())
    assert (record["images"], record["held_out"]) == (12, True)
    tokenizer = load(run / "model").tokenizer
    errors = []
    for path in sorted((folder / "photos").rglob("*.png")):
        pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255
        with torch.no_grad():
            back = tokenizer.decode(tokenizer.encode(torch.from_numpy(pixels[None]))).clamp(0, 1)[0].numpy()
        errors.append(float(psnr(np.mean((pixels - back) ** 2))))
    assert min(errors) - 0.01 <= record["psnr"] <= max(errors) + 0.01
    with Image.open(run / "reconstructions.png") as sheet:
        assert sheet.width > sheet.height  # eight in a row, two rows of each
    page = (run / "report.html").read_text()
    assert "<h2>Tokens, decoded</h2>" in page
    assert f"12 held-out images and what the tokenizer makes of their tokens: {record['psnr']:.1f} dB PSNR" in page


def test_the_images_of_a_cache_are_found_or_missed_in_words(folder, tmp_path):
    short = ["--set", "training.steps=1", "training.warmup=0"]
    assert cli.main(words(folder, tmp_path / "run", *short)) == 0
    assert (tmp_path / "run" / "reconstructions.png").is_file()
    away = tmp_path / "away"
    shutil.copytree(folder / "cache", away / "cache")
    meta = json.loads((away / "cache" / "meta.json").read_text())
    meta["more"]["source"]["name"] = str(away / "photos")
    (away / "cache" / "meta.json").write_text(json.dumps(meta))
    shutil.copy(folder / "recipe.yaml", away)
    assert cli.main(words(away, tmp_path / "two", *short)) == 0
    page = (tmp_path / "two" / "report.html").read_text()
    assert "holds tokens alone, and their images are not at" in page
    assert not (tmp_path / "two" / "reconstructions.png").exists()


def test_any_recipe_is_trained_without_labels(folder, tmp_path, capsys):
    assert cli.main(words(folder, tmp_path / "run", "--set", "labels=false", "training.steps=2")) == 0
    assert load(tmp_path / "run" / "model").generator.num_classes == 0
    assert "pretraining randar without labels: 60 images" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_a_run_that_is_killed_leaves_its_page(folder, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "randfeat", *words(folder, run, "--set", "training.steps=100000")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        for _ in range(1200):
            if (run / "report.html").exists():
                break
            time.sleep(0.1)
        process.kill()
    page = (run / "report.html").read_text()
    assert "randar, training, 7 of 100,000 steps so far; best held-out loss" in page
