"""A race finds what reading every class to the end finds, where nobody is sent home, and costs what it says."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.inference import successive_halving
from randfeat.inference.likelihood import class_log_prob
from randfeat.inference.successive_halving import Rung, SuccessiveHalving, rank_classes

EVERYBODY = SuccessiveHalving((Rung(0.5), Rung(1), Rung(2), Rung(math.inf)), margin=math.inf)


def counted(monkeypatch):
    """The numbers of tokens that races read, whose list grows."""
    read, original = [], successive_halving.token_log_prob
    monkeypatch.setattr(
        successive_halving,
        "token_log_prob",
        lambda *args: (read.append(len(args[3][0]) * args[2].shape[1]), original(*args))[1],
    )
    return read


def test_a_race_that_nobody_leaves_is_the_whole_classification(model):
    tokens, _, _ = tiny.batch(model)
    scores, ranking, cost = rank_classes(model, tokens, [2, 0, 1], 5, EVERYBODY, seed=3)
    expected = class_log_prob(model, tokens, [2, 0, 1], 5, seed=3).mean(2)
    torch.testing.assert_close(scores, expected)
    assert torch.equal(ranking, expected.argsort(dim=1, descending=True))
    if model.many_orders:
        assert (cost - EVERYBODY.most_passes(3, model.num_tokens, 5)).abs().max() < 1e-5


@given(
    st.sampled_from(["randar", "arpg", "llamagen", "lpd", "rar"]),
    st.integers(1, 6),
    st.integers(1, 5),
    st.floats(0.01, 20),
)
def test_successive_halving_costs_at_most_what_it_says(name, classes, orders, margin):
    model = tiny.model(name, num_classes=6)
    how = SuccessiveHalving(
        (Rung(0.3), Rung(0.5, 0.6), Rung(1, 0.6, 3), Rung(2, 0.6, 2), Rung(math.inf, 0.2, 2)), margin
    )
    ticks: list[int] = []
    scores, ranking, cost = rank_classes(model, tiny.batch(model)[0], range(classes), orders, how, tick=ticks.append)
    assert (cost <= how.most_passes(classes, model.num_tokens, orders) + 1e-5).all()
    assert (ranking.sort(1).values == torch.arange(classes)).all()
    assert scores.gather(1, ranking[:, :1]).isfinite().all()  # the winner was read in a whole order at least
    assert sum(ticks) >= 3 * classes


def test_what_is_counted_is_what_is_read(model, monkeypatch):
    read = counted(monkeypatch)
    cost = rank_classes(
        model, tiny.batch(model)[0], None, 5, SuccessiveHalving((Rung(0.5), Rung(1, 0.6), Rung(math.inf, 0.6)))
    )[2]
    assert cost.sum().item() == pytest.approx(sum(read) / model.num_tokens)


def test_who_leaves_early_stands_behind(model):
    scores, ranking, _ = rank_classes(
        model, tiny.batch(model)[0], None, 4, SuccessiveHalving((Rung(0.5), Rung(1, 0.5), Rung(math.inf, 0.5)))
    )
    assert scores.isfinite().sum(1).tolist() == [2, 2, 2]
    assert (scores.gather(1, ranking).isfinite() == torch.tensor([True, True, False])).all()


def test_an_image_with_one_class_in_front_is_done(monkeypatch):
    model, read = tiny.model("randar"), counted(monkeypatch)
    scores, _, cost = rank_classes(
        model, tiny.batch(model)[0], None, 50, SuccessiveHalving((Rung(0.5), Rung(1), Rung(math.inf)), 1e-6)
    )
    assert cost.tolist() == pytest.approx([3 / 2 + 1] * 3)
    assert sum(read) == 3 * (3 * 3 + 6)
    assert scores.isfinite().sum(1).tolist() == [1, 1, 1]


def test_the_cost_of_the_usual_race():
    """The formula by hand: 1,000 on an eighth, 120 on half, 40 on the first order, 12 on three more, 5 on the rest."""
    assert SuccessiveHalving().most_passes(1000, 256, 20) == 1000 / 8 + 120 / 2 + 40 + 12 * 3 + 5 * 16
    assert SuccessiveHalving().most_passes(1000, 256, 20) <= 350
    assert SuccessiveHalving().most_passes(100, 32, 20) <= 100 * 20 / 5


@pytest.mark.parametrize(
    ("rungs", "says"),
    [
        ((), "the first rung reads all classes"),
        ((Rung(1, 0.5),), "the first rung reads all classes"),
        ((Rung(0.5),), "whole orders, at least one"),
        ((Rung(0), Rung(1)), "share of an order or whole orders, got 0"),
        ((Rung(1.5),), "share of an order or whole orders, got 1.5"),
        ((Rung(1), Rung(2, 0)), "at least one, got 0"),
        ((Rung(1), Rung(2, 1, 0)), "at least one, got 1 and 0"),
        ((Rung(2), Rung(1)), "reads further"),
        ((Rung(1), Rung(2, 0.5), Rung(3, 0.6)), "no more classes"),
    ],
)
def test_a_race_that_makes_no_sense_is_refused(rungs, says):
    with pytest.raises(ValueError, match=says):
        SuccessiveHalving(rungs)
    with pytest.raises(ValueError, match="nats above 0"):
        SuccessiveHalving(margin=0)
