"""`randfeat pretrain` from the command line."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from randfeat.pretrain import read_recipe
from safetensors.torch import load_file

from randfeat import cli, load, models
from randfeat.commands.pretrain import monitor
from randfeat.data.images import preview
from randfeat.utils import drawing

ROOT = Path(__file__).parents[2]
RECIPE = """
model: randar
labels: true
size: {embed_dim: 16, depth: 2, num_heads: 2, ffn_dim: 24, dropout: 0.1}
training: {steps: 12, batch_size: 8, learning_rate: 0.01, warmup: 2, eval_every: 4, other_crops: null}
running: {save_every: 5}
"""
FAST = ["--workers", "0", "--device", "cpu"]
PATCHES = ["--tokenizer", "patch", "--patch", "2", "--size", "4", "6", "--vocab", "7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two classes, a recipe, and a cache of their tokens."""
    root = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 200, (4, 6, 3), dtype=np.uint8) + 50 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "recipe.yaml").write_text(RECIPE)
    assert cli.main(["tokenize", str(root / "photos"), "-o", str(root / "cache"), *PATCHES, *FAST]) == 0
    return root


def pretrain(folder, out, *more, data="cache"):
    given = ["--config", folder / "recipe.yaml", "--data", folder / data, "-o", out]
    return cli.main(["pretrain", *map(str, given), *map(str, more), *FAST])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert pretrain(folder, run, "--every", 3, "--samples", 4) == 0
    return run


def test_samples_have_the_names_of_their_classes(undisturbed):
    model = load(undisturbed / "model")
    pictures = [preview(image) for image in model.sample(["cat", "dog", "cat", "dog"])]
    sheets = [Image.open(io.BytesIO(path.read_bytes())) for path in sorted((undisturbed / "samples").glob("*.png"))]
    named = drawing.grid(pictures, captions=["cat", "dog", "cat", "dog"])
    width = named.width // 2
    for sheet in sheets:
        assert sheet.size == named.size != drawing.grid(pictures).size
        for left in (0, width):  # the line below the second row: its captions
            line = (left, named.height - 15, left + width, named.height)
            assert np.array_equal(np.asarray(sheet.crop(line)), np.asarray(named.crop(line)))


def test_a_run_leaves_a_model_its_numbers_and_a_page(undisturbed):
    model = load(undisturbed / "model")
    assert model.class_names == ["cat", "dog"]
    train, validation = rows(undisturbed / "train.csv"), rows(undisturbed / "validation.csv")
    assert [row["step"] for row in train] == ["3", "6", "9", "12"]
    assert [row["step"] for row in validation] == ["4", "8", "12"]
    assert all(float(row["loss"]) > 0 and float(row["images_per_second"]) > 0 for row in train)
    assert all(0 < float(row["share_of_peak"]) < 1 for row in train)
    modes = model.generator.order_modes
    assert list(validation[0]) == ["step", "loss", *modes, "knn_accuracy"]
    assert float(validation[0]["loss"]) == pytest.approx(float(validation[0]["random"]))
    assert 0 <= float(validation[-1]["knn_accuracy"]) <= 1
    places = rows(undisturbed / "by_place.csv")
    assert len(places[0]) == 1 + 6
    assert np.mean([float(x) for name, x in places[0].items() if name != "step"]) == pytest.approx(
        float(validation[0]["loss"]), rel=1e-4
    )
    assert len(list((undisturbed / "samples").glob("*.png"))) == 3
    page = (undisturbed / "report.html").read_text()
    assert "after step 12" in page
    assert "Held-out loss by order" in page
    assert page.count("<img") >= 3 + 6


@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_is_trained(folder, tmp_path, model):
    short = "training.steps=2", "training.eval_every=1", "training.warmup=1"
    assert pretrain(folder, tmp_path / "run", "--set", f"model={model}", *short) == 0
    assert models.name_of(load(tmp_path / "run" / "model").generator) == model


def test_images_are_tokenized_first(folder, tmp_path):
    assert pretrain(folder, tmp_path / "run", *PATCHES, "--set", "training.steps=2", data="photos") == 0
    assert (tmp_path / "run" / "tokens" / "meta.json").is_file()
    assert load(tmp_path / "run" / "model").class_names == ["cat", "dog"]
    assert pretrain(folder, tmp_path / "run", *PATCHES, "--set", "training.steps=2", data="photos") == 0


def test_a_run_that_a_signal_stopped_goes_on_to_the_same_weights(folder, undisturbed, tmp_path, monkeypatch, capsys):
    told = monitor.Monitor.on_step

    def deadly(self, step):
        told(self, step)
        if step.step == 7:
            os.kill(os.getpid(), signal.SIGUSR1)

    more = ["--every", 3, "--samples", 4]
    with monkeypatch.context() as patch:
        patch.setattr(monitor.Monitor, "on_step", deadly)
        assert pretrain(folder, tmp_path / "run", *more) == 75
    assert "which is saved: the same command goes on from there" in capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "randar, stopped after 8 of 12 steps; the same command goes on from the last checkpoint; best held" in page
    assert not (tmp_path / "run" / "model").exists()
    assert pretrain(folder, tmp_path / "run", *more) == 0
    mine, theirs = weights_of(tmp_path / "run"), weights_of(undisturbed)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    steps = [int(row["step"]) for row in rows(tmp_path / "run" / "train.csv")]
    assert steps == sorted(set(steps))
    assert [row["step"] for row in rows(tmp_path / "run" / "validation.csv")] == ["4", "8", "12"]
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "model").rglob("*") if path.is_file()}
    assert pretrain(folder, tmp_path / "run", *more) == 0  # nothing is left to do
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "model").rglob("*") if path.is_file()} == before


