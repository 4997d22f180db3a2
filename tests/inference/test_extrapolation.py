import copy
import math

import naive
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.inference.extrapolation import Extrapolation, enlarge, sample
from randfeat.inference.sampling import UNKNOWN, Sampling, decode
from randfeat.inference.schedules import Guidance, tokens_per_step
from randfeat.inference.step import draw
from randfeat.models import orders
from randfeat.utils import rng

LABEL, SEEDS = torch.tensor([0, 2, 3]), torch.tensor([5, 6, 7])  # 3 is the null class
GUIDED, SPATIAL = Guidance(3.0, "linear", start=0.5), Guidance(2.0, "linear", start=1.5)


def make(grid=(2, 3), name="randar", **config):
    return tiny.model(name, grid, **config)


def small_image(model):
    return tiny.batch(model)[0]


def slow_rotation(grid, how):
    """`naive.turn` over the large grid: fast frequencies by position, the others stretched."""

    def turn(x, at, model):
        half = x.shape[-1] // 2
        frequencies, width = model.rope_base ** (-torch.arange(0, half, 2).double() / half), grid[1] * how.factors[1]
        angles = []
        for place, side, factor in zip((at // width, at % width), grid, how.factors, strict=True):
            stretched = place * (side - 1) / max(1, side * factor - 1)
            angles += [(place if j < how.boundary else stretched) * f for j, f in enumerate(frequencies)]
        angles = torch.stack(angles, -1)[:, :, None]
        there = (at >= 0)[:, :, None, None]
        cos, sin, a, b = angles.cos() * there, angles.sin() * there, x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)

    return turn


@pytest.mark.parametrize(
    ("grid", "how"),
    [
        ((2, 2), Extrapolation(2, 1)),
        ((1, 3), Extrapolation(3, 0)),
        ((2, 3), Extrapolation(2, 9, SPATIAL)),
        ((2, 1), Extrapolation(4, 1, SPATIAL, blind=1.0)),
        ((2, 2), Extrapolation((1, 3), 0, SPATIAL)),
    ],
    ids=["square", "thrice", "spatial", "all-blind", "wide"],
)
@pytest.mark.parametrize("name", ["randar", "arpg"])
@pytest.mark.parametrize("guidance", [Guidance(), GUIDED], ids=["plain", "guided"])
def test_steps_are_those_of_the_naive_reading(monkeypatch, name, grid, how, guidance):
    model = make(grid, name)
    tokens, known = small_image(model), model.num_tokens
    sampling = Sampling(7, guidance=guidance, within_step="causal")
    steps = list(enlarge(model, tokens, LABEL, SEEDS, sampling, how))
    order = torch.cat((how.order(grid, "random", SEEDS)[:, :known], *(step.positions for step in steps)), 1)
    assert torch.equal(order, how.order(grid, "random", SEEDS))
    read = orders.gather(steps[-1].tokens, order)
    # the branches: with the label, without, and without half of the small image, whose tokens become a row of zeros
    blind = orders.random(grid, rng.derive(SEEDS, 3))[:, : int(known * how.blind)]
    other = copy.deepcopy(model)
    embedding = other.token_embedding if name == "randar" else other.embedding
    unseen = read.scatter(1, blind, len(embedding.weight))
    embedding.weight.data = torch.nn.functional.pad(embedding.weight.data, (0, 0, 0, 1))
    null = torch.full_like(LABEL, model.num_classes)
    branches = [(LABEL, read), (null, read), (null, unseen)]
    branches = branches[: 3 if not how.spatial.off else 1 if guidance.off else 2]
    monkeypatch.setattr(naive, "turn", slow_rotation(grid, how))
    done, count = known, order.shape[1]
    for step in steps:
        size = step.positions.shape[1]
        expected = [
            naive.read(other, label, seen[:, :done], order[:, :done], step.positions).logits for label, seen in branches
        ]
        torch.testing.assert_close(step.raw_logits.double(), torch.cat(expected), atol=3e-5, rtol=1e-4)
        scale, spatial = guidance.at(done, size, count), how.spatial.at(done, size, count)
        if len(expected) == 3:
            full, empty, blinded = expected
            expected = [blinded + scale * (full - empty) + spatial * (empty - blinded)]
        elif len(expected) == 2:
            expected = [expected[1] + scale * (expected[0] - expected[1])]
        torch.testing.assert_close(step.logits.double(), expected[0], atol=1e-4, rtol=1e-4)
        done += size
    assert done == count


FACTORS = st.integers(2, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda both: max(both) > 1)


@given(
    st.sampled_from([(1, 1), (1, 2), (2, 2)]),
    FACTORS,
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from(["randar", "arpg"]),
)
def test_every_token_is_decoded_exactly_once(grid, factor, steps, spatial, name):
    model, how = make(grid, name, depth=1), Extrapolation(factor, spatial=SPATIAL if spatial else Guidance())
    tokens, sampling = small_image(model), Sampling(steps)
    canvas = torch.full((3, math.prod(how.grid(grid))), UNKNOWN)
    canvas[:, how.lattice(grid)] = tokens
    sizes = []
    for step in enlarge(model, tokens, LABEL, SEEDS, sampling, how):
        assert (canvas.gather(1, step.positions) == UNKNOWN).all()
        canvas = canvas.scatter(1, step.positions, step.tokens.gather(1, step.positions))
        assert torch.equal(step.tokens, canvas)
        sizes.append(step.positions.shape[1])
    assert ((canvas >= 0) & (canvas < model.vocab_size)).all()
    assert sizes == tokens_per_step("cosine-randar", canvas.shape[1], steps, done=model.num_tokens)


def test_a_large_image_starts_as_a_small_one():
    model, how, sampling = make(), Extrapolation(2, spatial=SPATIAL), Sampling(4, guidance=GUIDED)
    order = how.order(model.grid, "random", SEEDS)
    large = sample(model, LABEL, SEEDS, sampling, how)
    assert large.shape == (3, 24)
    *_, small = decode(model, LABEL, SEEDS, sampling, how.small_order(model.grid, order))
    assert torch.equal(large[:, how.lattice(model.grid)], small.tokens)
    assert torch.equal(large, sample(model, LABEL, SEEDS, sampling, how, order))
    # the i-th token of an image takes the i-th number of its seed, in both halves of the way
    noise = rng.uniform(rng.derive(SEEDS, 1), 24)
    steps = list(enlarge(model, small.tokens, LABEL, SEEDS, sampling, how))
    drawn = draw(torch.cat([step.logits for step in steps], 1), noise[:, 6:])
    assert torch.equal(orders.gather(large, order)[:, 6:], drawn)


@pytest.mark.parametrize("name", ["randar", "arpg"])
def test_an_image_is_a_function_of_its_seed_and_leaves_no_trace(name):
    model, how, sampling = make(name=name), Extrapolation(spatial=SPATIAL), Sampling(9, guidance=GUIDED)
    fresh, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.train()
    everything = sample(model, LABEL, SEEDS, sampling, how)
    assert model.training
    assert len(everything.unique(dim=0)) == 3
    assert torch.equal(sample(model, LABEL[1:2], SEEDS[1:2], sampling, how), everything[1:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())


def test_a_branch_that_sees_all_changes_nothing():
    model, sampling = make(), Sampling(5, guidance=GUIDED)
    tokens = small_image(model)
    two = enlarge(model, tokens, LABEL, SEEDS, sampling, Extrapolation())
    three = enlarge(model, tokens, LABEL, SEEDS, sampling, Extrapolation(spatial=SPATIAL, blind=0.0))
    for plain, spatial in zip(two, three, strict=True):
        torch.testing.assert_close(spatial.logits, plain.logits, atol=1e-4, rtol=1e-4)
    blind = enlarge(model, tokens, LABEL, SEEDS, sampling, Extrapolation(spatial=SPATIAL, blind=1.0))
    assert not torch.allclose(next(blind).logits, plain.logits)


@pytest.mark.parametrize(("grid", "factor"), [((2, 3), (2, 2)), ((2, 2), (3, 3)), ((1, 4), (5, 5)), ((2, 3), (1, 2))])
@pytest.mark.parametrize("mode", orders.MODES)
def test_orders_begin_with_the_small_image(grid, factor, mode):
    how = Extrapolation(factor)
    down, across = factor
    order = how.order(grid, mode, SEEDS)
    orders.validate(order, how.grid(grid))
    small = how.small_order(grid, order)
    orders.validate(small, grid)
    rows, cols = order // (grid[1] * across), order % (grid[1] * across)
    count = grid[0] * grid[1]
    assert torch.equal(small, rows[:, :count] // down * grid[1] + cols[:, :count] // across)
    assert (rows[:, :count] % down == 0).all()
    assert (cols[:, :count] % across == 0).all()
    assert how.lattice(grid).sum() == count


def test_what_cannot_be_is_refused():
    model, how, sampling = make((2, 2)), Extrapolation(), Sampling()
    with pytest.raises(ValueError, match="the first 4 entries must be the small image, on rows that 2 divides"):
        sample(model, LABEL, SEEDS, sampling, how, orders.raster((4, 4)).expand(3, -1))
    with pytest.raises(ValueError, match="entry 15 of order 0, 0, occurs twice"):
        sample(model, LABEL, SEEDS, sampling, how, torch.tensor([[*range(15), 0]] * 3))
    raster = tiny.model("llamagen", (2, 2))
    with pytest.raises(ValueError, match="LlamaGen knows raster order alone"):
        sample(raster, LABEL, SEEDS, sampling, how)
    with pytest.raises(ValueError, match="LlamaGen knows raster order alone"):
        next(enlarge(raster, small_image(raster), LABEL, SEEDS, sampling, how))
    for name in ("lpd", "rar"):
        with pytest.raises(ValueError, match="has learned positions, none of a larger grid: choose RandAR or ARPG"):
            sample(tiny.model(name, (2, 2)), LABEL, SEEDS, sampling, how)


def test_two_equal_factors_are_one():
    model, sampling = make(), Sampling(3)
    for how in (Extrapolation((2, 2)), Extrapolation([2, 2])):  # as JSON has it
        assert torch.equal(
            sample(model, LABEL, SEEDS, sampling, how), sample(model, LABEL, SEEDS, sampling, Extrapolation(2))
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(factor=1), "factor must be a whole number from 2, got 1"),
        (dict(factor=2.5), "factor must be a whole number from 2, or two from 1.*, got 2.5"),
        (dict(factor=2.0), "factor must be a whole number from 2, or two from 1.*, got 2.0"),
        (dict(factor=float("inf")), "factor must be a whole number from 2, or two from 1.*, got inf"),
        (dict(factor=(1, 1)), "factor must be a whole number from 2, or two from 1.*not both 1"),
        (dict(factor=(2,)), "factor must be a whole number from 2, or two from 1"),
        (dict(boundary=-1), "boundary must be a whole number from 0, got -1"),
        (dict(blind=1.5), r"blind must be a share in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Extrapolation(**wrong)
