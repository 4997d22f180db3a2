"""Exact parallel sampling: the distribution, and the very tokens, of decoding one by one, in fewer calls."""

import itertools

import pytest
import tiny
import torch
from scipy.stats import chisquare

from randfeat.inference.extrapolation import Extrapolation
from randfeat.inference.extrapolation import sample as enlarged
from randfeat.inference.sampling import UNKNOWN, Sampling, decode, sample
from randfeat.inference.schedules import Guidance
from randfeat.inference.step import draw_by_race
from randfeat.models import MODELS, orders
from randfeat.utils import rng

VERIFYING = ["randar", "arpg", "arpg_positioned", "lpd"]
GUIDED = Guidance(2.5, "linear", start=0.5)
SETTINGS = [
    pytest.param(Sampling(exact=True), id="plain"),
    pytest.param(Sampling(exact=True, guidance=GUIDED, temperature=1.2, top_k=2, top_p=0.95), id="guided-filtered"),
]
DRAWS = 200_000
KNOWN = torch.tensor([[UNKNOWN, 1, UNKNOWN, UNKNOWN]])


def dependent(name):
    """A model of 4 tokens and 3 codes whose tokens say much of each other."""
    model = tiny.model(name, (2, 2), vocab_size=3, embed_dim=8, depth=1, num_heads=1, ffn_dim=8)
    model.head.weight.data *= 3
    return model


def sequential(model, how, order, known=None):
    """The probability of each of the 81 images under decoding one by one in an order (4,), known tokens first."""
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))
    given = (torch.full((1, 4), UNKNOWN) if known is None else known) != UNKNOWN
    order = orders.known_first(order[None], given).expand(81, -1)
    with torch.inference_mode():
        label = torch.zeros(81, dtype=torch.int64)
        logits, without = model(images, label, order), model(images, None, order)
    scale = torch.tensor([how.guidance.at(place, 1, 4) for place in range(4)])[:, None]
    logits = without + scale * (logits - without)
    log_p = how.filtered(logits).log_softmax(-1).gather(-1, orders.gather(images, order)[..., None])[..., 0]
    count = int(given.sum())
    fits = torch.ones(81, dtype=torch.bool) if known is None else ((images == known) | ~given).all(1)
    return log_p[:, count:].sum(1).double().exp() * fits


def p_value(tokens, probability):
    """The p-value of a chi-square test that images (n, 4) have these probabilities; rare images are one cell."""
    number = (tokens * torch.tensor([27, 9, 3, 1])).sum(1)
    seen, expected = torch.bincount(number, minlength=81), probability * len(tokens)
    assert not seen[probability == 0].any()
    rare = expected < 10
    cells = [torch.cat((part[~rare], part[rare].sum()[None])).double() for part in (seen, expected)]
    cells = [part[cells[1] > 0] for part in cells]
    assert len(cells[0]) > 5
    return chisquare(*(part.numpy() for part in (cells[0], cells[1] * cells[0].sum() / cells[1].sum()))).pvalue


def many(model, how, order=None, known=None):
    """200,000 samples of class 0."""
    label = torch.zeros(10_000, dtype=torch.int64)  # so many at once stay in the caches
    known = None if known is None else known.expand(len(label), -1)
    parts = torch.arange(DRAWS).split(len(label))
    return torch.cat([sample(model, label, seeds, how, order, known) for seeds in parts])


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", VERIFYING)
def test_every_image_is_as_frequent_as_one_by_one(name, how):
    model, order = dependent(name), torch.tensor([2, 0, 3, 1])
    probability = sequential(model, how, order)
    assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
    assert p_value(many(model, how, order), probability) > 0.001


@pytest.mark.parametrize("name", VERIFYING)
def test_the_test_finds_what_is_not_exact(name):
    """Tokens of one step do not know each other, which the same numbers of samples show at once."""
    model, order = dependent(name), torch.tensor([2, 0, 3, 1])
    probability = sequential(model, Sampling(), order)
    assert p_value(many(model, Sampling(), order), probability) > 0.001  # one by one without drafts
    assert p_value(many(model, Sampling(2, "linear"), order), probability) < 1e-9


