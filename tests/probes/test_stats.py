from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from randfeat.probes import Interval, bootstrap, holm, paired, spread, stats
from randfeat.probes.stats import ratio

scores_st = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(scores_st, st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_value_is_the_mean_inside_the_interval_inside_the_data(scores, seed, grouped):
    groups = np.arange(len(scores)) // 3 if grouped and len(scores) > 3 else None
    interval = bootstrap(scores, groups, draws=50, seed=seed)
    assert interval.value == np.mean(scores)
    assert interval.n == len(scores)
    assert interval.low <= interval.value <= interval.high
    slack = 1e-9 * max(map(abs, scores))
    assert min(scores) - slack <= interval.low
    assert interval.high <= max(scores) + slack


def test_rounding_cannot_push_a_constant_out_of_its_interval():
    for n in range(2, 60):
        interval = bootstrap(np.full(n, 0.1), np.arange(n) // 2 if n > 2 else None, draws=20)
        assert interval.low <= interval.value <= interval.high


def test_same_seed_same_interval_other_seed_another():
    scores = np.random.default_rng(0).random(100)
    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1)
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


def test_ends_are_the_quantiles_of_the_binomial():
    # The mean of 100 resampled images, 30 of them right, is binomial(100, 0.3) / 100.
    interval = bootstrap(np.arange(100) < 30, draws=20_000)
    assert interval.value == 0.3
    assert interval.low == pytest.approx(0.21, abs=0.011)
    assert interval.high == pytest.approx(0.39, abs=0.011)
    narrow = bootstrap(np.arange(100) < 30, draws=20_000, level=0.5)
    assert narrow.low == pytest.approx(0.27, abs=0.011)
    assert narrow.high == pytest.approx(0.33, abs=0.011)


def test_hierarchical_spread_is_that_of_two_stages():
    """The variance of a two-stage bootstrap, written out for groups of equal size."""
    rng = np.random.default_rng(0)
    groups, size = 30, 8
    x = rng.normal(size=(groups, 1)) + rng.normal(size=(groups, size))
    variance = x.mean(1).var() / groups + x.var(1).mean() / (groups * size)
    interval = bootstrap(x.ravel(), np.repeat(np.arange(groups), size), draws=20_000, level=0.6826894921)
    assert (interval.high - interval.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.03)


def test_alike_images_of_a_group_widen_the_interval():
    truth = np.repeat(np.arange(20) % 2, 10)
    plain, grouped = bootstrap(truth), bootstrap(truth, np.repeat(np.arange(20), 10))
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)


def test_groups_of_one_image_are_no_groups():
    scores = np.random.default_rng(0).random(200)
    plain, single = bootstrap(scores, draws=20_000), bootstrap(scores, np.arange(200), draws=20_000)
    assert (single.low, single.high) == pytest.approx((plain.low, plain.high), abs=2e-3)


def test_the_order_of_unequal_groups_does_not_matter():
    names = np.array(["a", "b", "a", "c", "b", "a", "a"])
    scores = np.array([1.0, 0, 1, 0, 0, 1, 1])
    order = np.argsort(names, kind="stable")
    assert bootstrap(scores, names) == bootstrap(scores[order], names[order])


def test_coverage_is_about_the_level():
    rng = np.random.default_rng(0)
    intervals = [bootstrap(rng.random(60) < 0.4, draws=300, seed=i) for i in range(400)]
    covered = np.mean([i.low <= 0.4 <= i.high for i in intervals])
    assert 0.90 < covered < 0.98


def test_coverage_with_groups_needs_the_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 8)
    hits = {"plain": 0, "grouped": 0}
    for i in range(200):
        scores = rng.normal(size=30)[groups] + rng.normal(size=240)
        for name, by in (("plain", None), ("grouped", groups)):
            interval = bootstrap(scores, by, draws=300, seed=i)
            hits[name] += interval.low <= 0 <= interval.high
    assert hits["plain"] < 140
    assert hits["grouped"] > 180


def test_shares_stay_shares():
    """Whole scores are summed without rounding, over any number of seeds."""
    for seeds in range(2, 24):
        interval = bootstrap(np.ones((seeds, 10)), draws=300)
        assert (interval.value, interval.low, interval.high) == (1, 1, 1), seeds


def test_large_inputs_are_resampled_in_blocks(monkeypatch):
    scores, groups = np.random.default_rng(0).random(50), np.arange(50) // 7
    whole = bootstrap(scores, groups, draws=5000)
    monkeypatch.setattr("randfeat.probes.stats._AT_ONCE", 70)
    assert bootstrap(scores, groups, draws=5000) == whole
    monkeypatch.setattr("randfeat.probes.stats._BLOCK", 120)
    blocks = bootstrap(scores, groups, draws=5000)
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), abs=0.01)


@given(scores_st)
@settings(max_examples=20, deadline=None)
def test_paired_of_equal_scores_is_exactly_zero(scores):
    difference = paired(scores, scores, draws=20)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert not difference.excludes_zero


