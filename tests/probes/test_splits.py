import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from randfeat.probes import copies, folds, hold_out

labels_st = st.lists(st.sampled_from("abc"), min_size=2, max_size=40)


@given(labels_st, st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_folds_hold_each_class_as_evenly_as_whole_images_allow(labels, count, seed):
    y = np.array(labels)
    sizes = np.unique(y, return_counts=True)[1]
    assume(sizes.max() > 1)
    fold = folds(y, count=count, seed=seed)
    assert set(fold) == set(range(min(count, sizes.max())))
    for label in set(labels):
        each = np.bincount(fold[y == label], minlength=fold.max() + 1)
        assert each.max() - each.min() <= 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), min_size=4, max_size=60), st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_no_group_is_in_two_folds(images, count):
    y, groups = np.array([a for a, _ in images]), np.array([g for _, g in images])
    assume(len(set(groups)) > 1 and np.unique(y, return_counts=True)[1].max() > 1)
    fold = folds(y, groups, count)
    assert fold.max() >= 1
    assert all(len(set(fold[groups == g])) == 1 for g in groups)


def test_folds_of_groups_are_as_stratified_as_they_can_be():
    """Writers who wrote one class each are spread over folds by class."""
    groups = np.repeat(np.arange(20), 6)
    fold = folds(groups % 4, groups, count=5)
    for i in range(5):
        assert np.bincount(groups[fold == i] % 4).tolist() == [6, 6, 6, 6]


def test_seeds_decide():
    y = np.arange(60) % 3
    assert (folds(y, seed=1) == folds(y, seed=1)).all()
    assert (folds(y, seed=1) != folds(y, seed=2)).any()
    groups = np.arange(60) // 4
    assert (folds(y, groups, seed=1) != folds(y, groups, seed=2)).any()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
def test_a_share_of_every_class_is_held_out(share):
    y = np.repeat(["x", "y", "z"], [40, 80, 120])
    held_out = hold_out(y, share=share)
    assert [held_out[y == c].sum() for c in "xyz"] == [40 * share, 80 * share, 120 * share]


def test_the_most_typical_fold_of_groups_is_held_out():
    """One group has all of a class: it stays where it can be learnt."""
    y = np.array(["a", "b"] * 30 + ["c"] * 12)
    groups = np.repeat(np.arange(6), 12)
    held_out = hold_out(y, groups, share=1 / 3)
    assert held_out.any()
    assert "c" not in y[held_out]
    assert set(groups[held_out]).isdisjoint(groups[~held_out])


def test_few_images():
    assert hold_out(["a", "a"]).sum() == 1
    assert sorted(folds([5, 5, 5], count=10)) == [0, 1, 2]
    assert hold_out(["a", "b", "a"]).sum() in (1, 2)
    assert sorted(folds(["a", "a", "b"], groups=["x", "y", "y"])) == [0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b", "c"],), "no class has two images"),
        (([],), "no class has two images"),
        ((["a", "a"], ["x", "x"]), "groups are all the same"),
        ((["a", "a"], ["x"]), r"groups have shape \(1,\)"),
        (([[1, 1]],), r"labels have shape \(1, 2\)"),
        ((["a", "a"], None, 1), "count=1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        folds(*arguments)


@pytest.mark.parametrize("share", [0, 0.6, 20])
def test_bad_share(share):
    with pytest.raises(ValueError, match=r"at most 0\.5 of train"):
        hold_out(["a", "a"], share=share)


def test_copies_are_found_and_counted():
    train = np.random.default_rng(0).integers(256, size=(20, 4, 4, 3), dtype=np.uint8)
    test = np.random.default_rng(1).integers(256, size=(6, 4, 4, 3), dtype=np.uint8)
    test[2], test[5] = train[7], train[7]
    test[3] = train[8]
    test[3, 0, 0, 0] ^= 1
    with pytest.warns(UserWarning, match=r"2 of 6 test images are exact copies of train images \(first: 2\)"):
        assert copies(train, test).tolist() == [False, False, True, False, False, True]


def test_no_copies_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not copies(np.eye(3), 2 * np.eye(3)).any()
    for other in (np.eye(3, dtype=np.float32), np.eye(4)):
        with pytest.raises(ValueError, match="arrays of one shape and dtype"):
            copies(np.eye(3), other)
