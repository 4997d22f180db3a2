import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st
from randfeat.probes import KNN, deal_rows, merge_scores

ROWS = 101  # neither 2 nor 3 nor 7 divides it


@given(st.integers(0, 300), st.integers(1, 40))
def test_each_row_goes_to_one_process_and_all_have_nearly_as_many(rows, world):
    shares = [deal_rows(rows, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(shares)) == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def knn_and_queries():
    rng = np.random.default_rng(0)
    y, truth = rng.integers(5, size=80), rng.integers(5, size=ROWS)
    centres = rng.normal(size=(5, 8))
    bank, queries = centres[y] + rng.normal(size=(80, 8)), centres[truth] + rng.normal(size=(ROWS, 8))
    return KNN(5).fit(bank, y), queries, truth


def share_of(rank, world):
    model, queries, truth = knn_and_queries()
    rows = deal_rows(ROWS, rank, world)
    return rows, model.predict(queries[rows]) == truth[rows]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_a_world_that_does_not_divide_scores_every_image_once(world):
    model, queries, truth = knn_and_queries()
    alone = model.predict(queries) == truth
    assert 0.3 < alone.mean() < 1
    merged = merge_scores(ROWS, [share_of(rank, world) for rank in reversed(range(world))])
    assert merged.dtype == bool
    assert (merged == alone).all()


def in_a_process(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    shares = [None] * world
    rows, right = share_of(rank, world)
    dist.all_gather_object(shares, (rows, right))
    np.savez(f"{folder}/{rank}.npz", merged=merge_scores(ROWS, shares), own=rows)
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_score_every_image_once_and_all_have_every_score(world, tmp_path):
    assert ROWS % world
    torch.multiprocessing.spawn(in_a_process, (world, tmp_path), nprocs=world)
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(world)]
    assert sorted(np.concatenate([one["own"] for one in found])) == list(range(ROWS))
    model, queries, truth = knn_and_queries()
    for one in found:
        assert (one["merged"] == (model.predict(queries) == truth)).all()


def test_fewer_images_than_processes():
    shares = [(rows := deal_rows(3, rank, 7), np.ones((len(rows), 2), dtype=bool)) for rank in range(7)]
    assert merge_scores(3, shares).shape == (3, 2)
    assert merge_scores(3, [([], []), ([2, 0, 1], ["c", "a", "b"])]).tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([([0, 1], [1, 1]), ([1, 3], [1, 1])], "each of 4 rows to be scored once, got row 1 2 times, row 2 0 times"),
        ([(range(5), range(5))], "each of 4 rows to be scored once, got row 4 1 times"),
        ([([0, 1], [1])], "1 scores for 2 rows"),
        ([([], [])], "no share holds a score"),
    ],
)
def test_bad_shares(shares, message):
    with pytest.raises(ValueError, match=message):
        merge_scores(4, shares)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_bad_ranks(rank, world):
    with pytest.raises(ValueError, match="a rank below world"):
        deal_rows(5, rank, world)
