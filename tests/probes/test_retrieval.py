import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from randfeat.probes import average_precision, has_positive, map_at_r, precision_at_1, r_precision, recall_at_k
from randfeat.probes import retrieval_scores as scores_of
from sklearn.metrics import average_precision_score

ranking_st = st.lists(st.booleans(), min_size=1, max_size=12).filter(any)


def slow_r_precision(relevant):
    r = sum(relevant)
    return sum(relevant[:r]) / r


def slow_map_at_r(relevant):
    """Musgrave et al. 2020: 1/R times the sum over i <= R of P(i) = precision at i if relevant, else 0."""
    r = sum(relevant)
    return sum(sum(relevant[:i]) / i if relevant[i - 1] else 0 for i in range(1, r + 1)) / r


@given(ranking_st)
@settings(max_examples=200, deadline=None)
def test_scores_of_a_ranking_are_their_definitions(ranking):
    relevant = np.array([ranking])
    assert r_precision(relevant)[0] == pytest.approx(slow_r_precision(ranking))
    assert map_at_r(relevant)[0] == pytest.approx(slow_map_at_r(ranking))
    expected = average_precision_score(ranking, -np.arange(len(ranking)))
    assert average_precision(relevant)[0] == pytest.approx(expected)
    assert precision_at_1(relevant)[0] == ranking[0]
    assert recall_at_k(relevant, 3)[0] == any(ranking[:3])


def test_a_hand_computed_ranking():
    relevant = np.array([[False, True, True, False, True]])  # R = 3
    assert precision_at_1(relevant) == [0]
    assert [recall_at_k(relevant, k)[0] for k in (1, 2, 99)] == [0, 1, 1]
    assert r_precision(relevant) == pytest.approx(2 / 3)
    assert map_at_r(relevant) == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert average_precision(relevant) == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize("score", [r_precision, map_at_r, average_precision])
def test_a_ranking_without_positives_has_no_score(score):
    with pytest.raises(ValueError, match="query 1 has no relevant image"):
        score(np.array([[True, False], [False, False]]))


def slow_scores(x, y, bank, bank_labels, self_search):
    """One query at a time, by the definition of cosine; queries without positives are skipped."""
    out = []
    for i in range(len(x)):
        cosine = bank @ x[i] / np.linalg.norm(bank, axis=1) / np.linalg.norm(x[i])
        ranking = [bank_labels[j] == y[i] for j in np.argsort(-cosine) if not (self_search and i == j)]
        if any(ranking):
            out.append((ranking[0], any(ranking[:5]), slow_r_precision(ranking), slow_map_at_r(ranking)))
    return np.array(out, dtype=float)


@pytest.mark.parametrize("self_search", [True, False])
@pytest.mark.parametrize("block", [1 << 23, 70])
def test_scores_are_those_of_a_slow_search(self_search, block, monkeypatch):
    monkeypatch.setattr("randfeat.probes.neighbors._BLOCK", block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.integers(15, size=40)
    y[5] = 99  # has no positive
    bank, labels = (x, y) if self_search else (rng.normal(size=(30, 6)), rng.integers(15, size=30))
    scores = scores_of(x, y) if self_search else scores_of(x, y, bank, labels)
    names = ["precision_at_1", "recall_at_5", "r_precision", "map_at_r"]
    expected = slow_scores(x, y, bank, labels, self_search)
    np.testing.assert_allclose(np.stack([scores[n] for n in names], axis=1), expected, atol=1e-12)
    kept = has_positive(y) if self_search else has_positive(y, labels)
    assert not kept[5]
    assert len(expected) == kept.sum()
    assert all(len(v) == kept.sum() for v in scores.values())


def test_names_and_single_precision():
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 4
    scores = scores_of(x, y, ks=(2, 7))
    assert list(scores) == [
        "precision_at_1", "recall_at_2", "recall_at_7", "r_precision", "map_at_r", "average_precision"
    ]  # fmt: skip
    for name, values in scores.items():
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, scores_of(x.astype(np.float64), y, ks=(2, 7))[name])


def test_an_image_does_not_find_itself_but_finds_its_copy():
    x = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]])
    assert scores_of(x, ["a", "b", "a", "b"])["precision_at_1"].tolist() == [0, 0, 0, 0]
    assert scores_of(x, ["a", "a", "b", "b"])["precision_at_1"].tolist() == [1, 1, 1, 0]


def test_length_of_a_vector_does_not_matter():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.integers(5, size=30)
    longer = x * rng.uniform(0.1, 10, size=(30, 1))
    for name, values in scores_of(x, y).items():
        np.testing.assert_array_equal(values, scores_of(longer, y)[name])


def test_ties_rank_in_the_order_of_the_gallery():
    scores = scores_of([[1.0]], ["b"], np.ones((4, 1)), ["a", "b", "b", "a"], ks=(1, 2))
    assert (scores["recall_at_1"], scores["recall_at_2"], scores["r_precision"]) == (0, 1, 0.5)
    labels = np.random.default_rng(0).integers(2, size=500)
    gallery = np.where(np.arange(500)[:, None] % 3 > 0, [1.0, 0.0], [0.0, 1.0])
    ranking = np.concatenate([labels[np.arange(500) % 3 > 0], labels[::3]]) == 1
    assert scores_of([[1.0, 0.0]], [1], gallery, labels)["map_at_r"] == map_at_r(ranking[None])


def test_has_positive():
    assert has_positive(["a", "b", "a", "c"]).tolist() == [True, False, True, False]
    assert has_positive(["a", "b"], ["c", "b"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0], [2.0]], [0, 1]), "no query has an image of its label"),
        (([[np.nan], [2.0]], [0, 0]), r"queries hold NaN or infinity in 1 of 2 rows \(first: 0\)"),
        (([[1.0], [2.0]], [0, 0, 0]), r"query labels have shape \(3,\)"),
        (([[1.0], [2.0]], [0.0, np.nan]), "query labels hold NaN"),
        (([[1.0], [2.0]], [0, 0], [[1.0]]), "come together"),
        (([[1.0], [2.0]], [0, 0], [[1.0, 2.0]], [0]), "queries have 1 dimensions, the gallery 2"),
        (([[1.0], [2.0]], [0, 0], [[1.0]], [0, 0]), r"gallery labels have shape \(2,\)"),
        (([[1.0], [2.0]], [0, 0], None, None, (0, 1)), "whole numbers from 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        scores_of(*arguments)
