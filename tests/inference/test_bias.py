"""Tokens that are favoured or forbidden by place."""

import pytest
import tiny
import torch

from randfeat.inference.bias import checked_bias, checked_cells
from randfeat.inference.editing import View
from randfeat.inference.sampling import UNKNOWN, Sampling, decode, sample
from randfeat.inference.schedules import Guidance
from randfeat.models import MODELS, Generator

HOW = [
    pytest.param(Sampling(), id="one-by-one"),
    pytest.param(Sampling(guidance=Guidance(2.0), temperature=0.5, top_k=3), id="guided-filtered"),
    pytest.param(Sampling(3, sweeps=1), id="steps-and-sweeps"),
    pytest.param(Sampling(exact=True, sweeps=1), id="exact"),
]
LABEL, SEEDS = torch.tensor([0, 1, 2, 3]), torch.arange(4)


def made(name):
    return tiny.model(name, (2, 3))


def can(model, how):
    """True where a model has what these settings ask for."""
    several = not model.one_token_a_step
    verifies = type(model).verify is not Generator.verify
    return (several or how.steps is None) and (not model.raster_only or not how.sweeps) and (verifies or not how.exact)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_forbidden_tokens_are_never_drawn_and_known_ones_stay(name, how):
    model = made(name)
    if not can(model, how):
        return
    allowed = torch.tensor([[0, 1], [2, 3], [4, 5], [5, 6], [6, 0], [1, 2]])
    bias = torch.full((6, 7), -torch.inf).scatter(1, allowed, 0.0)
    known = torch.full((4, 6), UNKNOWN)
    known[:, :2] = 6  # which the bias forbids there
    for given in (None, known):
        tokens = sample(model, LABEL, SEEDS, how, known=given, bias=bias)
        drawn = torch.ones_like(tokens, dtype=torch.bool) if given is None else given == UNKNOWN
        assert (tokens.unsqueeze(-1) == allowed).any(-1)[drawn].all()
        assert (tokens == 6)[~drawn].all()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_bias_is_added_after_guidance_and_before_temperature(name):
    model, bias = made(name), torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0))
    how = Sampling(guidance=Guidance(2.0), temperature=0.7)
    for step in decode(model, LABEL, SEEDS, how, bias=bias):
        conditional, without = step.raw_logits.chunk(2)
        expected = without + 2 * (conditional - without) + bias[torch.arange(4)[:, None], step.positions]
        torch.testing.assert_close(step.logits, expected, atol=1e-5, rtol=1e-5)
    if can(model, Sampling(exact=True)):
        one_by_one = sample(model, LABEL, SEEDS, Sampling(exact=True, draft=0), bias=bias)
        assert torch.equal(sample(model, LABEL, SEEDS, Sampling(exact=True), bias=bias), one_by_one)


def test_a_bias_is_for_all_places_for_each_or_for_each_image():
    model = made("randar")
    favoured = torch.zeros(7)
    favoured[3] = 100.0
    for shape in ((7,), (6, 7), (2, 3, 7), (4, 6, 7)):
        assert (sample(model, LABEL, SEEDS, Sampling(), bias=favoured.expand(shape)) == 3).all()
    each = torch.zeros(4, 6, 7)
    each[2] = favoured
    tokens = sample(model, LABEL, SEEDS, Sampling(), bias=each)
    assert (tokens[2] == 3).all()
    others = torch.tensor([0, 1, 3])
    assert torch.equal(tokens[others], sample(model, LABEL, SEEDS, Sampling())[others])


def test_forbidding_is_conditioning():
    """The first token in the order follows its distribution without what is forbidden, renormalised."""
    model, count = made("randar"), 20_000
    bias = torch.tensor([0.0, -torch.inf, 1.0, 0.0, -torch.inf, 0.0, 0.5])
    label, order = torch.zeros(count, dtype=torch.int64), torch.arange(6)
    step = next(iter(decode(model, label, torch.arange(count), Sampling(), order, bias=bias)))
    expected = (step.raw_logits[0, 0] + bias).softmax(-1)
    seen = torch.bincount(step.tokens[:, 0], minlength=7) / count
    assert (seen[[1, 4]] == 0).all()
    assert (seen - expected).abs().max() < 0.015


