import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from material import data
from randfeat.pretrain import Batches, TrainingConfig, as_labels
from randfeat.pretrain.data import Share, shuffle, take

from randfeat.models import orders

CONFIG = TrainingConfig(steps=9, batch_size=8)  # three epochs of 8, 8 and 4


def batches(config=CONFIG, tokens=None, labels=None, model="arpg", share=None, grid=(2, 3)):
    return Batches(data()[0] if tokens is None else tokens, labels, tiny.model(model, grid), config, share)


def shown(config, *shares):
    """(epoch, row) -> (label, order), and the rows of each step, of all processes together."""
    (tokens, labels), seen, steps = data(), {}, []
    sources = [batches(config, tokens, labels, share=share) for share in shares or [Share()]]
    for step in range(config.steps):
        numbers = []
        for source in sources:
            for batch in source.at(step):
                if not batch.weight:
                    continue
                for row, label, order in zip(batch.tokens, batch.labels.tolist(), batch.order.tolist(), strict=True):
                    numbers.append(int((tokens == row).all(1).nonzero()))
                    seen[step // source.steps_per_epoch, numbers[-1]] = label, order
        steps.append(sorted(numbers))
    return seen, steps


def test_an_epoch_shows_every_image_once():
    _, steps = shown(CONFIG)
    epochs = [[row for step in steps[i : i + 3] for row in step] for i in (0, 3, 6)]
    assert [len(step) for step in steps] == [8, 8, 4] * 3
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_image_is_shown_as_a_function_of_seed_epoch_and_row():
    config = replace(CONFIG, label_dropout=0.3)
    seen, _ = shown(config)
    assert shown(replace(config, batch_size=5, steps=12))[0] == seen  # whatever the batch
    other, _ = shown(replace(config, seed=1))
    assert all(other[key][1] != seen[key][1] for key in seen if seen[key][1] != sorted(seen[key][1]))
    assert len({tuple(seen[epoch, 3][1]) for epoch in range(3)}) == 3  # a fresh order in every epoch
    for (_, row), (label, order) in seen.items():
        assert sorted(order) == list(range(6))
        assert label in (row % 3, 3)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [0, 1, 3, 8])
def test_any_number_of_processes_shows_the_same(world, size):
    assert shown(CONFIG, *(Share(size, rank, world) for rank in range(world))) == shown(CONFIG)


@given(st.integers(1, 40), st.integers(0, 12), st.integers(1, 7))
def test_every_process_has_as_many_pieces_and_every_image_counts_once(images, size, world):
    parts = [Share(size, rank, world).of(torch.arange(images)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    counted = [int(row) for part in parts for _, weight, rows in part for row in rows if weight]
    assert sorted(counted) == list(range(images))
    pieces = {number: rows.tolist() for part in parts for number, _, rows in part}
    if size:  # who computes a piece does not change it
        assert pieces == {i: rows.tolist() for i, rows in enumerate(torch.arange(images).split(size))}


def test_the_next_step_is_made_ahead_and_is_the_same():
    source = batches()
    ahead = [[batch.tokens.tolist() for batch in step] for step in source.ahead(4)]
    assert ahead == [[batch.tokens.tolist() for batch in source.at(step)] for step in range(4, 9)]
    assert list(source.ahead(9)) == []


def test_threads_that_ask_for_other_epochs_do_not_mix_them_up():
    source, expected = batches(), [batches().rows(step).tolist() for step in range(9)]
    with ThreadPoolExecutor(4) as pool:
        asked = list(range(9)) * 200
        found = list(pool.map(lambda step: source.rows(step).tolist(), asked))
    assert found == [expected[step] for step in asked]
    assert [source.images(step) for step in range(9)] == [len(rows) for rows in expected]


def test_a_shuffle_of_many_is_a_permutation():
    assert torch.equal(shuffle(0, 1, 10000).sort()[0], torch.arange(10000, dtype=torch.int32))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_labels_is_dropped(share):
    tokens, labels = data(4000)
    shown = batches(TrainingConfig(label_dropout=share), tokens, labels).show(0, torch.arange(4000)).labels
    dropped = shown == 3
    assert abs(dropped.double().mean() - share) <= 4 * math.sqrt(share * (1 - share) / 4000)
    assert torch.equal(shown[~dropped], labels[~dropped])


def test_without_labels_the_null_class_is_all_that_is_seen():
    assert (batches().at(0)[0].labels == 3).all()
    assert as_labels([1, None, 0], 3).tolist() == [1, 3, 0]
    assert as_labels(None, 3) is None


def test_another_order_mode_is_every_image_s():
    batch = batches(TrainingConfig(order="columns")).show(0, torch.tensor([3, 1]))
    assert batch.order.tolist() == [orders.columns((2, 3)).tolist()] * 2
    assert torch.equal(batch.tokens, data()[0][[3, 1]])


def test_crops_are_shown_in_a_share_that_falls_to_none_and_one_crop_is_as_none():
    rows = torch.arange(2000)
    crops = torch.stack([torch.full((2000, 4), crop) for crop in range(3)], 1)  # every token tells its crop
    config = TrainingConfig(other_crops=0.4, steps=100, batch_size=200)  # ten epochs
    source = batches(config, crops, model="randar", grid=(2, 2))
    first, halfway = (source.show(epoch, rows).tokens[:, 0] for epoch in (0, 5))
    shares = torch.bincount(first, minlength=3) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.2, 0.2]), atol=0.03, rtol=0)
    assert (halfway > 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not source.show(10, rows).tokens.any()
    assert not torch.equal(first, source.show(1, rows).tokens[:, 0])
    plain, one = (batches(config, x, model="randar", grid=(2, 2)) for x in (crops[:, 1], crops[:, 1:2]))
    assert torch.equal(plain.show(0, rows).tokens, one.show(0, rows).tokens)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_rows_of_a_mapped_file_come_in_the_sequence_asked_for(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 1000, (50, 3, 6)).astype(dtype)
    np.save(tmp_path / "tokens.npy", array)
    mapped, rows = np.load(tmp_path / "tokens.npy", mmap_mode="r"), torch.tensor([40, 3, 3, 17])
    expected = torch.from_numpy(array.astype(np.int64))
    crop = torch.tensor([2, 0, 1, 2])
    assert torch.equal(take(mapped, rows, crop), expected[rows, crop])
    assert torch.equal(take(mapped[:, 0], rows), expected[rows, 0])
    assert torch.equal(take(expected, rows, crop), expected[rows, crop])
