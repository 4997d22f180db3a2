"""`randfeat tokenizer train` from the command line."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bands import bands, write_bands
from PIL import Image
from randfeat.pretrain.vq import read_tokenizer_recipe
from safetensors.torch import load_file
from tokenizing import Squares

from randfeat import cli
from randfeat.commands.tokenizer import monitor
from randfeat.utils import estimates
from randfeat.weights.loading import load_tokenizer

ROOT = Path(__file__).parents[2]
RECIPE = """
network: {stride: 4, width: 8, multipliers: [1, 1, 2], num_res_blocks: 1, latent_dim: 8, norm_groups: 2}
quantizer: {vocab_size: 16, code_dim: 4, revive_after: 3}
images: {size: [8, 8], canvas: 1.25}
training: {steps: 20, batch_size: 6, learning_rate: 0.003, warmup: 2, eval_every: 5, ema: 0.8}
running: {save_every: 4}
"""
FAST = ["--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey pictures and a recipe."""
    root = tmp_path_factory.mktemp("material")
    source = Squares(40)
    for number in range(len(source)):
        path = root / "photos" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        source.read(number).save(path)
    (root / "recipe.yaml").write_text(RECIPE)
    return root


def train(folder, out, *more, data="photos"):
    given = [folder / data, "-o", out, "--config", folder / "recipe.yaml"]
    return cli.main(["tokenizer", "train", *map(str, given), *map(str, more), *FAST])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(run):
    return load_file(run / "tokenizer" / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "tok"
    assert train(folder, run, "--every", 5) == 0
    return run


def test_a_run_leaves_a_tokenizer_its_numbers_sheets_and_a_page(undisturbed):
    made = load_tokenizer(undisturbed)
    assert (made.channels, made.stride, made.vocab_size, made.value_range) == (1, 4, 16, None)
    numbers, validation = rows(undisturbed / "train.csv"), rows(undisturbed / "validation.csv")
    assert [row["step"] for row in numbers] == [row["step"] for row in validation] == ["5", "10", "15", "20"]
    own = ["l1", "mse", "codebook", "commitment", "learning_rate", "gradient_norm", "images_per_second", "memory_gib"]
    assert list(numbers[0]) == ["step", "loss", *own]
    assert list(validation[0]) == ["step", "loss", "l1", "psnr", "usage", "perplexity"]
    assert float(numbers[-1]["loss"]) < float(numbers[0]["loss"])
    for row in validation:
        assert 0 < float(row["usage"]) <= 1 <= float(row["perplexity"]) <= 16
        assert float(row["loss"]) == pytest.approx(4 * 10 ** (-float(row["psnr"]) / 10), rel=0.5)  # of the mean image
    with Image.open(undisturbed / "reconstructions" / "step-00000020.png") as sheet:
        assert sheet.height == sheet.width  # two held-out images above two reconstructions
    page = (undisturbed / "report.html").read_text()
    for title in ("Loss", "PSNR", "Use of the codes", "Parts of the loss", "Speed", "Reconstructions", "Recipe"):
        assert f"<h2>{title}</h2>" in page
    assert "8 x 8 pixels, 4 tokens of 16 codes, trained for 20 steps; of held-out images" in page
    assert "&#34;channels&#34;: 1" in page
    assert page.count("<img") == 7 + 4


def test_it_says_what_it_will_do(folder, tmp_path, capsys, monkeypatch):
    for name in ("SHORT", "SURE"):
        monkeypatch.setattr(estimates, name, 0.0)
    assert train(folder, tmp_path / "tok") == 0
    said = capsys.readouterr()
    assert "40 images of" in said.err
    assert "8 x 8 pixels, 1 channel, 5 % held out; 4 tokens an image of 16 codes; 0.1 million parameters" in said.err
    assert re.search(r"about .* for the other \d+ steps, .*, \d validations? included", said.err)
    assert f"trained: {tmp_path / 'tok' / 'tokenizer'}; the page: {tmp_path / 'tok' / 'report.html'}" in said.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_run_that_a_signal_stopped_goes_on_to_the_same_weights(
    folder, undisturbed, tmp_path, monkeypatch, capsys, number, code
):
    told = monitor.TokenizerMonitor.on_step

    def deadly(self, step):
        told(self, step)
        if step.step == 7:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(monitor.TokenizerMonitor, "on_step", deadly)
        assert train(folder, tmp_path / "tok", "--every", 5) == code
    assert "which is saved: the same command goes on from there" in capsys.readouterr().err
    page = (tmp_path / "tok" / "report.html").read_text()
    assert "codes, stopped after 8 of 20 steps; the same command goes on from the last checkpoint" in page
    assert "Reconstructions after step 5" in page
    assert (tmp_path / "tok" / "tokenizer").exists()  # of the best validation so far
    assert train(folder, tmp_path / "tok", "--every", 5) == 0
    mine, theirs = weights_of(tmp_path / "tok"), weights_of(undisturbed)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    same = ("step", "l1", "psnr", "usage")
    left, right = rows(tmp_path / "tok" / "validation.csv"), rows(undisturbed / "validation.csv")
    assert [[row[name] for name in same] for row in left] == [[row[name] for name in same] for row in right]
    steps = [int(row["step"]) for row in rows(tmp_path / "tok" / "train.csv")]
    assert steps == sorted(set(steps))
    before = {path: path.read_bytes() for path in (tmp_path / "tok").rglob("*.safetensors")}
    assert train(folder, tmp_path / "tok", "--every", 5) == 0  # nothing is left to do
    assert {path: path.read_bytes() for path in (tmp_path / "tok").rglob("*.safetensors")} == before


@pytest.mark.slow
def test_two_processes_write_one_run(folder, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = [folder / "photos", "-o", tmp_path / "tok", "--config", folder / "recipe.yaml", *FAST]
    words = ["-m", "randfeat", "tokenizer", "train", *map(str, given)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, *words], check=True, capture_output=True, env=env)
    assert [row["step"] for row in rows(tmp_path / "tok" / "train.csv")] == ["10", "20"]
    assert (tmp_path / "tok" / "report.html").is_file()
    assert load_tokenizer(tmp_path / "tok").vocab_size == 16


def test_it_starts_from_another_tokenizer_with_new_channels(folder, undisturbed, tmp_path):
    more = "--init", undisturbed, "--channels", 3, "--set", "training.steps=1", "training.learning_rate=0.0"
    assert train(folder, tmp_path / "tok", *more, "--held-out", 0, "--set", "training.ema=0.0") == 0
    mine, theirs = weights_of(tmp_path / "tok"), weights_of(undisturbed)
    assert load_tokenizer(tmp_path / "tok").channels == 3
    assert all(torch.equal(mine[name], value) for name, value in theirs.items() if name.startswith("encoder.mid"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["quantizer.kind=fsq", "quantizer.levels=[4,4]"], {"quantizer": "fsq", "levels": [4, 4]}),
        (["quantizer.kind=lfq"], {"quantizer": "lfq"}),
        (["quantizer.l2_norm=false"], {"l2_norm": False}),
        (["quantizer.code_dim=3"], {"code_dim": 3}),
        (["quantizer.vocab_size=24"], {"vocab_size": 24}),
    ],
)
def test_the_quantiser_of_another_tokenizer_is_replaced(folder, undisturbed, tmp_path, change, expected):
    more = "--init", undisturbed, "--set", "training.steps=1", "training.learning_rate=0.0", "training.ema=0.0", *change
    assert train(folder, tmp_path / "tok", *more, "--held-out", 0) == 0
    assert expected.items() <= load_tokenizer(tmp_path / "tok").config.items()
    mine, theirs = weights_of(tmp_path / "tok"), weights_of(undisturbed)
    assert all(torch.equal(mine[name], value) for name, value in theirs.items() if name.startswith("decoder.mid"))


