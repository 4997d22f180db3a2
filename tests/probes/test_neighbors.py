import tracemalloc

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from randfeat.probes import neighbors, top_k

METRICS = ["cosine", "euclidean"]


def by_definition(queries, bank, k, metric):
    """Similarities and rows by one subtraction or product per pair, sorted stably; None leaves each row out."""
    bank = np.asarray(bank, np.float64)
    x = bank if queries is None else np.asarray(queries, np.float64)
    if metric == "euclidean":
        all_of_them = -np.square(x[:, None] - bank).sum(2)
    else:
        x, bank = (a / np.where(a.any(1), np.linalg.norm(a, axis=1), 1)[:, None] for a in (x, bank))
        all_of_them = (x[:, None] * bank).sum(2)
    if queries is None:
        np.fill_diagonal(all_of_them, -np.inf)
    rows = np.argsort(-all_of_them, axis=1, kind="stable")[:, : min(k, len(bank) - (queries is None))]
    return np.take_along_axis(all_of_them, rows, axis=1), rows


def assert_equal(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12, atol=1e-12)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture
def doubted(monkeypatch):
    """How many queries are searched again in float64."""
    counts = []
    search = neighbors._search_in_double
    monkeypatch.setattr(
        neighbors, "_search_in_double", lambda space, x, *rest: counts.append(len(x)) or search(space, x, *rest)
    )
    return counts


@pytest.mark.parametrize("k", [1, 20, 200, 5000])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("self_search", [True, False])
def test_the_nearest_are_found(k, metric, self_search, doubted):
    bank, queries = normal(1000, 20), None if self_search else normal(100, 20, seed=1)
    assert_equal(top_k(queries, bank, k, metric), by_definition(queries, bank, k, metric))
    assert doubted == []


corners = arrays(np.float64, st.tuples(st.integers(2, 60), st.just(4)), elements=st.sampled_from([-1.0, 1.0]))


@given(corners, corners, st.integers(1, 40), st.sampled_from(METRICS), st.sampled_from(["e", "f", "d"]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_of_equally_near_rows_the_earlier_comes_first(queries, bank, k, metric, dtype, self_search):
    queries, bank = None if self_search else queries.astype(dtype), bank.astype(dtype)
    assert_equal(top_k(queries, bank, k, metric), by_definition(queries, bank, k, metric))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("self_search", [True, False])
@pytest.mark.parametrize("copies", [1, 40])
def test_pieces_threads_and_the_library_do_not_change_a_bit(metric, self_search, copies, monkeypatch):
    bank = np.tile(normal(200, 7), (copies, 1)).astype(np.float32)
    queries = None if self_search else normal(50, 7, seed=1)
    whole = top_k(queries, bank, 5, metric)

    def same():
        return all(np.array_equal(a, b) for a, b in zip(whole, top_k(queries, bank, 5, metric), strict=True))

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    assert same()
    faiss.omp_set_num_threads(threads)
    monkeypatch.setattr(neighbors, "_by_faiss", neighbors._by_torch)
    assert same()
    monkeypatch.setattr(neighbors, "_BLOCK", 5000)
    monkeypatch.setattr(neighbors, "_PIECE", len(bank) * 7)
    assert same()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("self_search", [True, False])
def test_what_float32_cannot_tell_apart_is_searched_in_float64(metric, self_search, doubted):
    bank = 1 + 1e-6 * normal(300, 8)
    if metric == "euclidean":
        bank[0] += 1e3  # so that the others lie close together far from the mean
    queries = None if self_search else bank[50:80] + 1e-7 * normal(30, 8, seed=1)
    found, expected = top_k(queries, bank, 3, metric), by_definition(queries, bank, 3, metric)
    np.testing.assert_array_equal(found[0].round(14), expected[0].round(14)) if metric == "cosine" else None
    np.testing.assert_array_equal(found[1], expected[1]) if metric == "euclidean" else None
    assert doubted