def test_paired_sees_what_unpaired_intervals_hide():
    easy = np.random.default_rng(0).random(500)
    a, b = bootstrap(easy), bootstrap(easy + 0.01)
    assert a.high > b.low
    difference = paired(easy + 0.01, easy)
    assert difference.excludes_zero
    assert difference.value == pytest.approx(0.01)
    assert paired(easy, easy + 0.01).excludes_zero


def test_paired_resamples_as_bootstrap_does():
    a, b, groups = np.arange(9) % 2, np.arange(9) % 3, np.arange(9) // 2
    difference, interval = paired(a, b, groups, seed=5), bootstrap(a - b, groups, seed=5)
    assert {**interval.as_dict(), "p": difference.p} == difference.as_dict()


def test_paired_takes_booleans():
    assert paired([True, False], [False, True], draws=5).value == 0


def test_as_dict_is_plain_numbers():
    fields = bootstrap(np.ones(3, dtype=bool)).as_dict()
    assert fields == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert [type(v) for v in fields.values()] == [float, float, float, int]


@pytest.mark.parametrize(("low", "high", "excludes"), [(0.1, 0.2, True), (-2, -1, True), (0, 1, False), (-1, 1, False)])
def test_excludes_zero(low, high, excludes):
    assert Interval((low + high) / 2, low, high, 3).excludes_zero is excludes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": []}, r"shape \(0,\)"),
        ({"scores": np.ones((3, 2, 2))}, "average other repetitions first"),
        ({"scores": np.ones((3, 0))}, r"shape \(3, 0\)"),
        ({"scores": [0.0, np.nan]}, "NaN or infinity"),
        ({"scores": [0, 1], "groups": [0]}, "one group per score"),
        ({"scores": [0, 1], "groups": ["a", "a"]}, "groups are all the same"),
        ({"scores": [0, 1], "draws": 0}, "draws=0: expected one or more"),
        ({"scores": [0, 1], "groups": {"typeface": ["a", "b"], "writer": [0]}}, r"writer have shape \(1,\)"),
        ({"scores": [0, 1], "level": 95}, "between 0 and 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(**arguments)


def test_paired_needs_the_same_images_and_seeds():
    for a, b in ((np.ones(2), np.ones(3)), (np.ones((2, 4)), np.ones((3, 4)))):
        with pytest.raises(ValueError, match="score both features on the same images"):
            paired(a, b)


def two_levels(rng, outer=12, inner=5, images=4):
    """Labels of groups inside groups, whose names repeat from one outer group to the next."""
    return {
        "typeface": np.repeat(np.arange(outer), inner * images),
        "writer": np.tile(np.repeat(list("edcba"), images), outer),
    }


def test_groups_inside_groups_add_their_spread():
    """The variance of a three-stage bootstrap, written out for groups of equal size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 1, 1)) + rng.normal(size=(12, 5, 1)) + rng.normal(size=(12, 5, 4))
    variance = x.mean((1, 2)).var() / 12 + x.mean(2).var(1).mean() / 60 + x.var(2).mean() / 240
    interval = bootstrap(x.ravel(), two_levels(rng), draws=20_000, level=0.6826894921)
    assert (interval.high - interval.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.03)


def test_the_order_of_images_in_nested_groups_does_not_matter():
    rng = np.random.default_rng(0)
    groups, scores = two_levels(rng), np.repeat(rng.integers(2, size=60), 4)
    moved = rng.permutation(240)
    assert bootstrap(scores, groups) == bootstrap(scores[moved], {name: x[moved] for name, x in groups.items()})


def test_several_seeds_are_resampled_beside_the_images():
    """The variance of drawing seeds (one fewer) and images together, by simulation with plain loops."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 1)) + rng.normal(size=50) + 0.3 * rng.normal(size=(4, 50))
    slow = [x[rng.integers(4, size=3)][:, rng.integers(50, size=50)].mean() for _ in range(20_000)]
    interval = bootstrap(x, draws=20_000, level=0.9)
    assert (interval.value, interval.n) == (x.mean(), 50)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])), abs=0.05)


def test_one_seed_is_no_seed_and_equal_seeds_add_nothing():
    scores = np.random.default_rng(0).random(30)
    assert bootstrap(scores[None]) == bootstrap(scores)
    same = bootstrap(np.tile(scores, (5, 1)), draws=20_000)
    plain = bootstrap(scores, draws=20_000)
    assert (same.low, same.high) == pytest.approx((plain.low, plain.high), abs=2e-3)


@pytest.mark.parametrize("seeds", [3, 8])
def test_coverage_with_seeds_needs_the_seeds(seeds):
    """Scores of seed + image + noise around 0; the mean over seeds alone would be too sure."""
    rng = np.random.default_rng(1)
    hits = {"averaged": 0, "seeds": 0}
    for i in range(300):
        scores = 0.3 * rng.normal(size=(seeds, 1)) + rng.normal(size=40) + 0.5 * rng.normal(size=(seeds, 40))
        for name, values in (("averaged", scores.mean(0)), ("seeds", scores)):
            interval = bootstrap(values, draws=300, seed=i)
            hits[name] += interval.low <= 0 <= interval.high
    assert hits["averaged"] / 300 < hits["seeds"] / 300 - 0.03
    assert 0.90 < hits["seeds"] / 300 < 0.99


