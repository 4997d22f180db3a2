from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.models import orders

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))
SEEDS = st.lists(st.integers(0, 2**62), min_size=1, max_size=4).map(torch.tensor)


@given(GRIDS, SEEDS, st.sampled_from(orders.MODES))
def test_every_mode_is_a_permutation_for_each_seed(grid, seeds, mode):
    made = orders.make(mode, grid, seeds)
    assert made.shape == (len(seeds), grid[0] * grid[1])
    orders.validate(made, grid)
    assert (made.sort(-1).values == torch.arange(grid[0] * grid[1])).all()  # and not only by its own word


def test_orders_by_hand():
    assert orders.raster((2, 3)).tolist() == [0, 1, 2, 3, 4, 5]
    assert orders.reverse((2, 3)).tolist() == [5, 4, 3, 2, 1, 0]
    assert orders.columns((2, 3)).tolist() == [0, 3, 1, 4, 2, 5]
    assert orders.hierarchical((3, 4)).tolist() == [0, 2, 8, 10, 1, 3, 4, 5, 6, 7, 9, 11]
    # strides 4 (and the origin), then 2, then 1
    assert orders.hierarchical((1, 8)).tolist() == [0, 4, 2, 6, 1, 3, 5, 7]


@given(SEEDS)
def test_a_random_order_is_a_function_of_its_seed_alone(seeds):
    together = orders.random((3, 4), seeds)
    for seed, order in zip(seeds, together, strict=True):
        assert torch.equal(orders.random((3, 4), seed), order)
    assert torch.equal(orders.random((3, 4), seeds.view(-1, 1)), together.unsqueeze(1))


@pytest.mark.parametrize("make", [orders.random, lambda grid, seeds: orders.hierarchical(grid, seeds)[:, 1:] - 1])
def test_random_orders_are_uniform(make):
    """Chi-square over the 24 permutations of 4; its 99.9 % quantile with 23 degrees of freedom is 49.7."""
    made = make((1, 4), torch.arange(24_000)) if make is orders.random else make((2, 2), torch.arange(24_000))
    every = list(permutations(range(made.shape[1])))
    counts = torch.tensor([(made == torch.tensor(p)).all(1).sum() for p in every])
    expected = len(made) / len(every)
    assert ((counts - expected) ** 2 / expected).sum() < 49.7


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), SEEDS)
def test_hierarchical_starts_on_even_rows_and_columns(half, seeds):
    grid = (2 * half[0], 2 * half[1])
    quarter = half[0] * half[1]
    even = orders.raster(grid).view(grid)[::2, ::2].flatten()
    assert set(orders.hierarchical(grid)[:quarter].tolist()) == set(even.tolist())
    for order in orders.hierarchical(grid, seeds):
        assert set(order[:quarter].tolist()) == set(even.tolist())


@given(GRIDS, SEEDS, st.randoms(use_true_random=False))
def test_known_positions_come_first_and_nobody_overtakes(grid, seeds, rng):
    order = orders.random(grid, seeds)
    known = torch.tensor([[rng.random() < 0.4 for _ in row] for row in order])
    for was, now, is_known in zip(order, orders.known_first(order, known), known, strict=True):
        kept = [p for p in was.tolist() if is_known[p]], [p for p in was.tolist() if not is_known[p]]
        assert now.tolist() == kept[0] + kept[1]


def test_one_mask_serves_every_order():
    order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    known = torch.tensor([False, True, False, True])
    assert orders.known_first(order, known).tolist() == [[1, 3, 0, 2], [3, 1, 2, 0]]
    assert orders.known_first(order[0], torch.stack((known, ~known))).tolist() == [[1, 3, 0, 2], [0, 2, 1, 3]]


@given(GRIDS, SEEDS)
def test_gather_scatter_and_invert_undo_each_other(grid, seeds):
    order = orders.random(grid, seeds)
    places = torch.arange(order.shape[1]).expand_as(order)
    assert torch.equal(orders.gather(orders.invert(order), order), places)
    assert torch.equal(orders.gather(places, order), order)  # of raster positions, the order itself
    for x in (torch.rand(order.shape), torch.rand(*order.shape, 3)):
        assert torch.equal(orders.scatter(orders.gather(x, order), order), x)
        assert torch.equal(orders.gather(x, order)[0, -1], x[0, order[0, -1]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([0, 1, 2, 4], "entry 3 of order 0, 4, is outside 0..3"),
        ([-1, 1, 2, 3], "entry 0 of order 0, -1, is outside 0..3"),
        ([0, 1, 1, 0], "entry 2 of order 0, 1, occurs twice"),
        ([2, 2, 9, 9], "entry 1 of order 0, 2, occurs twice"),
        ([[0, 1, 2, 3], [3, 1, 3, 2]], "entry 2 of order 1, 3, occurs twice"),
        ([0, 1, 2], r"the grid 2 x 2 holds 4 int64 positions, got torch.int64 of shape \(3,\)"),
        (torch.arange(4.0), r"holds 4 int64 positions, got torch.float32 of shape \(4,\)"),
        (torch.tensor(0), r"of shape \(\)"),
    ],
)
def test_what_is_no_permutation_is_refused_by_its_first_wrong_entry(wrong, message):
    with pytest.raises(ValueError, match=message):
        orders.validate(torch.as_tensor(wrong), (2, 2))


def test_an_order_by_hand_is_checked():
    assert orders.explicit([1, 0, 2], (3, 1)).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="entry 1 of order 0, 1, occurs twice"):
        orders.explicit([1, 1, 2], (3, 1))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="unknown order mode 'spiral', expected one of raster, reversed"):
        orders.make("spiral", (2, 2), torch.zeros(1, dtype=torch.int64))
