import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.utils import rng

INT64 = st.integers(-(2**63), 2**63 - 1)


def splitmix64(state, count):
    """Steele, Lea and Flood's generator on Python's own integers."""
    for i in range(1, count + 1):
        z = (state + i * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def finish(z):
    """The mixing function by itself: one step of a generator that stands one increment before z."""
    return next(splitmix64((z - 0x9E3779B97F4A7C15) % 2**64, 1))


@given(INT64)
def test_bits_are_those_of_splitmix64(seed):
    expected = list(splitmix64(finish(seed % 2**64), 5))
    assert [int(x) % 2**64 for x in rng.bits(torch.tensor(seed), 5)] == expected


@given(st.lists(INT64, min_size=1, max_size=6, unique=True))
def test_a_seed_draws_the_same_in_any_company(seeds):
    together = rng.uniform(torch.tensor(seeds), 9)
    for i, seed in enumerate(seeds):
        assert torch.equal(together[i], rng.uniform(torch.tensor(seed), 9))
        assert torch.equal(together[i, :4], rng.uniform(torch.tensor(seed), 4))


def test_uniform_is_uniform():
    values = rng.uniform(torch.arange(1000), 1000)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() <= 1 - 2**-22
    for sample in (values.flatten(), values[:, 0], values[0]):  # over everything, over seeds, over draws
        error = 5 / len(sample) ** 0.5  # more than 10 standard deviations
        assert abs(sample.mean() - 1 / 2) < error
        assert abs(sample.var() - 1 / 12) < error
    for a, b in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):  # neighbours are independent
        assert abs(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]) < 0.005


def test_the_largest_draw_stays_below_any_total():
    largest = torch.tensor(1 - 2**-22)
    totals = torch.linspace(0.5, 2, 100_001)
    assert (largest * totals < totals).all()


def test_derived_seeds_differ_by_part_place_and_number():
    parts = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**62,), (0, 0, 0)]
    assert len({int(rng.derive(*p)) for p in parts}) == len(parts)
    assert rng.derive(5, torch.arange(10_000)).unique().numel() == 10_000


def test_derive_broadcasts():
    rows, columns = torch.arange(3)[:, None], torch.arange(4)
    table = rng.derive(7, rows, columns)
    assert table.shape == (3, 4)
    assert table[2, 1] == rng.derive(7, 2, 1)