@given(scores_st, st.integers(39, 400), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=100, deadline=None)
def test_p_is_low_exactly_where_the_interval_excludes_zero(scores, draws, level):
    difference = paired(scores, np.zeros(len(scores)), draws=draws, level=level)
    assert difference.excludes_zero == (difference.p <= 1 - level + 1e-9)
    assert 2 / (draws + 1) <= difference.p <= 1


def test_p_values_of_no_difference_are_uniform_and_of_a_large_one_the_lowest():
    rng = np.random.default_rng(0)
    p = np.array([paired(rng.normal(size=50), rng.normal(size=50), draws=199, seed=i).p for i in range(400)])
    assert [np.mean(p <= level) for level in (0.1, 0.5, 0.9)] == pytest.approx([0.1, 0.5, 0.9], abs=0.05)
    assert paired(rng.random(50) + 2, rng.random(50), draws=199).p == 0.01


def test_a_single_run_is_compared_with_every_seed():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 20)), rng.random(20)
    assert paired(a, b) == paired(a, b[None]) == paired(a, np.tile(b, (3, 1)))
    assert paired(b, a).value == -paired(a, b).value


def test_spread():
    assert spread([1.0, 2.0, 4.0]).mean == pytest.approx(7 / 3)
    assert spread([1.0, 2.0, 4.0]).std == pytest.approx(np.sqrt(7 / 3))
    assert (spread([0.5]).std, spread([0.5]).runs) == (None, 1)
    with pytest.raises(ValueError, match="one number per run"):
        spread(np.ones((2, 2)))


def test_holm_by_hand():
    claims = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.01})
    assert list(claims) == ["c", "a", "d", "b"]
    assert [claims[k].adjusted for k in "abcd"] == pytest.approx([0.04, 0.04, 0.06, 0.06])
    assert [claims[k].holds for k in "abcd"] == [True, True, False, False]
    assert holm({"a": 0.05})["a"].holds


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.9, 0.95]))
@settings(max_examples=100, deadline=None)
def test_holm_steps_down_until_the_first_failure(p, level):
    claims = holm(dict(enumerate(p)), level)
    holds, left = set(), sorted(range(len(p)), key=lambda i: p[i])
    while left and p[left[0]] * len(left) <= 1 - level + 1e-9:
        holds.add(left.pop(0))
    assert {i for i in claims if claims[i].holds} == holds


@pytest.mark.parametrize("p_values", [{}, {"a": np.nan}, {"a": 1.2}])
def test_holm_refuses_what_is_no_p_value(p_values):
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        holm(p_values)


@pytest.mark.parametrize("more", [{}, {"groups": [0, 0, 1, 1, 2]}, {"draws": 50}, {"seed": 3}, {"level": 0.5}])
def test_a_ratio_draws_the_same_images_for_both(more):
    a, b = np.array([3.0, 0, 1, 5, 2]), np.array([1.0, 1, 4, 2, 2])
    assert ratio(a, b, **more).value == pytest.approx(11 / 10)
    assert astuple(ratio(a, np.ones(5), **more)) == pytest.approx(astuple(bootstrap(a, **more)))
    assert astuple(ratio(2 * b, b, **more)) == pytest.approx((2, 2, 2, 5))
    both = ratio([a, a + 1], b, **more)
    assert (both.value, both.n) == (pytest.approx(1.35), 5)
    assert astuple(ratio([a, a + 1], np.ones(5), **more)) == pytest.approx(astuple(bootstrap([a, a + 1], **more)))


def test_a_ratio_to_nothing_is_none():
    assert ratio([1, 2], [0, 0]) is None
    assert ratio([1, 2], [1, -1]) is None
    assert ratio([1, 2], [0, 1]) is None  # of a resample
    assert ratio([0, 0], [1, 2]).value == 0


def test_a_spread_is_computed_in_double_precision():
    assert spread(np.array([2**24, 1, 1], np.float32)).mean == (2**24 + 2) / 3


@pytest.mark.parametrize(("draws", "level", "place"), [(199, 0.95, 5), (198, 0.95, 4), (99, 0.9, 5), (10, 0.99, 1)])
def test_an_interval_ends_at_order_statistics(draws, level, place):
    """Davison & Hinkley 1997, section 5.2.1: the (draws + 1)(1 - level) / 2-th resample from each end."""
    means = np.random.default_rng(7).permutation(draws)
    assert stats._percentiles(draws / 2, means, level) == (place - 1, draws - place)
    assert stats._percentiles(-1, means, level) == (-1, draws - place)  # the value is always inside


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, np.nan])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=r"level=.*: expected a number between 0 and 1, such as 0\.95"):
        bootstrap([1, 2], level=level)
