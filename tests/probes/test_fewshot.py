import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from randfeat.probes import KNN, draw_shots, few_shot, paired, spread

labels_st = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)


@given(labels_st, st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_draws_are_balanced_and_without_repetition(labels, shots, seed):
    y = np.array(labels)
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < shots:
        with pytest.raises(ValueError, match=f"images for {shots} shots"):
            draw_shots(y, shots, 3, seed)
        return
    for rows in draw_shots(y, shots, 3, seed):
        assert len(set(rows)) == len(rows)
        assert sorted(y[rows]) == sorted(np.repeat(classes, shots))


def test_draws_are_seeded_nested_and_do_not_depend_on_their_number():
    y = np.arange(60) % 3
    five = draw_shots(y, 5, 4, seed=1)
    assert (five == draw_shots(y, 5, 9, seed=1)[:4]).all()
    assert (five != draw_shots(y, 5, 4, seed=2)).any()
    assert len({tuple(rows) for rows in five}) == 4
    for few, more in zip(draw_shots(y, 2, 4, seed=1), five, strict=True):
        assert set(few) < set(more)


def test_every_image_can_be_drawn():
    assert set(draw_shots(np.arange(20) % 2, 2, 100).ravel()) == set(range(20))


def test_correctness_is_that_of_a_fit_on_each_draw():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    test_x, test_y = rng.normal(size=(15, 3)), np.array(["a", "b", "a"] * 5)
    right = few_shot(x, y, test_x, test_y, shots=2, draws=6, seed=3, estimator=KNN(1))
    assert (right.shape, right.dtype) == ((15, 6), bool)
    for column, rows in zip(right.T, draw_shots(y, 2, 6, seed=3), strict=True):
        assert (column == (KNN(1).fit(x[rows], y[rows]).predict(test_x) == test_y)).all()


def test_features_are_compared_on_the_same_draws():
    """A row number as the feature makes the drawn rows visible: the nearest drawn row decides."""
    y = np.arange(30) % 2
    x = np.arange(30.0)[:, None]
    options = {"shots": 2, "draws": 5, "estimator": KNN(1, metric="euclidean")}
    assert (few_shot(x, y, x, y, **options) == few_shot(x * 7 + 1, y, x * 7 + 1, y, **options)).all()


def test_the_default_learns_from_directions_alone():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = np.eye(3)[y] + rng.normal(0, 0.3, size=(90, 3))
    right = few_shot(x, y, x, y, draws=3)
    assert right.mean() > 0.8
    assert (right == few_shot(x * 2.0 ** rng.integers(-5, 5, size=(90, 1)), y, x, y, draws=3)).all()


def test_draws_are_the_seeds_of_an_interval():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    good, poor = (np.eye(2)[y] + rng.normal(0, noise, size=(60, 2)) for noise in (0.2, 2))
    a, b = (few_shot(x, y, x, y, shots=3, draws=8) for x in (good, poor))
    difference = paired(a.T, b.T)
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert difference.excludes_zero
    assert (spread(a.mean(0)).runs, spread(a.mean(0)).std) == (8, pytest.approx(a.mean(0).std(ddof=1)))


def test_bad_input():
    x, y = np.eye(4), np.array(["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="class a has 2 images for 3 shots"):
        few_shot(x, y, x, y, shots=3)
    with pytest.raises(ValueError, match="test labels hold classes that train lacks, such as c"):
        few_shot(x, y, x, ["a", "a", "b", "c"], shots=1)
    with pytest.raises(ValueError, match=r"train labels have shape \(3,\), expected \(4,\)"):
        few_shot(x, y[:3], x, y)
    with pytest.raises(ValueError, match=r"test features hold NaN or infinity in 4 of 4 rows"):
        few_shot(x, y, x * np.nan, y)
    with pytest.raises(ValueError, match="draws=0"):
        few_shot(x, y, x, y, shots=1, draws=0)
