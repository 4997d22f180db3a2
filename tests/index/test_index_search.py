"""Searches of an index: exact or nearly, filtered, within a distance, and near-duplicates."""

from __future__ import annotations

import glob
from itertools import pairwise

import numpy as np
import pytest
from indexing import EVERY, LABELS, NAMES, build, clustered, nearest, rows

from randfeat import Index
from randfeat.index import Filter

pytestmark = pytest.mark.usefixtures("codes_of_few")


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("k", [1, 7, 40, 99])
def test_flat_search_is_exact(k, metric):
    bank, queries = rows(40), rows(6, seed=1)
    found = Index(bank, NAMES, LABELS, metric=metric).search(queries, k)
    for matches, query in zip(found, queries, strict=True):
        order, scores = nearest(bank, query, k, metric)
        assert [match.path for match in matches] == [NAMES[row] for row in order]
        assert [match.id for match in matches] == order.tolist()
        assert [match.label for match in matches] == [None if row % 4 == 2 else str(LABELS[row]) for row in order]
        np.testing.assert_allclose([match.score for match in matches], scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("kind", EVERY)
def test_the_other_kinds_find_nearly_all(tmp_path, kind, metric):
    bank, queries = clustered(3000), clustered(50, seed=1)
    index = build(tmp_path / "index", kind, bank, metric=metric)
    assert index.index_type == ("ivf" if kind == "codes" else kind)
    hit = 0
    for matches, query in zip(index.search(queries, 10), queries, strict=True):
        order, _ = nearest(bank, query, 10, metric)
        hit += len({match.id for match in matches} & set(order.tolist()))
        by_hand = nearest(bank[[match.id for match in matches]], query, 10, metric)[1]
        np.testing.assert_allclose([match.score for match in matches], by_hand, rtol=1e-4, atol=1e-5)
    assert hit > (499 if kind == "flat" else 450)


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


@pytest.mark.parametrize("kind", EVERY)
def test_as_many_as_there_are_and_never_minus_one(tmp_path, kind):
    """However many are asked for, removed, or left by a filter that hits where the search does not look."""
    bank = clustered(3000)
    index = build(tmp_path / "index", kind, bank, [row % 500 for row in range(3000)])
    for k in (1, 100, 2999, 3000, 5000):
        found = index.search(bank[:5], k)
        assert [len({match.id for match in one}) for one in found] == [min(k, 3000)] * 5
        assert all(0 <= match.id < 3000 and match.path == str(match.id) for one in found for match in one)
        assert all(a.score >= b.score for one in found for a, b in pairwise(one))
    few = index.search(bank[:5], 10, Filter(labels=499))
    assert [{match.id for match in one} for one in few] == [{499 + 500 * i for i in range(6)}] * 5
    half = index.search(bank[:5], 2000, Filter(labels=range(250)))
    assert [len(one) for one in half] == [1500] * 5
    index.remove(range(1, 3000))
    assert [[match.id for match in one] for one in index.search(bank[:5], 10)] == [[0]] * 5
    index.remove([0])
    assert index.search(bank[:5], 10) == [[]] * 5
    assert index.near_duplicates() == []
    assert index.within(bank[:2], 0.5) == [[], []]
    assert len(Index.open(tmp_path / "index")) == 0
    assert Index.open(tmp_path / "index").add(bank[:2], ["a", "b"]) == [3000, 3001]


def test_an_nprobe_of_ones_own(tmp_path):
    bank = clustered(3000)
    index = build(tmp_path / "index", "ivf", bank)
    least, most = (index.search(bank[:200], 10, nprobe=nprobe) for nprobe in (1, 10**6))
    exact = Index(bank, range(3000)).search(bank[:200], 10)
    assert [[match.id for match in one] for one in most] == [[match.id for match in one] for one in exact]
    assert least != most


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (Filter(), range(40)),
        (Filter(labels="cat"), range(0, 40, 4)),
        (Filter(labels=["cat", 7]), sorted([*range(0, 40, 4), *range(3, 40, 4)])),
        (Filter(labels=["fox"]), []),
        (Filter(paths="*/1?.png"), range(10, 20)),
        (Filter(paths=["1.png", "[23].png"]), [1, 2, 3]),
        (Filter(paths="[!1-3]?.png"), []),
        (Filter(paths="folder/3*"), [3, *range(30, 40)]),
        (Filter(paths="/folder/3*"), []),
        (Filter(paths="older/3*"), []),
        (Filter(paths="FOLDER/*"), []),
        (Filter("dog", "*/1*.png"), [1, 13, 17]),
    ],
)
def test_filters(where, wanted):
    bank = rows(40)
    index = Index(bank, NAMES, LABELS)
    assert index.ids(where) == list(wanted)
    for query, matches in zip(rows(3, 1), index.search(rows(3, 1), 15, where), strict=True):
        order = [row for row in nearest(bank, query, 40)[0].tolist() if row in set(wanted)]
        assert [match.id for match in matches] == order[:15]
    index.remove([id_ for id_ in wanted if id_ % 2])
    assert index.ids(where) == [id_ for id_ in wanted if not id_ % 2]