class Writer:
    """Writer of TensorBoard's, which makes its folder when it is opened."""

    def __init__(self, folder):
        self.folder, self.scalars = Path(folder), []
        self.folder.mkdir(parents=True)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, step))

    def add_image(self, name, picture, step, dataformats):
        assert picture.ndim == len(dataformats)
        self.scalars.append((name, step))

    def close(self):
        (self.folder / "events").write_text("\n".join(f"{name} {step}" for name, step in self.scalars))


def test_where_tensorboard_is_installed_it_gets_the_numbers(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    assert pretrain(folder, tmp_path / "run", "--every", 6, "--samples", 4) == 0
    told = (tmp_path / "run" / "tensorboard" / "events").read_text().splitlines()
    assert {"train/loss 6", "train/loss 12", "validation/random 4", "samples 12"} <= set(told)


@pytest.mark.slow
def test_two_processes_train_the_same(folder, tmp_path):
    change = ["--set", "training.steps=4", "size.dropout=0.0", "--samples", "0"]
    assert pretrain(folder, tmp_path / "one", *change) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = ["--config", folder / "recipe.yaml", "--data", folder / "cache", "-o", tmp_path / "two"]
    words = ["-m", "randfeat", "pretrain", *given, *FAST]
    subprocess.run(
        [*torchrun, *map(str, words), *change],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    theirs = weights_of(tmp_path / "two")
    for name, value in weights_of(tmp_path / "one").items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=1e-5)


def test_it_starts_from_other_weights(folder, undisturbed, tmp_path):
    more = ["--init", undisturbed / "model", "--set", "training.steps=1", "training.learning_rate=0.0", "--held-out", 0]
    assert pretrain(folder, tmp_path / "run", *more) == 0
    mine, theirs = weights_of(tmp_path / "run"), weights_of(undisturbed)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("cache", ["--set", "training.stepz=3"], "training.stepz"),
        ("cache", ["--set", "training.steps=0"], "steps must be 1 or more, got 0"),
        ("cache", ["--held-out", "0.001"], "leaves none to train on, or none held out"),
        ("cache", ["--held-out", "0.1", "--validation", "x"], "give one"),
        ("cache", ["--validation", "{missing}"], "is no token store"),
        ("cache", ["--init", "{missing}"], "there is no file or directory"),
        ("photos", [], "--tokenizer is missing"),
        ("nothing", [], "there is no"),
    ],
)
def test_bad_input_is_one_sentence(folder, tmp_path, capsys, data, more, message):
    more = [word.format(missing=tmp_path / "missing") for word in more]
    assert pretrain(folder, tmp_path / "run", *more, data=data) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message in said[0]


PUBLISHED = {"randar_l": 343, "randar_xl": 775, "arpg_l": 320, "arpg_xl": 719, "arpg_xxl": 1300, "lpd_l": 337}
PUBLISHED["rar_l"] = 462 + 31  # with the codes of the tokenizer here


RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if not path.stem.startswith("tokenizer_"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_read_and_says_what_it_is(name):
    recipe = read_recipe(name)
    header = (ROOT / "configs" / f"{name}.yaml").read_text().split("\nmodel:")[0]
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in header
    assert recipe.labels != name.endswith("_free")
    with torch.device("meta"):
        model = recipe.build((16, 16), 16384, 1000)
    assert model.num_classes == (1000 if recipe.labels else 0)
    if name in PUBLISHED:
        size = {key: model.config[key] for key in ("embed_dim", "depth", "num_heads")}
        assert models.SIZES[name] == (recipe.model, size)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=5", "'steps=5' is none: did you mean training.steps?"),
        ("training.steps", "'training.steps' is none"),
        ("weight=5", "'weight=5' is none: did you mean agreement.weight?"),
        ("colour=5", "'colour=5' is none: expected one of model, labels, size.embed_dim"),
        ("training.steps=many", "training.steps"),
    ],
)
def test_a_change_of_no_field_says_which_there_are(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_recipe("digits_randar", [change])
    assert "class '" not in str(error.value)
    assert "\n" not in str(error.value)


def test_images_that_cannot_be_read_are_skipped_and_listed(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    for path in sorted((folder / "photos").rglob("*.png"))[::3]:
        copy = photos / path.relative_to(folder / "photos")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (photos / "cat" / "note.png").write_text("a note that somebody renamed")
    more = ["--config", folder / "recipe.yaml", "--data", photos, "-o", tmp_path / "run", "--samples", 0, "--no-knn"]
    more += ["--set", "training.steps=2", "training.warmup=1", "training.eval_every=2"]
    assert cli.main(["pretrain", *map(str, more), *PATCHES, *FAST]) == 3
    listed = tmp_path / "run" / "tokens" / "skipped.csv"
    assert f"1 images skipped, listed in {listed}: 1 text, no picture" in capsys.readouterr().err
    assert listed.read_text() == 'path,reason\ncat/note.png,"text, no picture"\n'
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