@pytest.mark.parametrize("name", VERIFYING)
def test_known_tokens_and_an_order_for_each_image_are_exact(name):
    model, how = dependent(name), Sampling(exact=True, guidance=GUIDED)
    every = [sequential(model, how, torch.tensor(one), KNOWN) for one in itertools.permutations(range(4))]
    probability = torch.stack(every).mean(0)
    tokens = many(model, how, None, KNOWN)
    assert (tokens[:, 1] == 1).all()
    assert p_value(tokens, probability / probability.sum()) > 0.001


# token for token --------------------------------------------------------------------------------------------


def case(name, grid=(3, 4), images=6, **config):
    return tiny.model(name, grid, **config), torch.arange(images) % 4, torch.arange(images) + 100


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("name", VERIFYING)
def test_the_number_of_drafts_changes_calls_and_no_token(name, how):
    model, label, seeds = case(name)
    known = torch.full((6, 12), UNKNOWN)
    known[:, 3:5] = 2
    for given, left in ((None, 12), (known, 10)):
        calls, found = [], []
        for draft in (0, 1, 4, 50):
            *_, last = decode(model, label, seeds, Sampling.from_dict(how.as_dict() | {"draft": draft}), known=given)
            calls.append(last.calls.float().mean().item())
            found.append(last.tokens)
        assert all(torch.equal(tokens, found[0]) for tokens in found)
        assert calls[0] == left
        assert calls == sorted(calls, reverse=True)
        assert calls[-1] < 0.7 * left
        if given is not None:
            assert (found[0][:, 3:5] == 2).all()


@pytest.mark.parametrize("config", [{}, {"num_kv_heads": 1}, {"control": tiny.CONTROL}], ids=str)
@pytest.mark.parametrize("name", VERIFYING)
def test_logits_are_those_of_the_forward_given_the_finished_image(name, config):
    if name in ("arpg", "arpg_positioned", "lpd") and "num_kv_heads" in config:
        return
    model, label, seeds = case(name, **config)
    condition = model.control(tiny.condition_image(model, 6)) if model.control else None
    how = Sampling(exact=True, control_guidance=Guidance(2.0)) if model.control else Sampling(exact=True)
    steps = list(decode(model, label, seeds, how, condition=condition))
    order = orders.make("random", model.grid, rng.derive(seeds, 0))
    expected = model(steps[-1].tokens, label, order, condition)
    if condition is not None:
        expected = expected + (expected - model(steps[-1].tokens, label, order))
    place, checked = orders.invert(order), 0
    for step in steps:
        for image, row in enumerate(step.positions.tolist()):
            for i, position in enumerate(one for one in row if one != UNKNOWN):
                torch.testing.assert_close(
                    step.logits[image, i], expected[image, place[image, position]], atol=2e-5, rtol=1e-4
                )
                checked += 1
    assert checked == 6 * 12


@pytest.mark.parametrize("name", VERIFYING)
def test_steps_say_what_was_decoded_and_by_how_many_calls(name):
    model, label, seeds = case(name)
    tokens, before = torch.full((6, 12), UNKNOWN), torch.zeros(6, dtype=torch.int64)
    for step in decode(model, label, seeds, Sampling(exact=True, guidance=GUIDED)):
        new = step.tokens != tokens
        assert (tokens[new] == UNKNOWN).all()
        for image, row in enumerate(step.positions):
            assert sorted(row[row != UNKNOWN].tolist()) == new[image].nonzero().flatten().tolist()
        assert torch.equal(step.calls, before + new.any(1))
        assert step.logits.shape == (*step.positions.shape, 7)
        assert step.raw_logits.shape == (12, step.positions.shape[1], 7)
        tokens, before = step.tokens, step.calls
    assert (tokens != UNKNOWN).all()
    *_, last = decode(model, label, seeds, Sampling(3))
    assert last.calls.tolist() == [3] * 6


@pytest.mark.parametrize("name", VERIFYING)
def test_an_image_is_a_function_of_its_seed(name):
    model, label, seeds = case(name, images=8)
    how = Sampling(exact=True, guidance=GUIDED, draft=3)
    everything = sample(model, label, seeds, how)
    assert len(everything.unique(dim=0)) == 8
    for company in (torch.tensor([5]), torch.tensor([7, 5, 0]), torch.arange(8).flip(0)):
        assert torch.equal(sample(model, label[company], seeds[company], how), everything[company])


@pytest.mark.parametrize("name", VERIFYING)
def test_greedy_is_greedy(name):
    model, label, seeds = case(name)
    for guidance in (Guidance(), GUIDED):
        one_by_one = sample(model, label, seeds, Sampling(top_k=1, guidance=guidance))
        assert torch.equal(sample(model, label, seeds, Sampling(top_k=1, guidance=guidance, exact=True)), one_by_one)


