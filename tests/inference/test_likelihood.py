from itertools import product

import pytest
import tiny
import torch
from naive import read as naive_read

from randfeat.inference import likelihood
from randfeat.inference.likelihood import class_log_prob, log_prob, orders_of, passes_at_once, surprisal, token_log_prob
from randfeat.inference.sampling import Sampling, sample
from randfeat.models import orders
from randfeat.utils import rng

TOYS = [((1, 3), 3), ((2, 2), 2)]


def every_image(model):
    return torch.tensor(list(product(range(model.vocab_size), repeat=model.num_tokens)))


@pytest.mark.parametrize(("grid", "vocab"), TOYS)
@pytest.mark.parametrize("mode", ["random", "reversed"])
def test_probabilities_of_all_images_sum_to_one(build, grid, vocab, mode):
    model = build(grid, vocab_size=vocab)
    images, mode = every_image(model), "raster" if model.raster_only else mode
    for label in range(model.num_classes + 1):
        logp = log_prob(model, images, torch.full((len(images),), label), count=5, mode=mode, seed=label)
        torch.testing.assert_close(logp.exp().sum(0), torch.ones(5), atol=1e-5, rtol=0)
        assert logp.std(0).min() > 0.1  # and the model has an opinion


def test_samples_come_as_often_as_they_are_likely(build):
    """Chi-square over the 8 images of 3 bits; its 99.9 % quantile with 7 degrees of freedom is 24.3."""
    model, count = build((1, 3), vocab_size=2, seed=2), 4000
    images = every_image(model)
    # the one that log_prob reads for seed 1
    order = orders.make(model.order_modes[0], model.grid, rng.derive(1, 0).view(1))
    samples = sample(model, torch.full((count,), 2), torch.arange(count), Sampling(), order.expand(count, -1))
    expected = count * log_prob(model, images, torch.full((8,), 2), seed=1)[:, 0].exp()
    counts = (samples[:, None] == images).all(2).sum(0)
    assert expected.max() > 2 * expected.min()
    assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_log_prob_is_the_naive_chain(model):
    tokens, label, _ = tiny.batch(model)
    logp = log_prob(model, tokens, label, count=2, seed=3)
    for k in range(2):
        order = orders.make(model.order_modes[0], model.grid, rng.derive(3, k).expand(3))
        read, total = orders.gather(tokens, order), torch.zeros(3, dtype=torch.double)
        for i in range(model.num_tokens):
            logits = naive_read(model, label, read[:, :i], order[:, :i], order[:, i : i + 1]).logits[:, 0]
            total += logits.log_softmax(-1)[torch.arange(3), read[:, i]].detach()
        torch.testing.assert_close(logp[:, k].double(), total, atol=1e-4, rtol=1e-5)


def test_no_label_is_the_null_class_and_batches_do_not_matter(model):
    tokens = tiny.batch(model, 5)[0]
    logp = log_prob(model, tokens, count=3)
    assert logp.shape == (5, 3)
    torch.testing.assert_close(logp, log_prob(model, tokens, torch.full((5,), 3), count=3, batch_size=2))
    torch.testing.assert_close(logp[:, :1], log_prob(model, tokens))


@pytest.mark.parametrize("name", ["llamagen", "randar"])
def test_an_order_that_is_always_the_same_is_read_once(name, monkeypatch):
    model, ticks = tiny.model(name), []
    tokens, label, _ = tiny.batch(model)
    forward, calls = model.forward, []
    monkeypatch.setattr(model, "forward", lambda *args: calls.append(args) or forward(*args))
    logp = log_prob(model, tokens, label, 3, "raster", tick=ticks.append)
    assert (ticks, len(calls)) == ([len(tokens)], 1)
    assert torch.equal(logp, log_prob(model, tokens, label, 1, "raster").expand(-1, 3))


def test_samples_of_a_class_are_likeliest_under_it(build):
    """Gibbs' inequality: it holds for the mean over samples of any model."""
    model = build()
    for label in range(3):
        samples = sample(model, torch.full((300,), label), torch.arange(300), Sampling())
        assert class_log_prob(model, samples, count=4).mean((0, 2)).argmax() == label


def test_class_log_prob_is_log_prob_of_each_class(model):
    tokens = tiny.batch(model)[0]
    expected = [log_prob(model, tokens, torch.full((3,), c), 2, None, 5) for c in (2, 0)]
    torch.testing.assert_close(class_log_prob(model, tokens, [2, 0], 2, seed=5), torch.stack(expected, 1))
    assert class_log_prob(model, tokens).shape == (3, 3, 1)