def forbidden(*shape, at):
    """A bias that forbids all tokens at one place."""
    bias = torch.zeros(shape)
    bias[at] = -torch.inf
    return bias


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (
            torch.zeros(8),
            r"a bias has the shape \(V,\), \(h, w, V\), .* B = 4, N = h \* w = 2 \* 3 and V = 7, got \(8,\)",
        ),
        (torch.zeros(3, 6, 7), r"got \(3, 6, 7\)"),
        (torch.zeros(3, 2, 7), r"got \(3, 2, 7\)"),
        (torch.full((7,), torch.nan), "floats, finite or -inf for a forbidden token"),
        (torch.full((7,), torch.inf), "floats, finite or -inf for a forbidden token"),
        (torch.zeros(7, dtype=torch.int64), "floats, finite or -inf for a forbidden token"),
        (torch.full((7,), -torch.inf), "forbids every token at position 0, row 0 and column 0, of image 0: leave one"),
        (forbidden(6, 7, at=4), "forbids every token at position 4, row 1 and column 1, of image 0: leave one"),
        (forbidden(2, 3, 7, at=(0, 2)), "forbids every token at position 2, row 0 and column 2, of image 0"),
        (forbidden(4, 6, 7, at=(3, 5)), "forbids every token at position 5, row 1 and column 2, of image 3"),
    ],
)
def test_wrong_biases_are_refused(bias, message):
    with pytest.raises(ValueError, match=message):
        sample(made("arpg"), LABEL, SEEDS, Sampling(), bias=bias)
    with pytest.raises(ValueError, match=message):
        checked_bias(bias, 4, made("arpg"))


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (torch.zeros(8), r"\(V,\), or \(rows, columns, V\) of cells laid over the picture, with V = 7, got \(8,\)"),
        (torch.zeros(6, 7), r"got \(6, 7\)"),
        (torch.zeros(0, 3, 7), r"got \(0, 3, 7\)"),
        (torch.full((7,), torch.nan), "floats, finite or -inf for a forbidden token"),
        (torch.full((7,), -torch.inf), "^the bias forbids every token: leave one"),
        (forbidden(2, 3, 7, at=(1, 2)), "forbids every token in row 1 and column 2: leave one"),
    ],
)
def test_wrong_cells_are_refused(bias, message):
    with pytest.raises(ValueError, match=message):
        checked_cells(bias, 7)


def test_a_token_has_the_bias_of_the_cell_that_its_middle_lies_in():
    cells = torch.arange(6.0).view(2, 3, 1)
    same = View((0, 0, 6, 4), (2, 3)).bias(cells, (4, 6))  # a token for each cell
    assert torch.equal(same, cells)
    finer = View((0, 0, 6, 4), (4, 6)).bias(cells, (4, 6))
    assert torch.equal(finer, cells.repeat_interleave(2, 0).repeat_interleave(2, 1))
    coarser = View((0, 0, 6, 4), (1, 1)).bias(cells, (4, 6))  # its middle is row 2, column 3
    assert coarser.flatten().tolist() == [4]
    part = View((2, 2, 6, 4), (1, 2)).bias(cells, (4, 6))
    assert part.flatten().tolist() == [4, 5]
    beyond = View((-4, -2, 8, 6), (4, 6)).bias(cells, (4, 6))
    assert beyond[..., 0].tolist() == [[0, 0, 0, 1, 2, 2]] * 2 + [[3, 3, 3, 4, 5, 5]] * 2
    assert View((0, 0, 6, 4), (2, 3)).bias(torch.ones(1, 1, 5), (4, 6)).shape == (2, 3, 5)