@pytest.mark.parametrize("name", VERIFYING)
def test_sweeps_decode_each_half_exactly(name):
    model, label, seeds = case(name)
    found = []
    for draft in (0, 16):
        *_, last = decode(model, label, seeds, Sampling(exact=True, sweeps=2, draft=draft))
        found.append(last)
    assert torch.equal(found[0].tokens, found[1].tokens)
    assert found[0].calls.tolist() == [36] * 6  # the image and two sweeps, of two halves each
    assert (found[1].calls < 30).all()
    assert (found[0].tokens != sample(model, label, seeds, Sampling(exact=True))).any()


@pytest.mark.parametrize("name", VERIFYING)
def test_nothing_left_to_draw_takes_no_call(name):
    model, label, seeds = case(name)
    whole = torch.zeros(6, 12, dtype=torch.int64)
    assert list(decode(model, label, seeds, Sampling(exact=True), known=whole)) == []
    one = whole.clone()
    one[:, 5] = UNKNOWN
    (step,) = decode(model, label, seeds, Sampling(exact=True), known=one)
    assert step.calls.tolist() == [1] * 6
    assert step.positions.tolist() == [[5]] * 6


@pytest.mark.parametrize("name", ["randar", "arpg"])
def test_larger_images_are_exact_too(name):
    """Its drafts decide no token either, and each image takes fewer calls than tokens."""
    model, label, seeds = case(name, (2, 3), 3)
    how = Extrapolation(2, spatial=Guidance(1.5))
    found, calls = [], []
    for draft in (0, 6):
        sampling = Sampling(exact=True, guidance=GUIDED, draft=draft)
        found.append(enlarged(model, label, seeds, sampling, how, tick=calls.append))
    assert torch.equal(*found)
    assert [part.tolist() for part in calls[:2]] == [[6] * 3, [18] * 3]
    assert (calls[3] < 16).all()


# settings and refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODELS.keys() - VERIFYING))
def test_models_that_cannot_say_so(name):
    model, label, seeds = case(name)
    with pytest.raises(ValueError, match=f"{type(model).__name__} cannot check drafted tokens, .*: leave exact out"):
        sample(model, label, seeds, Sampling(exact=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(exact=True, steps=8), "exact sampling is that of one token a step, .*: leave steps and sizes out"),
        (dict(exact=True, schedule=(1, 3)), "leave steps and sizes out"),
        (dict(exact=1), "exact is True or False, got 1"),
        (dict(exact=True, draft=-1), "draft must be a whole number from 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)


def test_settings_are_kept_and_those_of_before_are_as_before():
    how = Sampling(exact=True, draft=5)
    assert Sampling.from_dict(how.as_dict()) == how
    assert not {"exact", "draft"} & Sampling().as_dict().keys()


# the draw ---------------------------------------------------------------------------------------------------


def test_the_race_draws_by_probability_and_never_what_is_excluded():
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0, -6.0])
    drawn = draw_by_race(logits.expand(DRAWS, -1), torch.arange(DRAWS))
    seen, expected = torch.bincount(drawn, minlength=5), logits.double().softmax(0) * DRAWS
    assert seen[2] == 0
    kept = expected > 0
    assert chisquare(seen[kept].numpy(), expected[kept].numpy()).pvalue > 1e-3


def test_a_race_agrees_between_similar_distributions():
    """They differ in at most 2 d / (1 + d) of the draws, d being the total variation distance."""
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0))
    other = logits + 0.3 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    seeds = torch.arange(20_000)
    differ = (
        draw_by_race(logits.expand(len(seeds), -1), seeds) != draw_by_race(other.expand(len(seeds), -1), seeds)
    ).float()
    distance = (logits.softmax(0) - other.softmax(0)).abs().sum() / 2
    assert distance * 0.9 < differ.mean() < 2 * distance / (1 + distance) + 0.01


def test_logits_that_are_not_finite_are_refused():
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the logits are not finite"):
            draw_by_race(torch.tensor([[0.0, wrong]]), torch.tensor([3]))
    with pytest.raises(ValueError, match="the logits are not finite"):
        draw_by_race(torch.full((1, 3), -torch.inf), torch.tensor([3]))
