import tracemalloc

import faiss
import numpy as np
import pytest
import torch
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
    """Number of queries that are searched again in float64."""
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
@pytest.mark.parametrize("copies", [1, 20])
def test_pieces_threads_and_the_library_do_not_change_a_bit(metric, self_search, copies, monkeypatch):
    bank = np.tile(normal(45, 7), (copies, 1)).astype(np.float32)
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
    bank = 1 + 1e-4 * normal(300, 8)
    if metric == "euclidean":
        bank[0] += 1e4  # the others lie close together, far from the mean
    queries = None if self_search else bank[50:80] + 1e-5 * normal(30, 8, seed=1)
    assert_equal(top_k(queries, bank, 3, metric), by_definition(queries, bank, 3, metric))
    assert doubted == [len(bank if queries is None else queries)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("self_search", [True, False])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_a_few_more_than_k_that_float32_cannot_tell_apart_are_ranked_among_the_candidates(
    metric, self_search, k, doubted, monkeypatch
):
    groups = np.repeat(normal(40, 16), 12, axis=0)
    bank = groups + 1e-4 * normal(480, 16, seed=1)
    queries = None if self_search else bank[::9] + 1e-4 * normal(54, 16, seed=2)
    rescored, widths = neighbors._rescored, []
    monkeypatch.setattr(
        neighbors,
        "_rescored",
        lambda space, x, bank, ids: widths.append((len(x), ids.shape[1])) or rescored(space, x, bank, ids),
    )
    assert_equal(top_k(queries, bank, k, metric), by_definition(queries, bank, k, metric))
    assert doubted == []
    count = len(bank if queries is None else queries)
    assert widths == [(count, k + 1), (count, 12 - (k + 1))]


@pytest.mark.parametrize(("device", "by"), [("cpu", "_by_faiss"), ("cuda:1", "_by_torch")])
def test_faiss_searches_on_a_cpu_and_torch_elsewhere(device, by, monkeypatch):
    asked = []

    def propose(space, x, bank, k, device):
        asked.append(device)
        return by_faiss(space, x, bank, k, "cpu")

    by_faiss = neighbors._by_faiss
    for name in ("_by_faiss", "_by_torch"):
        monkeypatch.setattr(neighbors, name, propose if name == by else None)
    top_k(normal(20, 4), normal(100, 4, seed=1), 3, device=device)
    assert asked == [device]


@pytest.mark.parametrize("metric", METRICS)
def test_a_device_of_low_precision_finds_the_same(metric, monkeypatch, doubted):
    bank, queries = normal(2000, 30), normal(100, 30, seed=1)
    expected = by_definition(queries, bank, 5, metric)

    def coarse(space, x, *rest):
        return neighbors._by_torch(space, torch.from_numpy(x).bfloat16().float().numpy(), *rest)

    monkeypatch.setattr(neighbors, "_by_faiss", coarse)
    monkeypatch.setattr(neighbors, "_SPARE", 1)
    assert_equal(top_k(queries, bank, 5, metric), expected)
    assert 0 < sum(doubted) < 100


@pytest.mark.parametrize("scale", [1e-80, 1e-30, 1e-18, 1.0, 1e15, 1e30, 1e80])
@pytest.mark.parametrize("metric", METRICS)
def test_any_scale(scale, metric):
    bank, queries = normal(150, 5) * scale, normal(20, 5, seed=1) * scale
    found, expected = top_k(queries, bank, 4, metric), by_definition(queries, bank, 4, metric)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_are_all_alike_and_zeros(metric):
    zeros = np.zeros((100, 3), np.float32)
    for bank in (zeros, zeros + 0.1, np.concatenate([zeros, zeros + 0.1])):
        assert_equal(top_k(bank[:4], bank, 5, metric), by_definition(bank[:4], bank, 5, metric))
        assert_equal(top_k(None, bank, 5, metric), by_definition(None, bank, 5, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_a_read_only_memory_map_of_half_precision_is_read_piece_by_piece(metric, tmp_path, monkeypatch):
    np.save(tmp_path / "bank.npy", normal(40_000, 50).astype(np.float16))
    bank = np.load(tmp_path / "bank.npy", mmap_mode="r")
    queries = bank[::5000]
    expected = by_definition(queries, bank, 10, metric)
    monkeypatch.setattr(neighbors, "_PIECE", 1 << 18)
    monkeypatch.setattr(neighbors, "_BLOCK", 1 << 15)
    tracemalloc.start()
    try:
        found = top_k(queries, bank, 10, metric)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_equal(found, expected)
    assert peak < 40_000 * 50 * 2 / 2  # half of the file


def test_no_queries():
    assert [part.shape for part in top_k(np.empty((0, 3)), normal(50, 3), 5)] == [(0, 5), (0, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((normal(1, 2), normal(3, 2), 0), "k=0: expected k >= 1"),
        ((normal(1, 2), normal(3, 2), 1, "dot"), "'dot' is unknown, expected one of cosine, euclidean"),
        ((None, normal(1, 2), 1), "the bank holds 1 images, none to find beside the query"),
        ((normal(1, 2), normal(3, 4), 1), "queries have 2 dimensions, the bank 4"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        top_k(*arguments)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("self_search", [True, False])
def test_pieces_that_float32_cannot_tell_apart(metric, self_search, monkeypatch):
    bank = 1 + 1e-4 * normal(300, 8)
    queries = None if self_search else bank[50:80] + 1e-5 * normal(30, 8, seed=1)
    monkeypatch.setattr(neighbors, "_PIECE", 40 * 8 * 8)
    assert_equal(top_k(queries, bank, 3, metric), by_definition(queries, bank, 3, metric))
