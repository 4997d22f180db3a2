"""The learning-rate schedule of pretraining and probes."""

import math

import pytest

from randfeat.utils.learning_rates import warmup_decay


def test_the_rise_begins_at_zero_or_ends_at_the_full_rate():
    assert [warmup_decay(step, 90, 18) for step in (0, 9, 18)] == [0, 0.5, 1]
    assert [warmup_decay(step, 90, 18, first=1) for step in (0, 8, 17, 18)] == [1 / 18, 0.5, 1, 1]
    assert warmup_decay(0, 90, 0) == 1


def test_the_decay_ends_where_it_should_and_stays_there():
    half = [warmup_decay(54, 90, 18, decay=decay, end=0.2) for decay in ("cosine", "linear", "constant")]
    assert half == pytest.approx([0.6, 0.6, 1])
    for decay in ("cosine", "linear"):
        assert [warmup_decay(step, 90, 18, decay=decay, end=0.2) for step in (90, 500)] == pytest.approx([0.2, 0.2])
    assert warmup_decay(36, 90, 18) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_decay_may_begin_within_the_warmup_or_after_it():
    assert warmup_decay(4, 100, 10, first=1, decay="linear", decay_from=0) == pytest.approx(0.5)
    assert warmup_decay(50, 100, 10, decay="linear", decay_from=80) == 1
    assert warmup_decay(90, 100, 10, decay="linear", decay_from=80) == pytest.approx(0.5)
