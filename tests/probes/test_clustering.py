from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from randfeat.probes import kmeans, well_clustered
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score


def inertia(x, clusters):
    return sum(np.square(x[clusters == c] - x[clusters == c].mean(0)).sum() for c in np.unique(clusters))


def blobs(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    return np.eye(4, 6)[y] * 5 + rng.normal(0, 0.3, size=(n, 6)), np.array(["ash", "elm", "oak", "yew"])[y]


@pytest.mark.parametrize("spherical", [False, True])
def test_separate_groups_are_found(spherical):
    x, y = blobs()
    if spherical:
        x *= np.random.default_rng(1).uniform(0.01, 100, size=(len(x), 1))  # lengths do not matter
    found = kmeans(x, 4, spherical=spherical)
    assert adjusted_rand_score(y, found) == pytest.approx(1)
    assert well_clustered(y, found).all()
    assert sorted(set(found)) == [0, 1, 2, 3]


def test_the_loss_is_that_of_sklearn():
    x = load_digits().data
    ours, theirs = kmeans(x, 10), KMeans(10, n_init=10, random_state=0).fit(x)
    assert inertia(x, ours) < 1.005 * theirs.inertia_


def test_redos_do_not_hurt_and_seeds_decide():
    x = load_digits().data
    losses = [inertia(x, kmeans(x, 10, redos=1, seed=seed)) for seed in range(4)]
    assert len(set(losses)) > 1
    assert inertia(x, kmeans(x, 10, redos=10)) <= min(losses) * 1.001
    assert (kmeans(x, 10, redos=2, seed=3) == kmeans(x, 10, redos=2, seed=3)).all()
    assert (kmeans(x, 10, redos=2, seed=3) != kmeans(x, 10, redos=2, seed=4)).any()


def test_an_offset_does_not_matter_even_where_float32_is_coarse():
    x, y = blobs()
    assert adjusted_rand_score(y, kmeans(x + 1e7, 4)) == pytest.approx(1)


def test_as_many_clusters_as_images_and_fewer_different_ones(capfd):
    x = np.random.default_rng(0).normal(size=(7, 3))
    assert sorted(kmeans(x, 7)) == list(range(7))
    assert len(set(kmeans(np.repeat(x, 5, axis=0), 20))) == 7
    assert len(set(kmeans(np.ones((12, 3)), 4, spherical=True))) == 1
    assert capfd.readouterr() == ("", "")


labels_st = st.lists(st.sampled_from("abc"), min_size=2, max_size=12).filter(lambda y: len(set(y)) > 1)


@given(labels_st, st.data())
def test_the_matching_is_the_best_of_all(labels, data):
    clusters = np.array(data.draw(st.lists(st.integers(3, 6), min_size=len(labels), max_size=len(labels))))
    hits = [
        sum(dict(zip(order, "abc", strict=False)).get(c) == y for c, y in zip(clusters, labels, strict=True))
        for order in permutations([3, 4, 5, 6], 3)
    ]
    right = well_clustered(labels, clusters)
    assert right.sum() == max(hits)
    for cluster in set(clusters):  # a cluster stands for one label, and a label for one cluster
        assert len({y for y, c, hit in zip(labels, clusters, right, strict=True) if hit and c == cluster}) <= 1
    for label in set(labels):
        assert len({c for y, c, hit in zip(labels, clusters, right, strict=True) if hit and y == label}) <= 1


def test_a_hand_computed_matching():
    # cluster 0: a a b, cluster 1: b, cluster 2: c; a, b, c stand for 0, 1, 2, and one of five is wrong
    assert well_clustered(["a", "a", "b", "b", "c"], [0, 0, 0, 1, 2]).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kmeans(np.eye(3), 4), "clusters=4 for 3 images"),
        (lambda: kmeans(np.eye(3), 0), "clusters=0 for 3 images"),
        (lambda: kmeans(np.eye(3), 2, redos=0), "redos=0, iterations=50"),
        (lambda: kmeans([[1.0], [np.nan]], 1), r"NaN or infinity in 1 of 2 rows \(first: 1\)"),
        (lambda: well_clustered(["a", "a"], [0, 1]), r"labels hold one class \(a\)"),
        (lambda: well_clustered(["a", "b"], [0, 1, 2]), r"clusters have shape \(3,\), expected \(2,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
