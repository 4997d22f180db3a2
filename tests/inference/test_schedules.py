import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randfeat.inference.group_sizes import all_group_sizes, group_sizes
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
        (dict(schedule="cosine"), "schedule must be constant, linear or power-cosine, got 'cosine'"),
        (dict(counted="during"), "counted before or after the step, or by token, got 'during'"),
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


# LPD and RAR ------------------------------------------------------------------------------------------------


def test_tables_of_lpd_and_the_cosine_beside_them():
    for count in (256, 1024):
        for sizes in all_group_sizes(count):
            assert sum(sizes) == count
            assert tokens_per_step("lpd", count, len(sizes)) == [*sizes]
            assert group_sizes(count, len(sizes)) == sizes
    assert [len(all_group_sizes(count)) for count in (256, 1024, 49)] == [9, 14, 0]
    for steps in (1, 3, 7, 49):
        sizes = tokens_per_step("lpd", 49, steps)
        assert (sum(sizes), len(sizes)) == (49, steps)
        assert sizes == sorted(sizes) or steps == 49


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 60), st.integers(0, 60))
def test_a_schedule_of_sizes_is_kept_or_taken_as_shares(sizes, count, done):
    assert tokens_per_step(sizes, sum(sizes)) == sizes
    left = tokens_per_step(tuple(sizes), count, None, min(done, count))
    assert sum(left) == count - min(done, count)
    assert all(size >= 1 for size in left)
    assert len(left) <= len(sizes) or count < len(sizes) or done


def test_wrong_schedules_of_sizes_are_refused():
    for wrong in ((), (0, 3), (1.5, 2), (True, 2)):
        with pytest.raises(ValueError, match="a schedule of sizes holds whole numbers of tokens from 1"):
            tokens_per_step(wrong, 4)
    with pytest.raises(ValueError, match="this schedule has 2 steps, got steps=3: leave steps out"):
        tokens_per_step((1, 3), 4, 3)


def test_guidance_by_token_and_by_a_power_cosine():
    by_token = Guidance(5.0, "linear", counted="token")
    assert by_token.scales(2, 3, 8) == [2.0, 2.5, 3.0]
    assert Guidance(5.0, "linear").scales(2, 3, 8) == [2.0] * 3
    inside = Guidance(5.0, "linear", counted="token", interval=(0, 0.25))
    assert inside.scales(2, 2, 8) == [2.0, 1.0]
    rising = Guidance(9.0, "power-cosine", power=2)
    assert rising.at(0, 1, 4) == 1
    assert rising.at(2, 1, 4) == pytest.approx(1 + 8 * (1 - math.cos(math.pi / 4)) / 2)
    assert Guidance(4.0, "power-cosine", power=0).scales(0, 2, 8) == [4.0, 4.0]  # 0 to the power of 0 is 1
    with pytest.raises(ValueError, match="guidance power must be 0 or more, got -1"):
        Guidance(2.0, "power-cosine", power=-1)


def test_numbers_of_numpy_become_those_of_python():
    made = Guidance(np.float32(2), interval=(np.float64(0), np.float64(0.5)))
    assert (made.scale, made.interval) == (2.0, (0.0, 0.5))
    assert {type(value) for value in (made.scale, *made.interval)} == {float}


def test_the_last_step_of_a_schedule_may_decode_one_token():
    """ARPG leaves at least one token masked, and no more, before the last step."""
    assert tokens_per_step("cosine-arpg", 5, 4) == [1, 1, 2, 1]  # masked: 4.6, 3.5, 1.9, and 0, rounded down
    assert tokens_per_step("cosine-arpg", 10, 8) == [1, 1, 1, 1, 1, 2, 2, 1]