def test_four_channels_of_sixteen_bits(folder, tmp_path):
    write_bands(tmp_path / "bands", 12, 8)
    assert train(folder, tmp_path / "tok", "--range", 0, 65535, data=tmp_path / "bands") == 0
    made = load_tokenizer(tmp_path / "tok")
    assert (made.channels, made.value_range) == (4, (0.0, 65535.0))
    page = (tmp_path / "tok" / "report.html").read_text()
    assert "Of 4 channels pictures show the first three, as red, green and blue." in page


def test_images_that_cannot_be_read_are_listed_and_end_in_code_3(folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for path in (folder / "photos").iterdir():
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "photos" / "05.png").write_bytes(b"nothing")
    assert train(folder, tmp_path / "tok", data=tmp_path / "photos") == 3
    assert "1 skipped, listed in" in capsys.readouterr().out
    assert [row["path"] for row in rows(tmp_path / "tok" / "skipped.csv")] == ["05.png"]


def test_other_tokenizers_are_read_and_the_trained_size_is_known(folder, undisturbed, tmp_path):
    out = tmp_path / "cache"
    given = ["tokenize", folder / "photos", "-o", out, "--tokenizer", undisturbed, "--crops", "centre"]
    assert cli.main([*map(str, given), *FAST]) == 0
    assert np.load(out / "tokens.npy").shape == (40, 1, 4)


def numbered(folder, arrays):
    folder.mkdir()
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)


