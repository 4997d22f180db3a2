import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from randfeat.probes import KNN
from randfeat.probes.neighbors import nearest
from sklearn.neighbors import KNeighborsClassifier


def votes_oracle(bank, codes, query, k, temperature):
    """DINO's eval_knn.py, one image at a time."""
    cosine = [float(query @ b) / (np.linalg.norm(query) * np.linalg.norm(b)) for b in bank]
    votes = np.zeros(codes.max() + 1)
    for i in sorted(range(len(bank)), key=lambda i: -cosine[i])[:k]:
        votes[codes[i]] += np.exp(cosine[i] / temperature)
    return votes / votes.sum()


def data(n=60, d=5, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.integers(classes, size=n)


@pytest.mark.parametrize("k", [1, 7, 60, 1000])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_cosine_votes_are_those_of_dino(k, dtype):
    (x, y), queries = data(), data(seed=1)[0]
    expected = [votes_oracle(x, y, q, k, 0.07) for q in queries]
    votes = KNN(k=k).fit(x.astype(dtype), y).predict_proba(queries.astype(dtype))
    np.testing.assert_allclose(votes, expected, atol=1e-10 if dtype == np.float64 else 1e-4)


def test_a_hand_computed_vote():
    # cosines 1, 0.6 and 0.6: class 0 has exp(1/T), class 1 has 2 exp(0.6/T); they are equal at T = 0.4 / ln 2
    bank, labels = [[1.0, 0.0], [3.0, 4.0], [0.6, -0.8]], [0, 1, 1]
    turn = 0.4 / np.log(2)
    assert KNN(k=3, temperature=turn * 0.99).fit(bank, labels).predict([[5.0, 0.0]]) == [0]
    assert KNN(k=3, temperature=turn * 1.01).fit(bank, labels).predict([[5.0, 0.0]]) == [1]


@pytest.mark.parametrize("k", [1, 5, 20])
def test_euclidean_is_the_classical_classifier(k):
    (x, y), queries = data(200), data(80, seed=1)[0]
    reference = KNeighborsClassifier(k, algorithm="brute").fit(x, y)
    ours = KNN(k, metric="euclidean").fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(queries), reference.predict_proba(queries), atol=1e-12)
    assert (ours.predict(queries) == reference.predict(queries)).all()


def test_euclidean_is_exact_for_bytes():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(40, 3072), dtype=np.uint8)
    nearly = pixels.copy()
    nearly[np.arange(40), rng.integers(3072, size=40)] ^= 1  # another image at squared distance 1
    bank = np.concatenate([nearly, pixels])
    assert (KNN(1, metric="euclidean").fit(bank, np.arange(80)).predict(pixels) == np.arange(40, 80)).all()


@pytest.mark.parametrize("k", [1, 5, 1000])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_leave_one_out_is_fitting_without_each_image(metric, k):
    x, y = data(25)
    x[3] = x[4]  # a duplicate is not the image itself
    keep = ~np.eye(25, dtype=bool)
    expected = [KNN(k, metric=metric).fit(x[m], y[m]).predict_proba(x[~m])[0] for m in keep]
    model = KNN(k, metric=metric).fit(x, y)
    np.testing.assert_allclose(model.predict_proba(None), expected, atol=1e-12)
    assert model.score(None, y) == np.mean(np.argmax(expected, axis=1) == y)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_blocks_do_not_change_predictions(metric, monkeypatch):
    (x, y), queries = data(30), data(11, seed=1)[0]
    model = KNN(4, metric=metric).fit(x, y)
    whole = model.predict_proba(queries), model.predict_proba(None)
    monkeypatch.setattr("randfeat.probes.neighbors._BLOCK", 70)
    for a, b in zip(whole, (model.predict_proba(queries), model.predict_proba(None)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_ties_go_to_the_earlier_image_then_to_the_first_class():
    same = np.ones((5, 2))
    assert KNN(1).fit(same, ["z", "a", "a", "a", "a"]).predict(same[:1]) == ["z"]
    assert KNN(2).fit(same, ["z", "a", "a", "a", "a"]).predict(same[:1]) == ["a"]


@given(arrays(np.float64, (3, 9), elements=st.sampled_from([0.0, 1.0, 2.0])), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_nearest_is_a_stable_sort(costs, k):
    assert (nearest(costs, k) == np.argsort(costs, axis=1, kind="stable")[:, :k]).all()


def test_a_zero_vector_resembles_nothing():
    assert KNN(1).fit([[0.0, 0.0], [1.0, 0.0]], [0, 1]).predict([[1.0, 0.1]]) == [1]
    assert np.isfinite(KNN(2).fit([[0.0, 0.0], [1.0, 0.0]], [0, 1]).predict_proba([[0.0, 0.0]])).all()


def test_a_low_temperature_does_not_overflow():
    (x, y), queries = data(), data(seed=1)[0]
    assert (KNN(20, temperature=1e-5).fit(x, y).predict(queries) == KNN(1).fit(x, y).predict(queries)).all()


def test_one_class_is_always_predicted():
    assert (KNN().fit(np.eye(3), ["a"] * 3).predict(np.eye(3)) == "a").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "k >= 1"), ({"temperature": 0}, "temperature > 0"), ({"metric": "dot"}, "'dot' is unknown")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        KNN(**options).fit(*data())


def test_one_image_cannot_be_left_out():
    with pytest.raises(ValueError, match="bank holds one image"):
        KNN().fit([[1.0]], [0]).predict(None)