def test_patterns_take_signs_as_they_are():
    names = ["a.b", "axb", "a+b", "[x]", "x", "line\nbreak", "ü", "a\\b", "a b-#~&{}()$^|\t", "a[", "]"]
    index = Index(rows(11), names)
    found = {
        "a.b": [0],
        "a+b": [2],
        "[[]x]": [3],
        "line*": [5],
        "?": [4, 6, 10],
        "[]]": [10],
        "[!x-z]": [6, 10],
        "a[": [9],
    }
    for pattern, ids in (found | {name: [id_] for id_, name in enumerate(names) if name != "[x]"}).items():
        assert index.ids(Filter(paths=pattern)) == ids, pattern
    for id_, name in enumerate(names):
        assert index.ids(Filter(paths=glob.escape(name))) == [id_]


def test_the_same_again_in_batches_of_any_size(tmp_path):
    bank = clustered(2000)
    for kind in EVERY:
        index = build(tmp_path / kind, kind, bank)
        index.remove([3, 4])
        whole = index.search(bank[:60], 5)
        single = [index.search(bank[row : row + 1], 5)[0] for row in range(60)]
        for one, other in zip(whole, single, strict=True):
            assert [match.id for match in one] == [match.id for match in other]
            np.testing.assert_allclose([match.score for match in one], [match.score for match in other], atol=1e-6)
    assert index.search(np.empty((0, 16))) == []


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_within(tmp_path, kind, metric):
    bank, queries = clustered(1500), clustered(20, seed=3)
    index, threshold = build(tmp_path / "index", kind, bank, metric=metric), 0.9 if metric == "cosine" else 1.2
    found = 0
    for matches, query in zip(index.within(queries, threshold), queries, strict=True):
        order, scores = nearest(bank, query, 1500, metric)
        wanted = order[scores <= threshold if metric == "l2" else scores >= threshold]
        assert {match.id for match in matches} <= set(wanted.tolist())
        assert kind != "flat" or [match.id for match in matches] == wanted.tolist()
        found += len(matches) / len(wanted) / 20 if len(wanted) else 1 / 20
    assert found > 0.9


def test_within_finds_more_than_it_first_asks_for():
    bank = np.repeat(rows(2), 300, axis=0)
    found = Index(bank, range(600)).within(rows(2), 0.9999)
    assert [sorted(match.id for match in one) for one in found] == [[*range(300)], [*range(300, 600)]]


@pytest.mark.parametrize(
    ("metric", "wrong", "right", "kind"),
    [
        ("cosine", (7, 1.001, -1, float("nan"), "0.9", None), (1, -0.999), r"a cosine above -1 and up to 1"),
        ("l2", (-0.1, float("inf")), (0, 7), "a distance from 0"),
        ("dot", (float("-inf"), float("nan")), (-7, 7), "a number"),
    ],
)
def test_a_threshold_is_a_score_that_rows_can_have(metric, wrong, right, kind):
    index = Index(rows(6), range(6), metric=metric)
    for threshold in wrong:
        for search in (index.near_duplicates, lambda value: index.within(rows(2), value)):
            with pytest.raises(ValueError, match=f"the threshold must be {kind}, got {threshold}"):
                search(threshold)
    for threshold in right:
        index.near_duplicates(threshold)
        index.within(rows(2), threshold)


@pytest.mark.parametrize("kind", EVERY)
def test_near_duplicates(tmp_path, kind):
    """Chains are one group, and what is removed or left out by the filter is none."""
    angles = np.r_[0, 0.1, 0.2, 0.3, 1.5, 1.52, 3, np.linspace(3.5, 6.2, 1500)[::500]]
    far = np.pad(np.stack((np.cos(angles), np.sin(angles)), 1), ((0, 0), (0, 6)))
    bank = np.concatenate((far, np.pad(rows(1200, 5, 6), ((0, 0), (2, 0)))))
    index = build(tmp_path / "index", kind, bank, [min(row, 10) for row in range(len(bank))])
    groups = index.near_duplicates(0.99, Filter(labels=range(10)))
    assert [sorted(match.id for match in group) for group in groups] == [[0, 1, 2, 3], [4, 5]]
    assert [match.score for match in groups[0]] == pytest.approx([np.cos(0.1)] * 4, abs=1e-5)
    assert [match.path for match in groups[1]] == ["4", "5"]
    index.remove([1])
    index.add(far[4:5], ["again"])
    groups = index.near_duplicates(0.99, Filter(labels=["4", "5", "0", "2", "3"]))
    assert [sorted(match.id for match in group) for group in groups] == [[2, 3], [4, 5]]
    assert sorted(match.path for match in index.near_duplicates(0.9999)[0]) == ["4", "again"]
    apart = Index(far, range(len(far)), metric="l2").near_duplicates(0.1)
    assert [sorted(match.id for match in group) for group in apart] == [[0, 1, 2, 3], [4, 5]]
