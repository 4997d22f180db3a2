"""Extreme numbers: features whose squares overflow or vanish, numbers that are none, and recipes on little data."""

import warnings

import numpy as np
import pytest
from randfeat.probes import KNN, HeadRecipe, LinearProbe, TrainedHead
from randfeat.probes.classifiers.scalings import scaling
from randfeat.probes.neighbors import top_k, unit
from randfeat.probes.tasks.retrieval import retrieval_scores
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from randfeat.index import Index
from randfeat.index.image_map import places
from randfeat.index.vectors import normalize

SIZES = (1e-40, 1e-30, 1e-20, 1.0, 1e20, 1e25, 1e37)


def rows(size, dtype=np.float32, count=12):
    return (np.random.default_rng(0).normal(size=(count, 8)) * size).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_a_row_of_an_index_is_its_own_nearest_with_cosine_one(size, tmp_path):
    features = rows(size)
    index = Index.build(tmp_path / "index", features, [f"{i}.png" for i in range(12)])
    found = index.search(features, 1)
    assert [matches[0].path for matches in found] == [f"{i}.png" for i in range(12)]
    np.testing.assert_allclose([matches[0].score for matches in found], 1, atol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, 1e-200, 1e160, 1e200])
def test_cosine_of_a_row_with_itself_is_one(size):
    features = rows(size, np.float64)
    similarities, ids = top_k(features, features, 1)
    assert (ids[:, 0] == np.arange(12)).all()
    np.testing.assert_allclose(similarities, 1)
    np.testing.assert_allclose(np.linalg.norm(unit(features), axis=1), 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["l2", "center-l2"])
def test_scalings_to_length_one_do_not_depend_on_the_size(name, size):
    made = scaling(name).fit_transform(rows(size))
    expected = scaling(name).fit_transform(rows(1.0))
    np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_retrieval_does_not_depend_on_the_size(size):
    labels = np.arange(12) % 3
    scores, expected = (retrieval_scores(rows(one), labels)["map_at_r"] for one in (size, 1.0))
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_a_map_tells_images_apart_at_any_size(size):
    assert len(np.unique(places(rows(size, count=5), 0), axis=0)) == 5


def test_rows_of_ordinary_size_are_normalised_bit_by_bit_as_before():
    import faiss

    ours, theirs = rows(3.0), rows(3.0)
    normalize(ours)
    faiss.normalize_L2(theirs)
    np.testing.assert_array_equal(ours, theirs)
    zero = np.zeros((2, 3), np.float32)
    normalize(zero)
    assert not zero.any()


def test_squared_distances_that_overflow_are_refused():
    features = rows(1e160, np.float64)
    with pytest.raises(ValueError, match="squared distances overflow; scale them first"):
        top_k(features, features, 1, metric="euclidean")


def objective(weight, bias, x, y):
    logits = x.astype(np.float64) @ weight + bias
    cost = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return cost.mean() + np.square(weight).sum() / (2 * len(y))


@pytest.mark.parametrize("size", [1e-6, 1e6, 1e12, 1e25])
@pytest.mark.parametrize(("shape", "apart"), [((120, 8), 5), ((120, 8), 1), ((30, 50), 1)])
def test_a_probe_that_says_converged_has_the_least_loss(size, shape, apart):
    n, d = shape
    y = np.arange(n) % 3
    x = ((np.random.default_rng(0).normal(size=shape) + apart * np.eye(3, d)[y]) * size).astype(np.float32)
    probe = LinearProbe().fit(x, y)
    assert np.isfinite(probe.weight_).all()
    if size < 1e10:  # of larger ones scikit-learn's own loss is no number
        theirs = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its line search and Hessian are at their limits, too
            theirs.fit(x.astype(float), y)
        best = objective(theirs.coef_.T, theirs.intercept_, x, y)
        assert probe.loss_ <= 1.02 * best
    assert probe.score(x, y) > 0.6


def test_a_fit_of_tiny_features_does_not_stop_where_it_starts():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) * 1e-7
    y = (x[:, 0] > 0).astype(int)
    probe = LinearProbe(C=1e16).fit(x, y)
    assert probe.n_iter_ > 3
    assert probe.score(x, y) > 0.95


@pytest.mark.parametrize(
    ("name", "size"),
    [("none", 1e25), ("standard", 1e25), ("whitened", 1e25), ("standard", 1e-25), ("whitened", 1e-25)],
)
def test_scaled_probes_take_features_of_any_size(name, size):
    x, y = rows(1.0, count=40), np.arange(40) % 2
    x[:, 0] += 4 * y
    same = LinearProbe(scaling=name).fit(x * np.float32(size), y).predict(x * np.float32(size))
    assert (same == y).mean() > 0.9


@pytest.mark.parametrize("temperature", [np.nan, np.inf, 0.0, -1.0])
def test_a_temperature_is_a_finite_number_above_zero(temperature):
    with pytest.raises(ValueError, match="a finite temperature > 0"):
        KNN(temperature=temperature).fit(rows(1.0), np.arange(12) % 2)


def test_the_recipe_of_mae_learns_from_a_few_images():
    draw = np.random.default_rng(0)
    y = np.arange(300) % 5
    x = (draw.normal(size=(300, 64)) + 5 * np.eye(5, 64)[y]).astype(np.float32)
    head = TrainedHead(HeadRecipe.mae()).fit(x[:200], y[:200])
    best = LinearProbe(scaling="standard").fit(x[:200], y[:200]).score(x[200:], y[200:])
    assert head.score(x[200:], y[200:]) > best - 0.05
