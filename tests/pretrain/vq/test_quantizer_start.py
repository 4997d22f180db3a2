"""Trainings whose codes replace the latents from a step on, and the fresh network that they begin with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from material import same
from randfeat.pretrain.vq.config import QuantizerConfig
from tokenizing import GAN, RECIPE, trained

from randfeat.tokenizers.llamagen_vq import AttentionBlock, ResidualBlock

START = 5
LATER = replace(RECIPE, quantizer=replace(RECIPE.quantizer, start=START))


class Gone(Exception):
    """End of a run in the middle, which is not told to it."""


def stop_at(step):
    def look(done):
        if done.step == step:
            raise Gone

    return look


def test_before_the_start_there_is_nothing_to_quantise_and_then_codes_are_latents(tmp_path):
    told = []
    trained(tmp_path / "run", LATER, on_step=told.append)
    before, after = told[:START], told[START:]
    assert all(step.terms["codebook"] == step.terms["commitment"] == 0 for step in before)
    assert all(step.terms["codebook"] > 0 for step in after)
    # codes drawn from latents of that step are close to those of the next images
    without = []
    trained(tmp_path / "without", RECIPE, on_step=without.append)
    assert told[START].terms["codebook"] < without[START].terms["codebook"]


@pytest.mark.parametrize("recipe", [LATER, replace(GAN, quantizer=replace(GAN.quantizer, start=START))])
@pytest.mark.parametrize("step", [START - 2, START, START + 2])
def test_a_run_that_was_stopped_near_the_start_ends_as_one_that_was_not(tmp_path, recipe, step):
    whole = trained(tmp_path / "whole", recipe)
    with pytest.raises(Gone):
        trained(tmp_path / "run", recipe, on_step=stop_at(step))
    assert same(trained(tmp_path / "run", recipe), whole)


@pytest.mark.slow
def test_quantisers_without_a_codebook_start_late_too(tmp_path):
    fsq = QuantizerConfig(kind="fsq", vocab_size=15, levels=(5, 3), start=START)
    losses = []
    longer = replace(RECIPE.training, steps=60, eval_every=20)
    recipe = replace(RECIPE, quantizer=fsq, training=longer)
    trained(tmp_path / "run", recipe, on_step=lambda step: losses.append(step.terms["mse"]))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_residual_branches_of_a_fresh_network_add_nothing():
    made = RECIPE.build(1, None)
    with torch.no_grad():
        for block in made.modules():
            if isinstance(block, ResidualBlock):
                x = torch.randn(2, block.norm1.num_channels, 4, 4)
                torch.testing.assert_close(block(x), block.nin_shortcut(x))
            if isinstance(block, AttentionBlock):
                x = torch.randn(2, block.norm.num_channels, 4, 4)
                torch.testing.assert_close(block(x), x)
