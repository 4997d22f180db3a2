import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randfeat.inference.schedules import Guidance, Schedule, tokens_per_step

SCHEDULES = get_args(Schedule)
COUNTS = st.integers(1, 300)


@given(st.sampled_from(SCHEDULES), COUNTS, st.integers(1, 400))
def test_every_token_is_decoded_once_and_no_step_is_empty(schedule, count, steps):
    sizes = tokens_per_step(schedule, count, steps)
    assert sum(sizes) == count
    assert min(sizes) >= 1
    if schedule == "one-by-one" or steps >= count:
        assert sizes == tokens_per_step(schedule, count) == [1] * count
    elif schedule == "cosine-randar":
        assert sizes[0] == 1
        assert len(sizes) == max(steps, 2)
    else:
        assert len(sizes) == steps


def test_sizes_are_those_of_the_official_code():
    cosine = [1] * 13 + [int(size) for size in "232233333343444444455455555655656665666666766667666"]
    arccos = [int(size) for size in "3323232323323233233233233323333333333334334343444444545565777"] + [
        10,
        12,
        28,
    ]
    assert tokens_per_step("cosine-randar", 256, 64) == cosine
    assert tokens_per_step("cosine-arpg", 256, 64) == cosine
    assert tokens_per_step("arccos", 256, 64) == arccos


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("done", [0, 1, 16, 63, 64])
def test_what_is_done_before_counts(schedule, done):
    for steps in (1, 5, 20, 64, None):
        sizes, fresh = tokens_per_step(schedule, 64, steps, done), tokens_per_step(schedule, 64, steps)
        assert sum(sizes) == 64 - done
        after, wanted = done, 0
        for size, plan in zip(sizes, fresh, strict=False):  # one at a time until the schedule has caught up
            after, wanted = after + size, wanted + plan
            assert after == max(wanted, after - size + 1)


def test_schedules_by_hand():
    assert tokens_per_step("linear", 10, 4) == [2, 3, 3, 2]
    assert tokens_per_step("cosine-randar", 16, 1) == [1, 15]
    assert tokens_per_step("cosine-arpg", 16, 1) == [16]
    assert tokens_per_step("cosine-arpg", 256, 2) == [75, 181]
    assert tokens_per_step("cosine-randar", 256, 2) == [1, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sine", 4, 2), "unknown schedule 'sine', expected one of cosine-randar"),
        (("linear", 4, 0), "at least one step, got steps=0"),
        (("one-by-one", 4, -1), "at least one step, got steps=-1"),
    ],
)
def test_wrong_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tokens_per_step(*arguments)


@pytest.mark.parametrize(
    ("guidance", "scales"),
    [  # of the steps 0-2, 2-6 and 6-8 of 8 tokens
        (Guidance(), [1, 1, 1]),
        (Guidance(4), [4, 4, 4]),
        (Guidance(5, "linear"), [1, 2, 4]),
        (Guidance(5, "linear", counted="after"), [2, 4, 5]),
        (Guidance(1, "linear", start=5), [5, 4, 2]),
        (Guidance(4, interval=(0.25, 0.5)), [1, 4, 1]),
        (Guidance(4, interval=(0.3, 1)), [1, 1, 4]),
        (Guidance(5, "linear", counted="after", interval=(0.0, 0.2)), [2, 1, 1]),
    ],
)
def test_guidance_by_hand(guidance, scales):
    assert [guidance.at(done, size, 8) for done, size in ((0, 2), (2, 4), (6, 2))] == scales


@pytest.mark.parametrize(
    ("guidance", "off"),
    [
        (Guidance(), True),
        (Guidance(1, "linear"), True),
        (Guidance(1, start=3), True),  # a constant scale never looks at the start
        (Guidance(1, "linear", start=3), False),
        (Guidance(2), False),
        (Guidance(0), False),  # the unconditional model
    ],
)
def test_guidance_is_off_where_no_step_needs_two_halves(guidance, off):
    assert guidance.off == off


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(scale=math.nan), "guidance scale must be a finite number, got nan"),
        (dict(start=math.inf), "guidance start must be a finite number, got inf"),
        (dict(schedule="cosine"), "schedule must be constant or linear, got 'cosine'"),
        (dict(counted="during"), "counted before or after the step, got 'during'"),
        (dict(interval=(math.nan, 1.0)), "guidance interval"),
        (dict(interval=(0.6, 0.5)), "guidance interval"),
        (dict(interval=0.5), "guidance interval"),
        (dict(interval=(0, 0.5, 1)), "guidance interval"),
        (dict(scale="2"), "guidance scale must be a finite number, got '2'"),
    ],
)
def test_wrong_guidance_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**wrong)