def test_reading_evaluates_and_gives_the_mode_back(build):
    model = build(dropout=0.9)
    tokens = tiny.batch(model)[0]
    expected = log_prob(model, tokens)
    assert torch.equal(log_prob(model.train(), tokens), expected)
    assert model.training


def test_classes_that_are_not_there_are_refused(build):
    with pytest.raises(ValueError, match=r"class 3 is outside 0\.\.2"):
        class_log_prob(build(), tiny.batch(build())[0], [0, 3])
    with pytest.raises(ValueError, match="trained without labels"):
        class_log_prob(build(num_classes=0), tiny.batch(build())[0])


def test_a_likelihood_needs_an_order(model):
    tokens, _, _ = tiny.batch(model)
    with pytest.raises(ValueError, match="at least one order, got 0"):
        log_prob(model, tokens, count=0)


def test_an_order_that_is_cut_short_reads_the_same_as_the_beginning_of_a_whole_one(model):
    tokens, label, _ = tiny.batch(model)
    table, rows = orders_of(model, 2), (torch.arange(3), label, torch.tensor([0, 1, 0]) % len(orders_of(model, 2)))
    whole = torch.cat(list(token_log_prob(model, tokens, table, rows)))
    for length in range(1, model.num_tokens + 1):
        cut = torch.cat(list(token_log_prob(model, tokens, table[:, :length], rows, at_once=2)))
        torch.testing.assert_close(cut, whole[:, :length])


def test_a_batch_is_bounded_by_its_logits(monkeypatch):
    model = tiny.model("randar")
    most = passes_at_once(model, model.num_tokens)
    assert most == model.images_at_once()
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 3 * 4 * model.num_tokens * model.vocab_size)
    assert passes_at_once(model, model.num_tokens) == 3
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 1)
    assert passes_at_once(model, model.num_tokens) == 1
    tokens, ticks = tiny.batch(model)[0], []
    log_prob(model, tokens, count=2, tick=ticks.append)
    assert ticks == [1] * 6


def test_surprise_is_what_likelihood_is_made_of(model):
    tokens, label, _ = tiny.batch(model)
    found = surprisal(model, tokens, label, 4, seed=2)
    assert found.shape == tokens.shape
    torch.testing.assert_close(-found.sum(1), log_prob(model, tokens, label, 4, seed=2).mean(1))
    torch.testing.assert_close(surprisal(model, tokens), surprisal(model, tokens, torch.full((3,), 3)))


def test_exact_surprise_is_of_a_token_that_comes_last(model):
    tokens, label, _ = tiny.batch(model)
    if model.raster_only:
        with pytest.raises(ValueError, match="never all others: leave exact out"):
            surprisal(model, tokens, exact=True)
        return
    found = surprisal(model, tokens, label, 2, exact=True, seed=4)
    for position in range(model.num_tokens):
        expected = torch.zeros(3)
        read_in = orders_of(model, 2, seed=4)  # RAR reads one by default
        for order in read_in:
            moved = torch.cat((order[order != position], torch.tensor([position]))).expand(3, -1)
            expected -= model(tokens, label, moved)[:, -1].log_softmax(-1).detach()[
                range(3), tokens[:, position]
            ] / len(read_in)
        torch.testing.assert_close(found[:, position], expected, atol=1e-5, rtol=1e-4)


def test_by_default_surprise_is_of_sixteen_orders_from_seed_0(build):
    model = build()
    tokens = tiny.batch(model)[0]
    assert torch.equal(surprisal(model, tokens), surprisal(model, tokens, count=16, seed=0))
    if len(orders_of(model, 2)) > 1:
        assert not torch.equal(surprisal(model, tokens), surprisal(model, tokens, seed=1))


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_exact_surprise_counts_a_pass_for_each_token_order_and_image(at_once, monkeypatch):
    model, ticks = tiny.model("randar"), []
    monkeypatch.setattr(likelihood, "passes_at_once", lambda *_: at_once)
    surprisal(model, tiny.batch(model)[0], count=2, exact=True, tick=ticks.append)
    total = 2 * 3 * model.num_tokens
    assert ticks == [at_once] * (total // at_once) + [total % at_once] * (total % at_once > 0)


def test_a_batch_size_is_the_passes_at_once():
    model, ticks = tiny.model("randar"), []
    log_prob(model, tiny.batch(model, 5)[0], count=3, batch_size=4, tick=ticks.append)
    assert ticks == [4, 4, 4, 3]
