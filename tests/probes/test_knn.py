import numpy as np
import pytest
from randfeat.probes import KNN, few_shot, top_k
from sklearn.metrics import pairwise_distances
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
    (x, y), queries = data(90), data(11, seed=1)[0]
    model = KNN(4, metric=metric).fit(x, y)
    whole = model.predict_proba(queries), model.predict_proba(None), model.predict(None)
    monkeypatch.setattr("randfeat.probes.neighbors._BLOCK", 70)
    monkeypatch.setattr("randfeat.probes.neighbors._PIECE", 500)
    monkeypatch.setattr("randfeat.probes.classifiers.knn._BLOCK", 9)
    for a, b in zip(whole, (model.predict_proba(queries), model.predict_proba(None), model.predict(None)), strict=True):
        np.testing.assert_array_equal(a, b)


def sklearn_knn(k, metric):
    weights = "uniform" if metric == "euclidean" else lambda distance: np.exp((1 - distance) / 0.07)
    return KNeighborsClassifier(k, algorithm="brute", metric=metric, weights=weights)


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_predictions_are_those_of_sklearn_to_the_last(k, metric, dtype):
    rng = np.random.default_rng(k)
    centres = rng.normal(size=(30, 40))
    y, truth = rng.integers(30, size=3000), rng.integers(30, size=1000)
    bank = (centres[y] + 2 * rng.normal(size=(3000, 40))).astype(dtype)
    bank[2000:2300], y[2000:2300] = bank[:300], y[:300]  # copies
    queries = (centres[truth] + 2 * rng.normal(size=(1000, 40))).astype(dtype)
    queries[:100] = bank[500:600]
    reference = sklearn_knn(k, metric).fit(bank.astype(np.float64), y).predict(queries.astype(np.float64))
    predicted = KNN(k, metric=metric).fit(bank, y).predict(queries)
    assert 0.3 < (predicted == truth).mean() < 0.999
    assert (predicted == reference).all()


@pytest.mark.parametrize("k", [1, 7, 50])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ties_are_those_of_a_stable_order_of_sklearns_distances(k, metric):
    """Corners of a cube in few dimensions: most distances are equal, and labels of equal images differ."""
    rng = np.random.default_rng(k)
    bank, queries = (rng.choice([-1.0, 1.0], size=(n, 6)) for n in (700, 200))
    y = rng.integers(4, size=700)
    distance = pairwise_distances(queries, bank, metric=metric).round(9)
    picked = np.argsort(distance, axis=1, kind="stable")[:, :k]
    weights = np.exp(-np.take_along_axis(distance, picked, 1) / 0.07) if metric == "cosine" else np.ones(picked.shape)
    votes = np.stack([((y[picked] == c) * weights).sum(1) for c in range(4)], axis=1)
    shares = KNN(k, metric=metric).fit(bank, y).predict_proba(queries)
    np.testing.assert_allclose(shares, votes / votes.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("queries", [None, data(50, seed=1)[0]], ids=["leave-one-out", "others"])
def test_several_ks_come_from_one_search(queries, monkeypatch):
    x, y = data(120)
    y = np.array(["wren", "robin", "lark", "rook"])[y]
    model = KNN().fit(x, y)
    separate = {k: KNN(k).fit(x, y).predict(queries) for k in (10, 20, 100, 200)}
    searched = []
    monkeypatch.setattr("randfeat.probes.classifiers.knn.top_k", lambda *a: searched.append(a[2]) or top_k(*a))
    together = model.predict_each(queries)
    assert searched == [200]
    assert list(together) == [10, 20, 100, 200]
    for k, labels in together.items():
        assert (labels == separate[k]).all()
    with pytest.raises(ValueError, match=r"ks=\(5, 0\): expected whole numbers from 1"):
        model.predict_each(queries, (5, 0))


def test_the_bank_is_kept_and_not_copied(tmp_path):
    x, y = data(50)
    for dtype in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "x.npy", x.astype(dtype))
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        model = KNN(3).fit(mapped, y)
        assert np.shares_memory(model.bank_, mapped)
        assert (
            model.predict_proba(None) == KNN(3).fit(x.astype(dtype).astype(np.float64), y).predict_proba(None)
        ).all()


def test_few_shots_of_named_classes_with_more_neighbours_than_images():
    rng = np.random.default_rng(0)
    y = np.repeat(["ash", "oak", "yew"], 20)
    x = np.eye(3)[np.repeat(range(3), 20)] + rng.normal(0, 0.5, size=(60, 3))
    one, again = (few_shot(x, y, x, y, shots=1, draws=5, seed=4, estimator=KNN(20)) for _ in range(2))
    assert (one == again).all()
    assert 0.5 < one.mean() < 1
    assert (one != few_shot(x, y, x, y, shots=1, draws=5, seed=5, estimator=KNN(20))).any()


def test_ties_go_to_the_earlier_image_then_to_the_first_class():
    same = np.ones((5, 2))
    assert KNN(1).fit(same, ["z", "a", "a", "a", "a"]).predict(same[:1]) == ["z"]
    assert KNN(2).fit(same, ["z", "a", "a", "a", "a"]).predict(same[:1]) == ["a"]


def test_a_zero_vector_resembles_nothing():
    assert KNN(1).fit([[0.0, 0.0], [1.0, 0.0]], [0, 1]).predict([[1.0, 0.1]]) == [1]
    assert np.isfinite(KNN(2).fit([[0.0, 0.0], [1.0, 0.0]], [0, 1]).predict_proba([[0.0, 0.0]])).all()


def test_a_low_temperature_does_not_overflow():
    (x, y), queries = data(), data(seed=1)[0]
    assert (KNN(20, temperature=1e-5).fit(x, y).predict(queries) == KNN(1).fit(x, y).predict(queries)).all()


def test_two_images_predict_each_other():
    model = KNN().fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    assert model.predict(None).tolist() == ["b", "a"]
    assert model.predict([[2.0, 1.0]]).tolist() == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "k >= 1"), ({"temperature": 0}, "temperature > 0"), ({"metric": "dot"}, "'dot' is unknown")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        KNN(**options).fit(*data())
