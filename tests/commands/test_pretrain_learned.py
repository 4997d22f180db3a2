"""`randfeat pretrain --tokenizer learned`: tokenizer, tokens and generator in one command."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from bands import write_bands
from randfeat.pretrain import run as pretrain_run
from randfeat.pretrain import tokenize as pretrain_tokenize
from randfeat.pretrain.data import shuffle
from randfeat.pretrain.vq import run as vq_run
from safetensors.torch import load_file
from tokenizing import Squares

from randfeat import cli, load
from randfeat.commands.pretrain import monitor
from randfeat.commands.tokenizer.monitor import TokenizerMonitor
from randfeat.weights.loading import load_tokenizer

GENERATOR = """
model: randar
labels: false
size: {embed_dim: 16, depth: 2, num_heads: 2, ffn_dim: 24}
training: {steps: 8, batch_size: 8, learning_rate: 0.01, warmup: 2, eval_every: 4}
running: {save_every: 3}
"""
TOKENIZER = """
network: {stride: 4, width: 8, multipliers: [1, 1, 2], num_res_blocks: 1, latent_dim: 8, norm_groups: 2}
quantizer: {vocab_size: 16, code_dim: 4, revive_after: 3}
images: {size: [8, 8], canvas: 1.25}
training: {steps: 8, batch_size: 6, learning_rate: 0.003, warmup: 2, eval_every: 4}
running: {save_every: 3}
"""


class Gone(BaseException):
    """End of a process in the middle, which is not told to it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey pictures and the two recipes."""
    root = tmp_path_factory.mktemp("material")
    source = Squares(40)
    for number in range(len(source)):
        path = root / "photos" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        source.read(number).save(path)
    (root / "generator.yaml").write_text(GENERATOR)
    (root / "tokenizer.yaml").write_text(TOKENIZER)
    return root


def pretrain(folder, out, *more, data="photos"):
    given = ["--config", folder / "generator.yaml", "--data", folder / data, "-o", out, "--tokenizer", "learned"]
    own = ["--tokenizer-config", folder / "tokenizer.yaml", "--samples", 4]
    return cli.main(["pretrain", *map(str, [*given, *own, *more]), "--workers", "0", "--device", "cpu"])


def weights_of(run):
    paths = [run / "model" / "model.safetensors", run / "model" / "tokenizer" / "model.safetensors"]
    return [load_file(path) for path in paths]


def same(run, other):
    return all(
        torch.equal(mine[name], value)
        for mine, theirs in zip(weights_of(run), weights_of(other), strict=True)
        for name, value in theirs.items()
    )


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert pretrain(folder, run) == 0
    return run


def test_one_command_makes_tokenizer_tokens_and_generator(undisturbed):
    model, tokenizer = load(undisturbed / "model"), load_tokenizer(undisturbed / "tokenizer")
    assert model.generator.grid == (2, 2)
    assert (model.tokenizer.vocab_size, model.tokenizer.channels) == (16, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.tokenizer.parameters(), tokenizer.parameters(), strict=True))
    assert np.load(undisturbed / "tokens" / "tokens.npy").shape == (40, 2, 4)
    assert (undisturbed / "report.html").is_file()
    assert (undisturbed / "tokenizer" / "report.html").is_file()
    assert torch.stack(list(model.sample([None, None], seed=0))).shape == (2, 1, 8, 8)


def test_a_run_that_is_over_does_nothing(folder, undisturbed, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(TokenizerMonitor, "on_step", never)
    monkeypatch.setattr(monitor.Monitor, "on_step", never)
    monkeypatch.setattr(pretrain_tokenize, "_fill", never)
    before = {path: path.read_bytes() for path in undisturbed.rglob("*.safetensors")}
    assert pretrain(folder, undisturbed) == 0
    assert {path: path.read_bytes() for path in undisturbed.rglob("*.safetensors")} == before


def dying(step):
    """Return an `on_step` that ends the process after a step."""

    def look(told):
        def on_step(self, done):
            told(self, done)
            if done.step == step:
                raise Gone

        return on_step

    return look


STAGES = {
    "reading images": (vq_run, "_divide"),
    "tokenizer trained": (vq_run, "_save"),
    "tokens": (pretrain_tokenize, "_fill"),
    "before the generator": (pretrain_run, "fresh_generator"),
    "generator trained": (pretrain_run, "_save"),
}


@pytest.mark.parametrize("stage", [*STAGES, "tokenizer", "generator"])
def test_killed_at_each_stage_it_comes_to_the_same_model(folder, undisturbed, tmp_path, monkeypatch, stage):
    with monkeypatch.context() as patch:
        if stage in STAGES:
            module, name = STAGES[stage]

            def die(*args, **kwargs):
                raise Gone

            patch.setattr(module, name, die)
        else:
            kind = TokenizerMonitor if stage == "tokenizer" else monitor.Monitor
            patch.setattr(kind, "on_step", dying(5)(kind.on_step))
        with pytest.raises(Gone):
            pretrain(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert pretrain(folder, tmp_path / "run") == 0
    assert same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("kind", [TokenizerMonitor, monitor.Monitor])
def test_a_signal_saves_and_the_same_command_goes_on(folder, undisturbed, tmp_path, monkeypatch, capsys, kind):
    told = kind.on_step

    def deadly(self, step):
        told(self, step)
        if step.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "on_step", deadly)
        assert pretrain(folder, tmp_path / "run") == 143
    assert "which is saved: the same command goes on from there" in capsys.readouterr().err
    assert pretrain(folder, tmp_path / "run") == 0
    assert same(tmp_path / "run", undisturbed)


def test_both_trainings_hold_the_same_images_out(folder, tmp_path, monkeypatch, capsys):
    held = {}
    divide, split = vq_run._divide, pretrain_run._split

    def divided(*args):
        kept, out = divide(*args)
        held["tokenizer"] = out.rows.tolist()
        return kept, out

    def halved(tokens, labels, share, seed):
        held["generator"] = sorted(shuffle(seed, -1, len(tokens))[: round(share * len(tokens))].tolist())
        return split(tokens, labels, share, seed)

    monkeypatch.setattr(vq_run, "_divide", divided)
    monkeypatch.setattr(pretrain_run, "_split", halved)
    quick = ["--set", "training.steps=1", "--tokenizer-set", "training.steps=1", "--held-out", 0.2]
    assert pretrain(folder, tmp_path / "run", *quick) == 0
    assert held["tokenizer"] == held["generator"]
    assert len(held["generator"]) == 8
    assert "other seeds" not in capsys.readouterr().err
    assert pretrain(folder, tmp_path / "two", *quick, "--set", "training.seed=1") == 0
    assert "other seeds" in capsys.readouterr().err


def test_four_channels_of_sixteen_bits_come_back_in_their_range(folder, tmp_path):
    write_bands(tmp_path / "bands", 24, 8)
    more = ["--channels", 4, "--crops", "centre"]
    assert pretrain(folder, tmp_path / "run", *more, data=tmp_path / "bands") == 0
    model = load(tmp_path / "run" / "model")
    assert (model.tokenizer.channels, model.tokenizer.value_range) == (4, (0.0, 65535.0))
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2


def test_the_size_is_that_of_both(folder, tmp_path):
    quick = ["--set", "training.steps=1", "--tokenizer-set", "training.steps=1"]
    assert pretrain(folder, tmp_path / "run", "--size", 16, 8, *quick) == 0
    assert load(tmp_path / "run" / "model").generator.grid == (4, 2)
    assert pretrain(folder, tmp_path / "two", "--size", 16, *quick, "images.size=[8,8]") == 0
    assert load(tmp_path / "two" / "model").generator.grid == (4, 4)
    assert '"size":[8,8]' in (tmp_path / "two" / "tokenizer" / "run.json").read_text().replace(" ", "").replace(
        "\n", ""
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "labels=true"], "trains with labels and"),
        (["--set", "size.num_heads=3"], "3"),
        (["--set", "control.kind=image"], "--control-data"),
        (["--held-out", 0.001], "leaves none to train on, or none held out"),
        (["--held-out", 2], "held_out must be a share below 1"),
        (["--tokenizer-set", "network.stride=5"], "stride must be 4, 8 or 16"),
        (["--tokenizer-set", "training.stepz=5"], "did you mean training.steps"),
        (["--tokenizer-set", "images.size=[8,10]"], "not divisible by the stride"),
        (["--size", 12, 10], "not divisible by the stride"),
        (["--size", 10, "--tokenizer-set", "images.size=[8,8]"], "crops of 10 x 10 pixels"),
        (["--validation", "cache"], "--validation is of another tokenizer"),
        (["--init", "model"], "--init is of another tokenizer"),
        (["--control-data", "cache"], "--control-data is of another tokenizer"),
        (["--patch", 2], "--patch and --vocab are for --tokenizer patch"),
        (["--tokenizer", "patch"], "are for --tokenizer learned"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(folder, tmp_path, capsys, more, message):
    assert pretrain(folder, tmp_path / "run", *more) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "run").exists()


def test_a_directory_of_something_else_is_refused_before_anything_is_trained(folder, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert pretrain(folder, tmp_path / "run") == 1
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_tokens_are_no_images_to_learn_from(folder, undisturbed, tmp_path, capsys):
    assert pretrain(folder, tmp_path / "run", data=undisturbed / "tokens") == 1
    assert "holds tokens already: leave --tokenizer out" in capsys.readouterr().err
