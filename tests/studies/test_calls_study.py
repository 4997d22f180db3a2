"""The study of calls: the schedule that loses least, tokens by confidence, ways of sampling, and the tables."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tiny
import torch

from randfeat import Guidance, Pipeline, Sampling
from randfeat.tokenizers import PatchTokenizer
from studies.calls import tables, trials
from studies.calls.arms import all_arms
from studies.fashion.units import keep

LOSS = (4.0, 3.0, 2.5, 2.0, 1.9, 1.5, 1.4)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_sizes_lose_least_of_all_ways_to_cut(steps):
    def lost(sizes):
        starts = np.cumsum([0, *sizes[:-1]])
        return sum(size * LOSS[start] for size, start in zip(sizes, starts, strict=True))

    cuts = itertools.combinations(range(1, len(LOSS)), steps - 1)
    every = [tuple(int(size) for size in np.diff([0, *cut, len(LOSS)])) for cut in cuts]
    found = trials.sizes(LOSS, steps)
    assert sum(found) == len(LOSS)
    assert lost(found) == min(map(lost, every))


def test_noise_in_the_loss_does_not_rise():
    assert trials.sizes((3.0, 1.0, 3.0, 1.0), 2) == trials.sizes((3.0, 5 / 3, 5 / 3, 5 / 3), 2)


@pytest.fixture
def model():
    tokenizer = PatchTokenizer(7, 4, 1)
    tokenizer.codebook.copy_(torch.rand(7, 16))
    how = Sampling(guidance=Guidance(2.0), sweeps=1)
    return Pipeline(tokenizer, tiny.model("arpg", (7, 7), num_classes=10), sampling=how)


def test_every_way_draws_all_tokens_and_counts_its_calls(model, monkeypatch):
    monkeypatch.setattr(trials, "READ", 5)
    names = [arm.name for arm in all_arms()]
    assert len(set(names)) == len(names)
    labels, seeds = torch.tensor([0, 1]), torch.tensor([3, 4])
    expected = {"one token a step": 49, "arccos, 8 steps": 8, "least loss, 4 steps": 4, "surest first, 8 steps": 8}
    expected |= {"one sweep, 8 steps": 24, "least likely redrawn, 8 steps": 14}
    for arm in all_arms():
        if arm.name in expected or arm.name == "exact":
            tokens, calls = arm.draw(model, labels, seeds)
            assert tokens.shape == (2, 49)
            assert ((tokens >= 0) & (tokens < 7)).all()
            assert (calls == expected[arm.name]).all() if arm.name in expected else (calls <= 49).all()


def test_tokens_by_confidence_follow_the_seed_alone(model):
    how = Sampling(4, guidance=Guidance(2.0))
    both = trials.by_confidence(model, torch.tensor([0, 1]), torch.tensor([3, 4]), how)
    assert torch.equal(trials.by_confidence(model, torch.tensor([1]), torch.tensor([4]), how), both[1:])
    again = trials.by_confidence(model, torch.tensor([0]), torch.tensor([9]), how)
    assert not torch.equal(again, both[:1])


def test_tables_and_plot_show_what_was_found(tmp_path):
    for number, arm in enumerate(all_arms()):
        record = {"arm": arm.name, "family": arm.family, "calls": 4.0 + number, "samples": 20, "frechet": 9.0}
        scores = {"agreement": np.arange(20) % 2 == 0, "coverage": np.ones(30, bool), "loss": np.full(20, 1.5)}
        (tmp_path / "arpg").mkdir(exist_ok=True)
        keep(tmp_path / "arpg" / f"{arm.name}.json", record | {"frechet_std": 0.5}, scores)
    made = tables.results(tmp_path, "arpg")
    head, first, *_ = tables.rows(made)
    assert first[:3] == ["one token a step", "4", "9.0 [8.0, 10.0]"]
    assert first[3].startswith("50.0 [")
    assert first[4:] == ["100.0 [100.0, 100.0]", "1.50 [1.50, 1.50]"]
    assert len(head) == len(first)
    assert {text.get_text() for text in tables.plot({"arpg": made}).axes[0].texts} == set()
    assert json.loads((tmp_path / "arpg" / "exact.json").read_text())["family"] == "exact"
