"""Time of a training, told from its first steps, and what would make it cheaper."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
from randfeat.pretrain import read_recipe
from randfeat.pretrain.config import OptimConfig

from randfeat.commands.pretrain.plan import cheaper, operations, times
from randfeat.commands.training.clock import TrainingTime
from randfeat.commands.training.plan import plan
from randfeat.tokenizers import PatchTokenizer


def train(steps=1000, seconds=1.0, validation=None, guess=None, until=None, advice="", done=0, **more):
    """Return what is told in a training whose steps and validations take these seconds."""
    now, told = [50.0], []
    config = OptimConfig(steps=steps, warmup=1, **more)
    clock = TrainingTime(config, guess, lambda: advice, done, told.append, lambda: now[0])
    for step in range(done + 1, (until or steps) + 1):
        now[0] += seconds
        clock.on_step(step)
        if guess is not None and (step % config.eval_every == 0 or step == steps):
            now[0] += validation
    return told


def test_it_is_told_after_the_first_steps():
    assert train() == ["about 16 minutes for the other 989 steps, 1.0 seconds a step"]
    assert train(done=400) == ["about 10 minutes for the other 589 steps, 1.0 seconds a step"]


def test_of_a_short_training_nothing_is_told():
    assert train(steps=100, seconds=0.1) == []
    assert train(steps=25) == []


def test_validations_are_counted_by_their_operations():
    told = train(guess=30, validation=30, eval_every=100)
    assert told == ["about 21 minutes for the other 989 steps, 1.0 seconds a step, 10 validations included"]
    told = train(steps=101, guess=30, validation=30, eval_every=101)
    assert told == ["about 2 minutes for the other 90 steps, 1.0 seconds a step, 1 validation included"]


def test_where_the_first_validation_takes_longer_it_is_told_again():
    told = train(guess=3, validation=120, eval_every=100)
    assert told == [
        "about 17 minutes for the other 989 steps, 1.0 seconds a step, 10 validations included",
        "about 33 minutes for the other 899 steps by now: a validation takes 2 minutes",
    ]


def test_a_training_of_short_steps_and_long_validations_is_told_after_the_first_of_these():
    told = train(steps=300, seconds=0.05, guess=1, validation=60, eval_every=100)
    assert told == ["about 2 minutes for the other 199 steps by now: a validation takes 60 seconds"]


def test_a_validation_among_the_first_steps_is_not_taken_for_one():
    told = train(guess=50, validation=50, eval_every=5)
    assert told[0].startswith("about 3.0 hours for the other 987")
    assert ", 1.0 seconds a step, " in told[0]
    assert len(told) == 1


def test_patience_may_end_it_earlier():
    (told,) = train(guess=1, validation=1, eval_every=100, patience=3)
    assert told.endswith("10 validations included; less if the held-out loss stops falling")


def test_what_is_cheaper_is_told_of_long_trainings_only():
    assert train(advice="fewer tokens")[0].endswith("a step")
    assert train(steps=4000, advice="fewer tokens")[0].endswith("1.0 seconds a step; fewer tokens")


def test_the_plan():
    said = plan("40 images of photos", "2", 64, 1024, 1_240_000, OptimConfig(steps=5000, batch_size=32))
    assert said == (
        "40 images of photos, 2 held out; 64 tokens an image of 1,024 codes; 1.2 million parameters; 5,000 steps of 32 "
        "images"
    )


@pytest.fixture
def given():
    """Return a function of arguments, recipe, tokens and tokenizer of a run."""

    def make(grid, stride=4, directory="run/tokens", **more):
        args = argparse.Namespace(**{"init": None, "tokenizer": None, "out": Path("run"), **more})
        store = SimpleNamespace(grid=grid, vocab_size=64, directory=Path(directory), classes=None)
        return args, read_recipe("photos_arpg_cpu"), store, SimpleNamespace(stride=stride)

    return make


def test_fewer_tokens_are_cheaper_by_their_operations(given):
    recipe = read_recipe("photos_arpg_cpu")
    by = operations(recipe, (16, 16), 64) / operations(recipe, (8, 8), 64)
    assert 4 < by < 6  # attention costs more than in proportion
    said = f"256 tokens an image: {{}} would be about {times(by)} cheaper"
    assert cheaper(*given((16, 16), tokenizer="patch")) == said.format("--patch 8")
    assert cheaper(*given((16, 16), tokenizer="learned")) == said.format("--tokenizer-set network.stride=8")
    assert cheaper(*given((16, 16), 16, tokenizer="llamagen-vq16")) == said.format("--size 128")
    assert cheaper(*given((16, 16), directory="cache")) == said.format("tokens of images half as large (--size 32)")
    assert "--size 16 32 would" in cheaper(*given((8, 16), tokenizer="other"))


def test_of_few_tokens_fewer_layers_are_cheaper(given):
    assert cheaper(*given((8, 8), tokenizer="patch")).startswith("--set size.depth=2 would be about ")
    assert cheaper(*given((15, 15), tokenizer="patch")).startswith("--set size.depth=2 would be about ")


def test_a_model_to_start_from_is_as_it_is(given):
    assert cheaper(*given((16, 16), init="arpg-l")) == ""


def test_the_stride_of_patches_is_their_side():
    import torch

    pixels = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert PatchTokenizer.fit(pixels, vocab_size=4, patch=4).stride == 4
