"""`randfeat pretrain --init`: fine-tuning from the command line."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import official
import pytest
import torch
from folders import contents
from PIL import Image
from safetensors.torch import load_file

from randfeat import Pipeline, cli, load
from randfeat.commands.pretrain import monitor
from randfeat.data.builtin import load_fashion_part
from randfeat.tokenizers import PatchTokenizer

RECIPE = """
model: randar
labels: true
size: {embed_dim: 16, depth: 2, num_heads: 2, ffn_dim: 24, dropout: 0.1}
training: {steps: 20, batch_size: 8, learning_rate: 0.01, warmup: 2, eval_every: 10, other_crops: null}
"""
FAST = ["--workers", "0", "--device", "cpu", "--samples", "2"]
PATCHES = ["--tokenizer", "patch", "--patch", "2", "--size", "4", "6", "--vocab", "7"]
QUICK = ["--set", "training.steps=4", "training.eval_every=2"]


def write(folder, *names, count=30, size=(4, 6)):
    """Noise in a folder for each class, brighter from class to class; beside no folder where there are no names."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / (names[number % len(names)] if names else "") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        bright = 50 * (number % max(1, len(names)))
        Image.fromarray((rng.integers(0, 150, (*size, 3)) + bright).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of cats and dogs, and pictures of others."""
    root = tmp_path_factory.mktemp("material")
    write(root / "photos", "cat", "dog", count=40)
    write(root / "farm", "cow", "dog", "hen")
    write(root / "loose")
    write(root / "few", "cow", "tench", count=4)
    (root / "recipe.yaml").write_text(RECIPE)
    given = ["--config", root / "recipe.yaml", "--data", root / "photos", "-o", root / "before", *PATCHES, *FAST]
    assert cli.main(["pretrain", *map(str, given)]) == 0
    (root / "before" / "model").rename(root / "model")
    return root


def finetune(folder, out, *more, data="farm", init="model"):
    where = str(folder / init) if (folder / init).exists() else init
    given = ["--init", where, "--data", folder / data, "-o", out, *more, *FAST]
    return cli.main(["pretrain", *map(str, given)])


def state_of(model):
    return load_file(model / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finetune(folder, run, *QUICK) == 0
    return run


def test_other_classes_need_a_model_and_images_alone(folder, tmp_path, capsys):
    assert finetune(folder, tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "4 steps of 8 images, a fifth of its 20; learning rate 0.0025, a quarter of its 0.01; with labels" in said
    notice = "the model knows 2 classes, these images 3, 1 of them by name: new rows in the class table"
    assert said.count(notice) == 1
    assert "another tokenizer" not in said
    model = load(tmp_path / "run" / "model")
    assert model.class_names == ["cow", "dog", "hen"]
    assert model.sample(["hen"], seed=0).shape == (1, 3, 4, 6)
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["class_table"] == {"known": 2, "rows": [None, 1, None]}
    assert notice in (tmp_path / "run" / "report.html").read_text()


def test_labels_can_be_left_out_and_learned_again(folder, tmp_path, capsys):
    assert finetune(folder, tmp_path / "free", *QUICK, data="loose") == 0
    said = capsys.readouterr().err
    assert "this training is without labels: the null class and the other weights are kept" in said
    free = tmp_path / "free" / "model"
    assert load(free).generator.num_classes == 0
    assert finetune(folder, tmp_path / "back", *QUICK, "labels=true", init=str(free), data="photos") == 0
    assert "knows no classes, these images 2: a new class table" in capsys.readouterr().err
    assert load(tmp_path / "back" / "model").class_names == ["cat", "dog"]


def test_a_run_that_a_signal_stopped_goes_on_to_the_same_weights(folder, undisturbed, tmp_path, monkeypatch, capsys):
    told = monitor.Monitor.on_step

    def deadly(self, step):
        told(self, step)
        if step.step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(monitor.Monitor, "on_step", deadly)
        assert finetune(folder, run, *QUICK) == 75
    other = load(folder / "model")
    with torch.no_grad():
        other.generator.head.weight.add_(0.1)
    other.save(tmp_path / "other")
    before = contents(run)
    assert finetune(folder, run, *QUICK, init=tmp_path / "other") == 1
    assert "holds a run with settings.init" in capsys.readouterr().err
    assert finetune(folder, run, "--config", folder / "recipe.yaml", *QUICK) == 1
    assert "holds a run with settings.recipe" in capsys.readouterr().err
    assert contents(run) == before
    assert finetune(folder, run, *QUICK) == 0
    mine, theirs = state_of(run / "model"), state_of(undisturbed / "model")
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())


def test_another_tokenizer_of_the_same_codes_is_taken_with_a_notice(folder, tmp_path, capsys):
    model = load(folder / "model")
    with torch.no_grad():
        model.tokenizer.codebook.add_(0.01)
    model.save(tmp_path / "tok")
    assert finetune(folder, tmp_path / "run", "--tokenizer", tmp_path / "tok", *QUICK) == 0
    assert "note: the tokens are by another tokenizer than the model's, with as many codes" in capsys.readouterr().err


@pytest.fixture(scope="module")
def others(folder):
    """Models and tokenizers that do not fit: of other codes, of other grids, with control."""
    model = load(folder / "model")
    codes = PatchTokenizer.fit(torch.rand(50, 3, 4, 6, generator=torch.Generator().manual_seed(0)), 9, 2)
    config = model.generator.config
    nine = type(model.generator)(**(config | {"vocab_size": 9}))
    Pipeline(codes, nine, model.class_names).save(folder / "nine")
    controlled = load(folder / "model")
    controlled.generator.add_control(kind="edges", patch=2, channels=3, width=8, depth=1)
    controlled.save(folder / "controlled")
    return folder


REFUSED = [
    ("farm", ["--set", "size.depth=3"], "the model to start from has depth 2, not 3"),
    ("farm", ["--set", "model=arpg"], "the model to start from has model randar, not arpg"),
    ("farm", ["--set", "training.stepz=3"], "did you mean training.steps"),
    ("farm", ["--config", "fashion_arpg"], "the model to start from has model randar, not arpg"),
    ("loose", ["--set", "labels=true"], "the recipe trains with labels and {data} has none: set labels to false"),
    ("loose", ["--config", "{recipe}"], "the recipe trains with labels and {data} has none: set labels to false"),
    ("farm", ["--size", "8"], "reads 2 x 3 tokens, and these images have 4 x 4"),
    ("farm", ["--tokenizer", "{nine}"], "reads tokens of 7 codes, and these are of 9"),
    ("farm", ["--tokenizer", "patch"], "leave --tokenizer out"),
    ("farm", ["--tokenizer", "learned"], "train the tokenizer first"),
    ("farm", ["--patch", "2"], "are for --tokenizer patch: leave them out"),
    ("farm", ["--held-out", "0.001"], "leaves none to train on, or none held out"),
    ("farm", ["--control-type", "image"], "give paired pictures (--control-data)"),
    ("farm", ["--control-type", "edges", "--set", "control.alone=true"], "fine-tune the model on them first"),
    ("farm", ["--set", "agreement.weight=0.5", "--crops", "centre"], "set agreement.weight to 0"),
    ("farm", ["--init", "{controlled}", "--config", "{recipe}"], "the model to start from has control"),
    ("farm", ["--init", "llamagen-vq16"], "llamagen-vq16 is a tokenizer"),
    ("farm", ["--init", "{model}/model.safetensors"], "it is part of a model directory: open that"),
    ("farm", ["--init", "{model}/tokenizer"], "{model}/tokenizer"),
    ("farm", ["--init", "arpg-m"], "did you mean arpg-l?"),
    ("nowhere", [], "nowhere"),
]


@pytest.mark.parametrize(("data", "more", "message"), REFUSED, ids=[" ".join([d, *m]) for d, m, _ in REFUSED])
def test_what_does_not_fit_is_refused_before_anything_is_written(others, tmp_path, capsys, data, more, message):
    names = {name: others / name for name in ("nine", "controlled", "model")} | {
        "recipe": others / "recipe.yaml",
        "data": others / data,
    }
    before = contents(others)
    assert finetune(others, tmp_path / "run", *(word.format(**names) for word in more), data=data) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message.format(**names) in said[0]
    assert list(tmp_path.iterdir()) == []
    assert contents(others) == before


def test_a_recipe_is_missing_without_a_model(folder, tmp_path, capsys):
    assert cli.main(["pretrain", "--data", str(folder / "farm"), "-o", str(tmp_path / "run")]) == 1
    assert "--config is missing: give a recipe; with --init MODEL it may be left out" in capsys.readouterr().err


def test_an_official_model_is_checked_before_its_download(folder, tmp_path, monkeypatch, capsys, hub):
    official.shrink(monkeypatch, "arpg_l")
    made = official.publish(hub, "arpg-l")
    for more, message in (
        (["--set", "size.depth=3"], "the model to start from has depth 2, not 3"),
        (["--size", "32"], "reads 16 x 16 tokens, and these images have 2 x 2"),
        (["--tokenizer", "maskgit-vq"], "reads tokens of 16,384 codes, and these are of 1,024"),
        (["--tokenizer", str(folder / "model")], "reads tokens of 16,384 codes, and these are of 7"),
        (["--held-out", "0.001"], "leaves none to train on"),
    ):
        assert finetune(folder, tmp_path / "run", *more, init="arpg-l", data="few") == 1
        assert message in capsys.readouterr().err
    assert hub.asked == []
    assert not (tmp_path / "run").exists()
    quick = ["--set", "training.steps=1", "training.learning_rate=0.0", "--held-out", "0", "--crops", "centre"]
    assert finetune(folder, tmp_path / "run", *quick, init="arpg-l", data="few") == 0
    said = capsys.readouterr().err
    assert "the model knows 1000 classes, these images 2, 1 of them by name" in said
    assert "1 steps of 64 images, as set; learning rate 0, as set" in said
    model = load(tmp_path / "run" / "model")
    assert model.class_names == ["cow", "tench"]
    name, first = made.label_rows
    own, theirs = model.generator.state_dict()[name], made.state_dict()[name]
    assert torch.equal(own[: first + 3], theirs[[*range(first), first + 1000, first, first + 1000]])


def test_a_model_of_the_package_learns_three_of_its_classes(tmp_path, capsys):
    part = load_fashion_part()
    chosen = {1: "Trouser", 7: "Sneaker", 8: "Bag"}
    for number in np.flatnonzero(np.isin(part.labels, list(chosen)))[:60]:
        path = tmp_path / "clothes" / chosen[int(part.labels[number])] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part.images[number].squeeze()).save(path)
    quick = ["--set", "training.steps=2", "training.batch_size=4", "training.warmup=1", "--crops", "centre"]
    assert finetune(tmp_path, tmp_path / "run", *quick, data="clothes", init="fashion-arpg") == 0
    assert "these images 3 of the same names: each keeps its row" in capsys.readouterr().err
    before, after = load("fashion-arpg"), load(tmp_path / "run" / "model")
    assert after.class_names == ["Bag", "Sneaker", "Trouser"]
    assert after.sampling == before.sampling
    names = ["Trouser", "Bag"] * 3
    made = after.sample(names, seed=0)
    assert made.shape == (6, 1, 28, 28)
    judge = load("fashion-randar")  # which has seen the ten classes
    found = [judge.class_names[i] for i in judge.classify(made, ["Trouser", "Sneaker", "Bag"], orders=2).best]
    assert sum(one == name for one, name in zip(found, names, strict=True)) >= 5
    with Image.open(next(iter(sorted((tmp_path / "run" / "samples").glob("*.png"))))) as sheet:
        assert sheet.size[0] >= 2 * 28