def material(folder, kind):
    """Write images that do not fit, and return their folder."""
    made = folder / kind
    if kind == "mixed":
        numbered(made, [bands(8, 2 + 2 * (i % 2), seed=i) for i in range(8)])
    elif kind == "wide":
        numbered(made, [bands(8, 2, seed=i) for i in range(8)])
    elif kind == "flat":
        numbered(made, [np.full((8, 8, 2), i, np.uint16) for i in range(40)])
    elif kind == "nan":
        numbered(made, [np.full((8, 8, 2), np.nan, np.float32)] * 8)
    elif kind == "floats":
        numbered(made, [bands(8, 2, np.float32, i) for i in range(8)])
    elif kind == "one":
        numbered(made, [bands(8, 3, np.uint8)])
    return made


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("mixed", ["--range", 0, 65535], "have 2 and 4 channels: give images of one kind"),
        ("wide", ["--range", 0, 100], "outside the range from 0 to 100"),
        ("wide", ["--range", 100, 0], "the smaller first"),
        ("wide", ["--range", 0, 65535, "--channels", 3], "has 2 channels, expected 3"),
        ("flat", ["--range", 0, 65535], "are flat, of one value each"),
        ("nan", ["--range", 0, 1], "not finite"),
        ("floats", ["--channels", 2], "state it (--range LOW HIGH)"),
        ("wide", [], "--range LOW HIGH"),
        ("one", [], "leaves none to train on, or none held out"),
        ("photos", ["--size", 10], "10 x 10 pixels are not divisible by the stride of 4"),
        ("photos", ["--size", 0], "--size is one number of pixels from 1"),
        ("photos", ["--channels", 0], "channels must be 1 or more"),
        ("photos", ["--set", "network.widht=3"], "did you mean network.width"),
        ("photos", ["--set", "training.steps=0"], "steps must be 1 or more"),
        ("photos", ["--set", "quantizer.vocab_size=70000"], "from 2 to 65536"),
        ("photos", ["--set", "network.norm_groups=3"], "3"),
        ("photos", ["--init", "no-such"], "no-such"),
        ("photos", ["--held-out", 0.1, "--validation", "x"], "give one"),
        ("photos", ["--held-out", 1.5], "1.5"),
        ("photos", ["--validation", "{tmp}/none"], "there is no"),
        ("none", [], "there is no"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(folder, tmp_path, capsys, kind, more, message):
    data = folder / kind if kind == "photos" else material(tmp_path, kind)
    more = [str(word).format(tmp=tmp_path) for word in more]
    assert train(folder, tmp_path / "tok", *more, data=data) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "tok").exists()


def test_a_directory_of_something_else_is_left_alone(folder, tmp_path, capsys):
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "mine.txt").write_text("mine")
    assert train(folder, tmp_path / "tok") == 1
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "tok").iterdir()] == ["mine.txt"]


def test_another_network_than_that_of_the_weights_is_refused(folder, undisturbed, tmp_path, capsys):
    for change, message in (("network.width=16", "width 8, not 16"), ("network.norm_groups=4", "norm_groups 2, not 4")):
        assert train(folder, tmp_path / "tok", "--init", undisturbed, "--set", change) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "tok").exists()


def test_another_recipe_in_the_same_place_is_refused(folder, undisturbed, capsys):
    assert train(folder, undisturbed, "--set", "training.seed=1") == 1
    assert "seed" in capsys.readouterr().err


RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("tokenizer_*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_read_and_says_what_it_is(name):
    recipe = read_tokenizer_recipe(name)
    header = (ROOT / "configs" / f"{name}.yaml").read_text().split("\nnetwork:")[0]
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in header
    with torch.device("meta"):
        made = recipe.build(3, None)
    millions = sum(parameter.numel() for parameter in made.parameters()) / 1e6
    assert millions == pytest.approx({"digits": 0.76, "tiny": 0.814, "small": 18.6, "vq16": 71.9}[name[10:]], rel=0.01)


def test_the_published_recipe_is_that_of_the_official_code():
    recipe = read_tokenizer_recipe("tokenizer_vq16")
    with torch.device("meta"):
        made = recipe.build(3, None)
    usual = type(made)()
    assert made.config == usual.config
    assert recipe.training.steps == round(40 * 1_281_167 / 128)
    assert (recipe.loss.l2, recipe.loss.perceptual.weight, recipe.loss.gan.weight) == (1.0, 1.0, 0.5)
    assert (recipe.loss.gan.start, recipe.loss.gan.adaptive, recipe.loss.gan.learning_rate) == (20000, False, None)


def test_the_help_names_every_recipe(capsys):
    with pytest.raises(SystemExit):
        cli.main(["tokenizer", "train", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in RECIPES)
