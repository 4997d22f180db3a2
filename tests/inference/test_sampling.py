"""The promises of every generator, over all that are registered: writing. And the loop's own parts."""

import copy
from typing import get_args

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from naive import read as naive_read

from randfeat.inference.sampling import UNKNOWN, Sampling, decode, filter_logits, sample
from randfeat.inference.schedules import Guidance, Schedule, tokens_per_step
from randfeat.inference.step import draw, scale_at
from randfeat.models import MODELS, layers, orders
from randfeat.utils import rng

SCHEDULES = get_args(Schedule)
GUIDED = Guidance(3.0, "linear", start=0.5)
LABEL, SEEDS = torch.tensor([0, 2, 3]), torch.tensor([5, 6, 7])  # 3 is the null class


def some_known(model, count):
    """(3, N) tokens, UNKNOWN but at `count` places, which differ from image to image."""
    tokens, _, order = tiny.batch(model, seed=9)
    hidden = order[:, count:]
    return tokens.scatter(1, hidden, UNKNOWN)


# cache = no cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [0, 3])
@pytest.mark.parametrize("guidance", [Guidance(), GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cache_changes_nothing(model, schedule, guidance, known):
    count = model.num_tokens
    given = some_known(model, known)
    for within_step in model.within_step:
        how = Sampling(tiny.steps(model, 3), schedule, guidance, within_step=within_step)
        steps = list(decode(model, LABEL, SEEDS, how, known=given))
        assert [s.positions.shape[1] for s in steps] == tokens_per_step(schedule, count - known, how.steps)
        label = LABEL if guidance.off else torch.cat((LABEL, torch.full_like(LABEL, model.num_classes)))
        # the order is the seed's, known tokens first
        drawn = orders.make(model.order_modes[0], model.grid, rng.derive(SEEDS, 0))
        order = orders.known_first(drawn, given != UNKNOWN).repeat(len(label) // 3, 1)
        tokens, number = orders.gather(steps[-1].tokens.repeat(len(label) // 3, 1), order), [0] * known
        for k, step in enumerate(steps, 1):
            done, size = len(number), step.positions.shape[1]
            asked = order[:, done : done + size]
            assert torch.equal(step.positions, asked[:3])
            naive = naive_read(model, label, tokens[:, :done], order[:, :done], asked, within_step, number).logits
            torch.testing.assert_close(step.raw_logits.double(), naive, atol=3e-5, rtol=1e-4)
            if not guidance.off:
                scale = guidance.at(done, size, count)
                naive = naive[3:] + scale * (naive[:3] - naive[3:])
            torch.testing.assert_close(step.logits.double(), naive, atol=3e-5, rtol=1e-4)
            number += [k] * size


def test_one_by_one_gives_the_rows_of_the_forward(model):
    steps = list(decode(model, LABEL, SEEDS, Sampling()))
    order = torch.cat([step.positions for step in steps], 1)
    torch.testing.assert_close(
        torch.cat([step.raw_logits for step in steps], 1),
        model(steps[-1].tokens, LABEL, order),
        atol=1e-5,
        rtol=1e-4,
    )


def test_within_step_is_an_option_of_sampling(model):
    """The first is the default; each gives logits of its own where a step decodes several tokens."""

    def last(within_step):
        how = Sampling(tiny.steps(model, 3), "linear", top_k=1, within_step=within_step)
        *_, step = decode(model, LABEL, SEEDS, how)
        return step.raw_logits

    results = [last(option) for option in model.within_step]
    assert torch.equal(last(None), results[0])
    assert all(not torch.equal(results[0], other) for other in results[1:])
    with pytest.raises(ValueError, match=f"within_step 'sideways' is none of .*{model.within_step[0]}"):
        last("sideways")


# no hidden state --------------------------------------------------------------------------------------------


def test_sampling_leaves_no_trace(model):
    fresh, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    batch, how = tiny.batch(model), Sampling(tiny.steps(model, 3), guidance=GUIDED)
    first = sample(model, LABEL, SEEDS, how)
    logits = model(*batch)
    second = sample(model, LABEL, SEEDS, how)
    assert torch.equal(first, second)
    assert torch.equal(first, sample(copy.deepcopy(fresh), LABEL, SEEDS, how))
    assert torch.equal(logits, fresh(*batch))
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failure_in_the_middle_leaves_no_trace(model, monkeypatch):
    fresh, attend, calls = copy.deepcopy(model), layers.attend, []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 7:  # inside the network, after some steps
            raise RuntimeError("out of memory, say")
        return attend(*args, **kwargs)

    model.train()
    monkeypatch.setattr(layers, "attend", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(model, LABEL, SEEDS, Sampling())
    monkeypatch.undo()
    assert model.training
    assert model.state_dict().keys() == fresh.state_dict().keys()
    batch, model = tiny.batch(model), model.eval()
    assert torch.equal(model(*batch), fresh(*batch))
    assert torch.equal(sample(model, LABEL, SEEDS, Sampling()), sample(fresh, LABEL, SEEDS, Sampling()))


def test_sampling_evaluates_and_gives_the_mode_back(build):
    model = build(dropout=0.9).train()
    known, tokens = some_known(model, 2), torch.empty(0)
    for step in decode(model, LABEL, SEEDS, Sampling(), known=known):
        assert model.training
        tokens = step.tokens
    assert torch.equal(tokens, sample(model.eval(), LABEL, SEEDS, Sampling(), known=known))  # dropout was off
    assert not model.training


# no hidden randomness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
def test_an_image_is_a_function_of_its_seed(model, guided):
    how = Sampling(tiny.steps(model, 3), "linear", GUIDED, top_k=5) if guided else Sampling()
    seeds, label = torch.arange(8), torch.arange(8) % 4
    everything = sample(model, label, seeds, how)
    assert len(everything.unique(dim=0)) == 8
    for company in (torch.tensor([5]), torch.tensor([7, 5, 0]), torch.arange(8).flip(0)):
        assert torch.equal(sample(model, label[company], seeds[company], how), everything[company])


def test_noise_belongs_to_the_place_in_the_order(build):
    """The i-th token of an image takes the i-th number of its seed, whatever the step that decodes it."""
    model = build()
    for how in (Sampling(), Sampling(tiny.steps(model, 2), "linear")):
        steps = list(decode(model, LABEL, SEEDS, how))
        noise = rng.uniform(rng.derive(SEEDS, 1), model.num_tokens)
        expected = draw(torch.cat([step.logits for step in steps], 1), noise)
        order = torch.cat([step.positions for step in steps], 1)
        assert torch.equal(orders.gather(steps[-1].tokens, order), expected)


def test_the_global_generator_is_left_alone(model):
    state = torch.get_rng_state()
    sample(model, LABEL, SEEDS, Sampling(guidance=GUIDED))
    assert torch.equal(torch.get_rng_state(), state)


# every token once -------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(sorted(MODELS)), st.sampled_from(SCHEDULES))
def test_every_token_is_decoded_exactly_once(data, name, schedule):
    grid = data.draw(st.sampled_from([(1, 1), (1, 5), (4, 1), (2, 3)]))
    model = tiny.model(name, grid, depth=1)
    known = some_known(model, data.draw(st.integers(0, model.num_tokens)))
    order, steps = data.draw(st.sampled_from(model.order_modes)), data.draw(st.integers(1, model.num_tokens + 3))
    how = Sampling(tiny.steps(model, steps), schedule, order=order)
    canvas, seen = known, torch.zeros_like(known)
    for step in decode(model, LABEL, SEEDS, how, known=known):
        seen.scatter_add_(1, step.positions, torch.ones_like(step.positions))
        if not model.raster_only:  # which goes over known tokens, too
            assert (canvas.gather(1, step.positions) == UNKNOWN).all()  # not before this step
        canvas = canvas.scatter(1, step.positions, step.tokens.gather(1, step.positions))
        assert torch.equal(step.tokens, canvas)  # nothing else, and not the known ones
    assert (seen[known == UNKNOWN] == 1).all()
    assert (seen <= 1).all()
    assert ((canvas >= 0) & (canvas < model.vocab_size)).all()
    assert torch.equal(canvas[known != UNKNOWN], known[known != UNKNOWN])
    assert torch.equal(canvas, sample(model, LABEL, SEEDS, how, known=known))


def test_an_order_can_be_given(build):
    model, (_, _, order) = build(), tiny.batch(build())
    for given_order in (order, order[0]):
        steps = decode(model, LABEL, SEEDS, Sampling(), given_order)
        assert torch.equal(torch.cat([s.positions for s in steps], 1), given_order.expand(3, -1))


def test_wrong_orders_are_refused(build):
    model, twice = build(), torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 0], [0, 0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match="entry 5 of order 1, 0, occurs twice"):
        sample(model, LABEL, SEEDS, Sampling(), twice)


@pytest.mark.parametrize("model", tiny.ANY_ORDER, indirect=True, ids=tiny.name)
def test_as_many_tokens_are_known_in_each_image(model):
    known = torch.full((3, model.num_tokens), UNKNOWN)
    known[1, 4] = 0
    with pytest.raises(ValueError, match=r"same number of known tokens, got \[0, 1\]"):
        sample(model, LABEL, SEEDS, Sampling(), known=known)


def test_scales_are_fractions_also_of_whole_numbers():
    guidance, cpu = Guidance(3, counted="token"), torch.device("cpu")
    by_token, by_place = scale_at(guidance, 4, 3, 16, cpu), scale_at(guidance, torch.tensor([[2, 16]]), 1, 16, cpu)
    assert by_token.dtype == by_place.dtype == torch.float32
    assert (by_token.shape, by_place.shape) == ((3, 1), (1, 2, 1))
    rising = Guidance(3.0, "linear", counted="token")
    assert scale_at(rising, 4, 2, 16, cpu).flatten().tolist() == [rising.at(4, 1, 16), rising.at(5, 1, 16)]
    assert scale_at(Guidance(3.0), 4, 3, 16, cpu) == 3.0


# filtering and drawing --------------------------------------------------------------------------------------

# few distinct values, so that ties are common
LOGITS = arrays("float32", st.integers(1, 8), elements=st.integers(-4, 4).map(lambda i: i / 2)).map(torch.from_numpy)


@given(LOGITS, st.integers(-1, 10), st.sampled_from([0.15, 0.4, 0.77, 0.95, 1.0]))
def test_filtering_is_the_slow_one(logits, top_k, top_p):
    kept = logits.tolist()
    if top_k > 0:
        kth = sorted(kept, reverse=True)[:top_k][-1]
        kept = [x if x >= kth else -torch.inf for x in kept]
    probability, before = torch.tensor(kept).double().softmax(0).tolist(), 0.0
    by_probability = sorted(range(len(kept)), key=lambda i: -probability[i])
    expected = set()
    for i in by_probability:
        if probability[i] and (top_p == 1 or before <= top_p):
            expected.add(i)
        before += probability[i]
    actual = filter_logits(logits, top_k, top_p)
    survived = set(torch.isfinite(actual).nonzero().flatten().tolist())
    assert torch.equal(actual[torch.isfinite(actual)], logits[torch.isfinite(actual)])
    # which of equal tokens top-p takes is free, their number is not
    assert sorted(logits[i].item() for i in survived) == sorted(logits[i].item() for i in expected)


def test_filtering_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()

    def kept(*how):
        return torch.isfinite(filter_logits(logits, *how)).int().tolist()[0]

    assert kept(0, 1.0) == kept(9, 1.0) == [1, 1, 1, 1]
    assert kept(1) == [1, 0, 0, 0]
    assert kept(3) == [1, 1, 1, 1]  # a tie with the third
    assert kept(0, 0.1) == [1, 0, 0, 0]
    assert kept(0, 0.6) == [1, 1, 0, 0]  # the one that crosses the line is kept
    assert kept(2, 0.6) == [1, 0, 0, 0]  # 0.5 of 0.8 is more than 0.6, after top-k
    # at most p before it: exactly p keeps it
    assert filter_logits(torch.zeros(2), top_p=0.5).tolist() == [0, 0]
    assert torch.equal(filter_logits(logits, 2).isfinite(), filter_logits(logits.expand(2, 1, 4), 2)[1].isfinite())


def test_draws_follow_the_distribution():
    probability = torch.tensor([0.4, 0.0, 0.35, 0.2, 0.05])
    noise = rng.uniform(torch.tensor(0), 20_000)
    tokens = draw(probability.log().expand(len(noise), -1), noise)
    counts, expected = tokens.bincount(minlength=5), probability * len(noise)
    present = probability > 0
    assert counts[1] == 0
    # chi-square with 3 degrees of freedom: its 99.9 % quantile is 16.3
    assert ((counts - expected)[present] ** 2 / expected[present]).sum() < 16.3


@given(
    arrays("float32", st.integers(1, 300), elements=st.floats(-100, 100, width=32)),
    st.data(),
    st.sampled_from([0.0, 2**-22, 0.5, 1 - 2**-21, 1 - 2**-22]) | st.integers(0, 2**22 - 1).map(lambda i: i * 2**-22),
)
def test_an_excluded_token_is_never_drawn(logits, data, noise):
    excluded = data.draw(arrays(bool, len(logits)))
    excluded[data.draw(st.integers(0, len(logits) - 1))] = False
    filtered = torch.from_numpy(logits).masked_fill(torch.from_numpy(excluded), -torch.inf)
    token = int(draw(filtered, torch.tensor(noise)))
    assert torch.isfinite(filtered[token])


def test_top_k_1_is_greedy_at_any_temperature(build):
    model = build()
    how = Sampling(tiny.steps(model, 2), "linear", top_k=1, temperature=100.0)
    for step in decode(model, LABEL, SEEDS, how):
        assert torch.equal(step.tokens.gather(1, step.positions), step.logits.argmax(-1))


def test_temperature_divides_the_logits(build):
    model = build()
    step = next(decode(model, LABEL, SEEDS, Sampling(tiny.steps(model, 1), "linear", temperature=0.5, top_p=0.8)))
    noise = rng.uniform(rng.derive(SEEDS, 1), model.num_tokens)
    expected = draw(filter_logits(step.logits / 0.5, top_p=0.8), noise[:, : step.positions.shape[1]])
    assert torch.equal(step.tokens.gather(1, step.positions), expected)


def test_a_raster_model_writes_in_raster_order_alone():
    model = tiny.model("llamagen")
    for message, how, more in (
        ("order 'random' is none of LlamaGen's: raster", Sampling(order="random"), {}),
        ("LlamaGen knows one order, raster", Sampling(), {"order": orders.reverse((2, 3))}),
        ("decodes one token a step, not 4: leave steps out", Sampling(2, "arccos"), {}),
        ("a sweep draws tokens given later ones, which LlamaGen cannot see", Sampling(sweeps=1), {}),
    ):
        with pytest.raises(ValueError, match=message):
            sample(model, LABEL, SEEDS, how, **more)
    state = model.start(LABEL)
    with pytest.raises(ValueError, match="one token a step, 2 were asked for"):
        model.step(state, None, torch.tensor([[0, 1]] * 3))
    with pytest.raises(ValueError, match=r"goes on in raster order: expected positions \[0\]"):
        model.step(state, None, torch.tensor([[1]] * 3))
    with pytest.raises(ValueError, match=r"goes on in raster order: expected positions \[0, 1\]"):
        model.start(LABEL, torch.zeros(3, 2, dtype=torch.int64), torch.tensor([[0, 2]] * 3))


@pytest.mark.parametrize("guidance", [Guidance(), GUIDED], ids=["plain", "guided"])
def test_a_raster_model_draws_given_the_known_tokens_before(guidance):
    model, _ = tiny.model("llamagen"), UNKNOWN
    known = torch.tensor([[2, _, 5, _, _, 1], [3, _, _, 4, 0, 1], [1, 0, _, _, 6, 1]])
    steps = list(decode(model, LABEL, SEEDS, Sampling(guidance=guidance), known=known))
    assert [step.positions.flatten().tolist() for step in steps] == [[place] * 3 for place in (1, 2, 3, 4)]
    tokens = steps[-1].tokens
    assert torch.equal(tokens[known != UNKNOWN], known[known != UNKNOWN])
    raster = orders.raster((2, 3)).repeat(3, 1)
    logits = model(tokens, LABEL, raster)
    if not guidance.off:
        scale = torch.tensor([guidance.at(place, 1, 6) for place in range(6)])[:, None]
        logits = torch.lerp(model(tokens, None, raster), logits, scale)
    torch.testing.assert_close(torch.cat([s.logits for s in steps], 1), logits[:, 1:5], atol=1e-5, rtol=1e-4)
    drawn = draw(logits, rng.uniform(rng.derive(SEEDS, 1), 6))
    assert torch.equal(tokens, torch.where(known == UNKNOWN, drawn, known))


@pytest.mark.parametrize("model", tiny.ANY_ORDER, indirect=True, ids=tiny.name)
def test_sweeps_redraw_what_was_drawn_and_nothing_else(model):
    label, seeds = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    known = torch.full((3, model.num_tokens), UNKNOWN)
    known[:, 1:3] = 2
    plain = sample(model, label, seeds, Sampling(), known=known)
    swept = sample(model, label, seeds, Sampling(sweeps=2), known=known)
    assert torch.equal(swept[:, 1:3], known[:, 1:3])
    assert (swept != plain).any()
    assert ((swept >= 0) & (swept < model.vocab_size)).all()
    alone = sample(model, label[1:2], seeds[1:2], Sampling(sweeps=2), known=known[1:2])
    assert torch.equal(alone, swept[1:2])
    everything = sample(model, label, seeds, Sampling(sweeps=1), known=swept)
    assert torch.equal(everything, swept)
    with pytest.raises(ValueError, match="sweeps"):
        Sampling(sweeps=-1)


@pytest.mark.parametrize("model", tiny.ANY_ORDER, indirect=True, ids=tiny.name)
def test_a_sweep_is_two_passes_of_half_the_tokens(model):
    count = model.num_tokens
    steps = [*decode(model, LABEL[:1], SEEDS[:1], Sampling(sweeps=2, schedule=(1,) * count))]
    assert [int(step.calls) for step in steps] == [*range(1, 3 * count + 1)]
    for sweep in (1, 2):
        redrawn = steps[sweep * count : (sweep + 1) * count]
        assert sorted(int(step.positions) for step in redrawn) == [*range(count)]
        hidden = [int((step.tokens == UNKNOWN).sum()) for step in redrawn]
        first = (count + 1) // 2
        assert hidden == [*reversed(range(first)), *reversed(range(count - first))]
