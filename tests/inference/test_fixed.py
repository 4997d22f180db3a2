"""Steps of fixed shapes: the same tokens, in few programs without a break."""

from dataclasses import replace

import pytest
import tiny
import torch

from randfeat.inference import fixed
from randfeat.inference.extrapolation import Extrapolation
from randfeat.inference.extrapolation import sample as sample_larger
from randfeat.inference.sampling import UNKNOWN, Sampling, decode, sample
from randfeat.inference.schedules import Guidance
from randfeat.models import MODELS, orders
from randfeat.models.fixed import FixedCache

GRID = (5, 6)
LABEL, SEEDS = torch.tensor([0, 2]), torch.tensor([5, 6])
GUIDED = Guidance(3.0, "linear", start=0.5)
FIXED = [name for name, model in MODELS.items() if model.fixed_shapes]
PLAIN = fixed.advance


@pytest.fixture
def programs(monkeypatch):
    """Graphs that the compiler has made; they run as they were recorded."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(fixed, "OPTIONS", {"backend": backend})
    yield made
    torch.compiler.reset()


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(fixed, "_compiled", lambda *options: PLAIN)


def make(name, **config):
    return tiny.model(name, grid=GRID, vocab_size=150, **config)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_a_step_is_one_program_and_widths_share_it(name, programs):
    """`fullgraph` raises where a program would break; 11 steps of 1 to 5 tokens need a program for each width and
    part of the cache, and a second image none.
    """
    model, how = make(name), Sampling(11, "cosine-randar", GUIDED, top_k=20, top_p=0.9)
    expected = sample(model, LABEL, SEEDS, how)
    assert torch.equal(sample(model, LABEL, SEEDS, replace(how, compile=True)), expected)
    count = len(programs)
    assert 4 <= count <= 3 + 2  # widths 1, 2, 4, 8, of which three steps lie behind a quarter or a half of the cache
    again = sample(model, LABEL, SEEDS + 7, replace(how, compile=True))
    assert torch.equal(again, sample(model, LABEL, SEEDS + 7, how))
    assert len(programs) == count


HOW = {
    "plain": Sampling(7, "cosine-randar"),
    "last-steps-largest": Sampling(6, "arccos", GUIDED),
    "one-by-one": Sampling(guidance=GUIDED, top_p=0.8),
    "sizes": Sampling(schedule=(3, 1, 9, 2, 15), guidance=Guidance(2, counted="token"), top_k=9),
    "refined": Sampling(4, "linear", GUIDED, temperature=0.7, sweeps=1),
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("known", [0, 11])
@pytest.mark.parametrize("how", HOW.values(), ids=list(HOW))
def test_padding_changes_no_token(name, how, known, uncompiled):
    """With known tokens and without, in an order of each image, however the tokens of a step see each other."""
    model = make(name, **({"num_kv_heads": 1} if name == "randar" else {}))
    order = orders.random(GRID, SEEDS)
    given = torch.full((2, model.num_tokens), UNKNOWN).scatter(1, order[:, :known], order[:, :known] % 150)
    for within_step in model.within_step:
        how = replace(how, within_step=within_step)
        expected = list(decode(model, LABEL, SEEDS, how, known=given))
        for step, plain in zip(
            decode(model, LABEL, SEEDS, replace(how, compile=True), known=given), expected, strict=True
        ):
            assert torch.equal(step.tokens, plain.tokens)
            torch.testing.assert_close(step.raw_logits, plain.raw_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FIXED)
def test_a_bias_a_condition_and_a_larger_grid(name, uncompiled):
    model = make(name, control=tiny.CONTROL)
    torch.nn.init.normal_(model.control.proj.weight)
    bias = torch.randn(2, model.num_tokens, 150, generator=torch.Generator().manual_seed(0))
    condition = torch.randn(2, model.num_tokens, 16, generator=torch.Generator().manual_seed(1))
    how = Sampling(7, guidance=GUIDED, control_guidance=Guidance(2.0))
    run = lambda **compiled: sample(model, LABEL, SEEDS, replace(how, **compiled), None, None, condition, bias)  # noqa: E731
    assert torch.equal(run(compile=True), run())
    larger = Extrapolation(spatial=Guidance(1.5))
    assert torch.equal(
        sample_larger(model, LABEL, SEEDS, replace(how, compile=True), larger, condition=condition),
        sample_larger(model, LABEL, SEEDS, how, larger, condition=condition),
    )


def test_samplings_at_once_have_caches_of_their_own(uncompiled):
    model, how = make("randar"), Sampling(5, compile=True)
    expected = [sample(model, LABEL, SEEDS + i, how) for i in (0, 9)]
    both = zip(*(decode(model, LABEL, SEEDS + i, how) for i in (0, 9)), strict=True)
    *_, last = both
    assert all(torch.equal(step.tokens, tokens) for step, tokens in zip(last, expected, strict=True))
    stopped = decode(model, LABEL, SEEDS, how)
    next(stopped)
    stopped.close()
    assert torch.equal(sample(model, LABEL, SEEDS + 9, how), expected[1])  # in the cache of the one that stopped
    (kept,) = (cache for network, (_, cache) in fixed._KEPT.items() if network is model)
    assert isinstance(kept, FixedCache)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FIXED])
def test_other_models_refuse(name):
    model = tiny.model(name)
    with pytest.raises(ValueError, match=f"{type(model).__name__} has no steps of fixed shapes .*: leave compile out"):
        sample(model, LABEL, SEEDS, Sampling(compile=True))


def test_settings():
    with pytest.raises(ValueError, match=r"exact sampling .*: leave compile out"):
        Sampling(exact=True, compile=True)
    with pytest.raises(ValueError, match="compile is True or False, got 1"):
        Sampling(compile=1)
    assert "compile" not in Sampling().as_dict()
    assert Sampling.from_dict(Sampling(compile=True).as_dict()).compile


def test_logits_that_are_not_finite_are_refused(uncompiled):
    model = make("arpg")
    with torch.no_grad():
        model.embedding.weight[3] = torch.nan  # a token that is drawn sooner or later
    given = torch.full((2, model.num_tokens), UNKNOWN)
    given[:, 0] = 3
    with pytest.raises(ValueError, match="the logits are not finite"):
        sample(model, LABEL, SEEDS, Sampling(5, compile=True), known=given)
