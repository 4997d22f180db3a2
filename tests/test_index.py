import numpy as np
import pytest

from randfeat import Index


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 5))


NAMES = [f"folder/{i}.png" for i in range(40)]


@pytest.mark.parametrize("k", [1, 7, 40, 99])
def test_search_is_exact_cosine(k):
    bank, queries = rows(40), rows(6, seed=1)
    cosine = queries @ bank.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(bank, axis=1)
    for matches, row in zip(Index(bank, NAMES).search(queries, k), cosine, strict=True):
        nearest = np.argsort(-row)[:k]
        assert [match.path for match in matches] == [NAMES[i] for i in nearest]
        np.testing.assert_allclose([match.score for match in matches], row[nearest], atol=1e-6)


def test_length_does_not_matter_and_nothing_is_changed():
    bank, query = rows(10), rows(1)
    before = bank.copy(), query.copy()
    index = Index(bank, NAMES[:10])
    assert len(index) == 10
    (best, *_), (scaled, *_) = index.search(np.concatenate((query, 1000 * query)))
    assert best.path == scaled.path == NAMES[0]
    assert best.score == pytest.approx(1)
    assert (bank == before[0]).all()
    assert (query == before[1]).all()


def test_an_index_survives_a_restart(tmp_path):
    index = Index(rows(10), NAMES[:10])
    for _ in range(2):  # the second time over the first
        index.save(tmp_path / "new" / "index")
        again = Index.open(tmp_path / "new" / "index")
        assert len(again) == len(index)
        assert again.search(rows(3, seed=1), 4) == index.search(rows(3, seed=1), 4)


def broken(value):
    features = rows(4)
    features[2, 1] = value
    return features


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Index(broken(np.nan), NAMES[:4]), r"row 2 has a value that is not finite"),
        (lambda: Index(broken(np.inf), NAMES[:4]), "not finite"),
        (lambda: Index(rows(4), NAMES[:3]), "4 features for 3 names"),
        (lambda: Index(rows(4)[0], NAMES[:4]), r"two dimensions, \(n, F\), got shape \(5,\)"),
        (lambda: Index(rows(4), NAMES[:4]).search(broken(np.nan)), "not finite"),
        (lambda: Index(rows(4), NAMES[:4]).search(rows(2)[:, :3]), "features of 5 numbers, the query has 3"),
        (lambda: Index(rows(4), NAMES[:4]).search(rows(2), 0), "k must be a whole number from 1, got 0"),
    ],
)
def test_wrong_features_and_queries_are_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no index"):
        Index.open(tmp_path)
