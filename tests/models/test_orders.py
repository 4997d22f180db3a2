import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.models import orders
from randfeat.models.locality import Draws, decoding_order

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


# spread over the image, and beside what is decoded ----------------------------------------------------------


def test_halton_takes_the_cells_of_its_sequence_in_turn():
    # (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), (5/8, 7/9), ... times two rows and three columns
    assert orders.halton((2, 3)).tolist() == [4, 2, 3, 1, 5, 0]
    order = orders.halton((16, 16))
    quarters = (order[:64] // 16 // 8 * 2 + order[:64] % 16 // 8).bincount()
    assert quarters.tolist() == [17, 15, 17, 15]  # about as many in each from the beginning


@given(SEEDS, st.sampled_from([(3, 4), (4, 4), (1, 7)]), st.data())
def test_a_locality_aware_order_is_a_function_of_its_seed_alone(seeds, grid, data):
    count = grid[0] * grid[1]
    first = data.draw(st.integers(1, count))
    sizes = [first, *([count - first] if count > first else [])]
    together = orders.locality(grid, seeds, sizes)
    for seed, order in zip(seeds, together, strict=True):
        assert torch.equal(orders.locality(grid, seed[None], sizes)[0], order)


def apart(order, side):
    """The larger of the differences of rows and of columns, for each pair of an order."""
    places = torch.stack((order // side, order % side), -1)
    return (places[:, None] - places).abs().amax(-1)


@pytest.mark.parametrize("repulsion", [1, 2, 3])
def test_tokens_of_a_group_lie_beside_decoded_ones_and_apart_from_each_other(repulsion):
    """In an image that is half decoded, in stripes: there is room beside them."""
    known = (torch.arange(256) // 16 % 8 == 0).expand(5, -1)
    order = orders.locality((16, 16), torch.arange(5), [3, 3, 218], (1.0, repulsion), known)
    for one in order:
        for first in (32, 35):
            group, before = one[first : first + 3], one[:first]
            rows, columns = (group[:, None] // 16 - before // 16).abs(), (group[:, None] % 16 - before % 16).abs()
            assert ((rows + columns) == 1).any(1).all()
            assert (apart(group, 16) + 99 * torch.eye(3)).amin() > repulsion


def test_known_positions_are_the_first_neighbours():
    known = torch.zeros(3, 64, dtype=torch.bool)
    known[:, [9, 10, 17]] = True
    made = orders.locality((8, 8), torch.arange(3), [1, 1, 59], known=known)
    assert made[:, :3].tolist() == [[9, 10, 17]] * 3
    assert (made.sort(-1).values == torch.arange(64)).all()
    assert (made[:, 3] == 18).all()  # two of the known ones are orthogonal neighbours of it, one diagonal
    nothing = orders.locality((8, 8), torch.arange(3), [1, 63], known=known & False)
    assert torch.equal(nothing, orders.locality((8, 8), torch.arange(3), [1, 63]))


def test_all_known_leaves_nothing_to_order():
    known = torch.ones(2, 6, dtype=torch.bool)
    assert orders.locality((2, 3), torch.arange(2), [], known=known).tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_the_first_token_is_uniform():
    first = orders.locality((2, 2), torch.arange(4000), [1, 3])[:, 0].bincount(minlength=4)
    assert ((first - 1000) ** 2 / 1000).sum() < 16.3  # the 99.9 % quantile of chi-square with 3 degrees of freedom


def spelled_out(grid, sizes, first, ranks, index, proximity, repulsion):
    """The locality-aware order of one image, step by step as the paper's code describes it."""
    free, order = list(range(grid[0] * grid[1])), []

    def apart_by(a, b):
        return abs(a // grid[1] - b // grid[1]), abs(a % grid[1] - b % grid[1])

    for step, size in enumerate(sizes):
        chosen, refused = [], []
        score = {
            p: sum(max(map(abs, apart_by(p, q))) == 1 and 1 / math.hypot(*apart_by(p, q)) for q in order) for p in free
        }
        candidates = sorted(free, key=lambda p: (-score[p], ranks[step][p]))
        if not order:
            chosen = [first]
        for p in candidates if order else []:
            if score[p] < proximity or len(chosen) == size:
                continue
            (refused if any(max(apart_by(p, q)) <= repulsion for q in chosen) else chosen).append(p)
        pool = [p for p in candidates if p not in chosen and p not in refused] + refused
        while len(chosen) < size:
            if len(pool) <= size - len(chosen):
                chosen += pool
            elif not chosen:
                chosen.append(pool[index(step, len(pool))])
            else:
                chosen.append(max(pool, key=lambda p: min(math.hypot(*apart_by(p, q)) for q in chosen)))
            pool = [p for p in pool if p not in chosen]
        order += chosen
        free = [p for p in free if p not in chosen]
    return order


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(0, 2**40),
    st.sampled_from([0.5, 1.0, 1.5, 3.0]),
    st.sampled_from([0, 1, 2, 3]),
    st.data(),
)
def test_the_locality_aware_order_is_the_one_spelled_out(grid, seed, proximity, repulsion, data):
    count, sizes = grid[0] * grid[1], []
    while sum(sizes) < count:
        sizes.append(data.draw(st.integers(1, count - sum(sizes))))
    draws = Draws.of(torch.tensor([seed]), count)

    def index(step, size):
        return int(draws.index(step, torch.tensor([size])))

    ranks = [draws.ranks(step)[0].tolist() for step in range(len(sizes))]
    expected = spelled_out(grid, sizes, int(draws.first), ranks, index, proximity, repulsion)
    assert decoding_order(grid, sizes, draws, proximity, repulsion)[0].tolist() == expected


def test_positions_are_integers_of_any_type():
    for kind in (torch.uint8, torch.int32, torch.int64):
        made = orders.explicit(torch.tensor([1, 0, 2], dtype=kind), (3, 1))
        assert (made.dtype, made.tolist()) == (torch.int64, [1, 0, 2])
    for wrong, message in (
        (["a", "b"], r"an order is a list of raster positions, got \['a', 'b'\]"),
        ([0.0, 1.0], r"the grid 2 x 1 holds 2 int64 positions, got torch.float32 of shape \(2,\)"),
        ([True, False], r"holds 2 int64 positions, got torch.bool of shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            orders.explicit(wrong, (2, 1))


def test_the_beginning_of_an_order_is_checked_alike():
    for part in ([2], [3, 0], [0, 1, 2, 3]):
        orders.validate(torch.tensor(part), (2, 2), cut=True)
    with pytest.raises(ValueError, match=r"holds at most 4 int64 positions, got torch.int64 of shape \(0,\)"):
        orders.validate(torch.tensor([], dtype=torch.int64), (2, 2), cut=True)
    with pytest.raises(ValueError, match=r"holds at most 4 int64 positions, got torch.int64 of shape \(5,\)"):
        orders.validate(torch.arange(5), (2, 2), cut=True)


def test_known_positions_come_first_for_several_orders_of_an_image():
    order = torch.tensor([[[0, 1, 2], [2, 1, 0]], [[1, 0, 2], [2, 0, 1]]])
    known = torch.tensor([[False, False, True], [True, False, False]])[:, None]
    assert orders.known_first(order, known).tolist() == [[[2, 0, 1], [2, 1, 0]], [[0, 1, 2], [0, 2, 1]]]


def test_a_locality_aware_order_begins_with_what_is_known():
    known = torch.tensor([[False, True, False, False, True, False]]).expand(3, -1)
    made = orders.make("locality", (2, 3), torch.arange(3), [2, 2], known=known)
    assert made[:, :2].tolist() == [[1, 4]] * 3
    assert torch.equal(made, orders.locality((2, 3), torch.arange(3), [2, 2], known=known))
    wide = orders.make("locality", (4, 4), torch.arange(20), [8, 8], (1.0, 4.0))
    assert not torch.equal(wide, orders.make("locality", (4, 4), torch.arange(20), [8, 8]))


@pytest.mark.parametrize("wrong", [7, (2,), (2, 3, 1), (0, 3), (2, 1.5), (True, 2), "23"])
def test_what_is_no_grid_is_refused(wrong):
    orders.check_grid([1, 1])
    with pytest.raises(ValueError, match="grid must be rows and columns, two whole numbers from 1, got"):
        orders.check_grid(wrong)
