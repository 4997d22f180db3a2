"""Cleaning of data by an index: copies among images that are merely alike, and rows that differ most."""

from __future__ import annotations

import numpy as np
import pytest
from indexing import clustered, rows

from randfeat import Index
from randfeat.index import Filter, diverse, duplicates
from randfeat.index.query import labels_like


def with_copies(noise, count=200, dim=24, seed=0):
    """Rows, and behind them 26 copies of some with noise of this length."""
    rng = np.random.default_rng(seed)
    bank = clustered(count, dim, seed)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    drawn = rng.normal(size=(26, dim))
    drawn *= noise / np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.concatenate((bank, bank[:26] + drawn)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("noise", [0, 1e-3, 1e-2])
def test_the_threshold_lies_between_copies_and_what_is_merely_alike(metric, noise):
    bank = with_copies(noise)
    index = Index(bank, [str(row) for row in range(len(bank))], metric=metric)
    found = duplicates.suggest_threshold(index)
    assert (found.copies, found.clear) == (52, True)
    groups = index.near_duplicates(found.value)
    assert sorted(sorted(int(match.path) for match in group) for group in groups) == [[i, 200 + i] for i in range(26)]
    assert str(found).startswith("52 rows have another one at ")


@pytest.mark.parametrize("seed", range(5))
def test_without_copies_there_is_no_group(seed):
    bank = clustered(300, 24, seed)
    index = Index(bank, [str(row) for row in range(300)])
    found = duplicates.suggest_threshold(index)
    assert (found.copies, found.clear) == (0, False)
    assert index.near_duplicates(found.value) == []
    assert str(found).startswith("no two rows are copies of each other (the nearest pair has 0.9")


def test_nearest_scores_are_those_of_another_row():
    bank = rows(30)
    bank[7] = bank[3]
    bank[9] = bank[3]  # three of the same, of which a search for two may not find the row itself
    index = Index(bank, [str(row) for row in range(30)])
    index.remove([5])
    unit = np.delete(bank, 5, 0)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    expected = unit @ unit.T
    np.fill_diagonal(expected, -2)
    np.testing.assert_allclose(duplicates.nearest_scores(index), expected.max(1), atol=1e-5)


def test_no_threshold_without_a_scale_or_without_rows():
    with pytest.raises(ValueError, match="scores of the metric dot have no scale"):
        duplicates.suggest_threshold(Index(rows(5), list("abcde"), metric="dot"))
    with pytest.raises(ValueError, match="has no two rows to compare"):
        duplicates.suggest_threshold(Index(rows(1), ["a"]))


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_the_farthest_rows_are_those_of_a_plain_search(metric):
    bank = rows(40)
    bank[11] = bank[12]
    index = Index(bank, [str(row) for row in range(40)], metric=metric)
    vectors = index.vectors(range(40)).astype(np.float64)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    chosen = [int(np.linalg.norm(vectors - vectors.mean(0), axis=1).argmin())]
    while len(chosen) < 12:
        chosen.append(int(distances[chosen].min(0).argmax()))
    found, radius = diverse.farthest(index, 12)
    assert [match.id for match in found] == chosen
    worst = distances[chosen].min(0).max()
    assert radius == pytest.approx(1 - worst**2 / 2 if metric == "cosine" else worst, abs=1e-4)
    assert np.isnan(found[0].score)
    everything, none_left = diverse.farthest(index, 99)
    assert sorted(match.id for match in everything) == [*range(40)]
    assert none_left == pytest.approx(1 if metric == "cosine" else 0, abs=1e-3)


def test_the_farthest_rows_of_some():
    index = Index(rows(20), [f"{row}.png" for row in range(20)], ["cat", "dog"] * 10)
    found, _ = diverse.farthest(index, 5, Filter("dog"))
    assert {match.label for match in found} == {"dog"}
    assert len({match.id for match in found}) == 5
    with pytest.raises(ValueError, match="has no row to choose from"):
        diverse.farthest(index, 5, Filter("fox"))
    with pytest.raises(ValueError, match="count must be a whole number from 1, got 0"):
        diverse.farthest(index, 0)


def test_labels_in_any_case_and_with_a_suggestion():
    known = ["Cat", "T-shirt/top", "cat", "dog"]
    assert labels_like(["cat"], known, "i") == ["cat"]
    assert labels_like(["CAT", "Dog"], known, "i") == ["Cat", "cat", "dog"]
    assert labels_like([], known, "i") == []
    with pytest.raises(ValueError, match=r"i has no row of the label t-shirt: did you mean T-shirt/top\?"):
        labels_like(["t-shirt"], known, "i")
    with pytest.raises(ValueError, match="i has no row of the label fox: it has Cat, T-shirt/top, cat, dog"):
        labels_like(["fox"], known, "i")
    with pytest.raises(ValueError, match="i has no row of the label fox: it has none"):
        labels_like(["fox"], [], "i")
