import copy
import math
from dataclasses import replace

import pytest
import tiny
import torch
from randfeat.pretrain import engine
from randfeat.pretrain.engine import (
    Training,
    batches,
    learning_rate_factor,
    loss,
    make_batch,
    train,
    validate,
)

from randfeat import likelihood, orders, seeding
from randfeat.models import create, name_of

QUICK = Training(steps=12, batch_size=8, learning_rate=0.01, warmup=2, eval_every=6)


@pytest.fixture
def fresh(build):
    """Each generator as training finds it: its head is zero."""

    def make(**config):
        model = build(**config)
        return create(name_of(model), **model.config)

    return make


def data(count=20, vocab=7, length=6):
    """Tokens that tell their row, in base V; labels 0, 1, 2, 0, 1, 2, ..."""
    rows = torch.arange(count)
    digits = [rows // vocab**i % vocab for i in range(length)]
    return torch.stack(digits, 1), rows % 3


def weights_of(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


# what a step sees -------------------------------------------------------------------------------------------


def shown(config, tokens, labels):
    """(epoch, row) -> (label, order), and the rows in the sequence in which they came."""
    model, (every, _) = tiny.model("arpg"), data(500)
    seen, sequence = {}, []
    for batch in batches(tokens, labels, model, config):
        for row, label, order in zip(batch.tokens, batch.labels.tolist(), batch.order.tolist(), strict=True):
            number = int((every == row).all(1).nonzero())
            seen[len(sequence) // len(tokens), number] = label, order
            sequence.append(number)
    return seen, sequence


def test_an_epoch_shows_every_image_once():
    config = Training(steps=9, batch_size=8)  # three epochs of 8, 8 and 4
    _, sequence = shown(config, *data())
    epochs = [sequence[i : i + 20] for i in (0, 20, 40)]
    assert len(sequence) == 60
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_image_is_shown_as_a_function_of_seed_epoch_and_row():
    config = Training(steps=9, batch_size=8, label_dropout=0.3)
    seen, sequence = shown(config, *data())
    again, same_sequence = shown(replace(config, batch_size=5, steps=12), *data())
    assert again == seen  # whatever the batch
    assert same_sequence == sequence
    other, other_sequence = shown(replace(config, seed=1), *data())
    assert other_sequence != sequence
    assert all(other[key][1] != seen[key][1] for key in seen if seen[key][1] != sorted(seen[key][1]))
    of_row_3 = [seen[epoch, 3][1] for epoch in range(3)]
    assert len({tuple(order) for order in of_row_3}) == 3  # a fresh order in every epoch
    for (_, row), (label, order) in seen.items():
        assert sorted(order) == list(range(6))
        assert label in (row % 3, 3)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_labels_is_dropped(share):
    tokens, labels = data(4000)
    batch = make_batch(tokens, labels, tiny.model("arpg"), Training(label_dropout=share), 0, torch.arange(4000))
    dropped = batch.labels == 3
    assert abs(dropped.double().mean() - share) <= 4 * math.sqrt(share * (1 - share) / 4000)
    assert torch.equal(batch.labels[~dropped], labels[~dropped])


def test_another_order_mode_is_every_image_s():
    tokens, labels = data()
    batch = make_batch(tokens, labels, tiny.model("arpg"), Training(order="columns"), 0, torch.tensor([3, 1]))
    assert batch.order.tolist() == [orders.columns((2, 3)).tolist()] * 2
    assert torch.equal(batch.tokens, tokens[[3, 1]])


# the loss ---------------------------------------------------------------------------------------------------


def test_an_untrained_model_knows_nothing(fresh):
    model = fresh(vocab_size=11)
    batch = make_batch(*data(), model, QUICK, 0, torch.arange(20))
    assert loss(model, batch).item() == pytest.approx(math.log(11), rel=1e-6)
    assert validate(model, *data(), QUICK) == pytest.approx(math.log(11), rel=1e-6)


def test_the_loss_is_the_mean_log_likelihood(model):
    tokens, label, _ = tiny.batch(model, 5)
    batch = make_batch(tokens, label, model, Training(order="raster", label_dropout=0.0), 0, torch.arange(5))
    expected = -likelihood.log_prob(model, tokens, label, mode="raster").mean() / model.num_tokens
    torch.testing.assert_close(loss(model, batch).detach(), expected)


@pytest.mark.parametrize("labelled", [True, False])
def test_validation_is_as_trained_and_always_the_same(build, labelled):
    model, (tokens, labels) = build(dropout=0.5).train(), data()
    labels = labels if labelled else None
    value = validate(model, tokens, labels, QUICK)
    assert model.training
    assert validate(model, tokens, labels, replace(QUICK, seed=5, batch_size=3, label_dropout=0.9)) == value
    raster = validate(model, tokens, labels, replace(QUICK, order="raster"))
    assert raster == pytest.approx(-likelihood.log_prob(model, tokens, labels, mode="raster").mean().item() / 6)
    assert (raster == value) == model.raster_only


# training ---------------------------------------------------------------------------------------------------


def test_a_few_steps_learn_something(fresh):
    tokens = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 6, 5, 5, 0, 0]]).repeat(10, 1)
    labels = torch.tensor([0, 1]).repeat(10)
    model, calls = fresh(), []
    history = train(
        model,
        tokens,
        labels,
        (tokens, labels),
        replace(QUICK, steps=60, eval_every=25),
        lambda *step: calls.append(step),
    )
    assert history.train[0][1] == pytest.approx(math.log(7))
    best = min(history.validation, key=lambda measured: measured[1])
    assert best[1] < 0.7 * math.log(7)
    assert history.kept_step == best[0]
    assert validate(model, tokens, labels, QUICK) == best[1]
    assert history.train == calls
    assert [step for step, _ in calls] == list(range(1, 61))
    assert [step for step, _ in history.validation] == [25, 50, 60]
    assert history.seconds > 0
    assert not model.training


def test_training_is_a_function_of_its_seed(fresh):
    untrained, state = fresh(dropout=0.2), torch.get_rng_state()
    results = []
    for noise, config in ((0, QUICK), (1, QUICK), (0, replace(QUICK, seed=1))):
        model = copy.deepcopy(untrained)
        torch.rand(noise)  # whatever was drawn before
        before = torch.get_rng_state()
        history = train(model, *data(), data(), config)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((weights_of(model), history.train))
    assert not torch.equal(torch.get_rng_state(), state)
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_without_labels_the_null_class_is_all_that_is_seen(fresh, num_classes):
    model, (tokens, labels) = fresh(num_classes=num_classes), data()
    assert all((batch.labels == num_classes).all() for batch in batches(tokens, None, model, QUICK))
    other = copy.deepcopy(model)
    train(model, tokens, None, (tokens, None), QUICK)
    train(other, tokens, labels, (tokens, None), replace(QUICK, label_dropout=1.0))
    assert same(weights_of(model), weights_of(other))


def scripted(monkeypatch, values):
    """Validation that says `values` one after the other and keeps the weights that it saw."""
    seen = []

    def judge(model, *_):
        seen.append(weights_of(model))
        return values[len(seen) - 1]

    monkeypatch.setattr(engine, "validate", judge)
    return seen


@pytest.mark.parametrize(("patience", "steps_run"), [(2, 8), (0, 12), (5, 12)])
def test_the_best_weights_are_kept(fresh, monkeypatch, patience, steps_run):
    seen = scripted(monkeypatch, [3.0, 2.0, 2.0, 2.5, 4.0, 3.0])
    model = fresh()
    history = train(model, *data(), data(), replace(QUICK, eval_every=2, patience=patience))
    assert history.kept_step == 4  # the first of equals
    assert len(history.train) == steps_run
    assert same(weights_of(model), seen[1])
    assert not same(seen[1], seen[-1])


@pytest.mark.parametrize("validation", ["none", "not a number"])
def test_the_last_weights_are_kept_where_nothing_is_measured(fresh, monkeypatch, validation):
    scripted(monkeypatch, [math.nan] * 2)
    model, path = fresh(), []
    held_out = None if validation == "none" else data()
    history = train(model, *data(), held_out, QUICK, lambda *_: path.append(weights_of(model)))
    assert same(weights_of(model), path[-1])
    assert history.kept_step == (12 if validation == "none" else 0)


def test_averaged_weights_are_judged_and_kept(fresh):
    model, path = fresh(), []
    config = replace(QUICK, ema=0.8, eval_every=12)
    history = train(model, *data(), data(), config, lambda *_: path.append(weights_of(model)))
    average = path[0]
    for weights in path[1:]:
        average = {name: 0.8 * average[name] + 0.2 * value for name, value in weights.items()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=1e-5)
    assert validate(model, *data(), config) == history.validation[-1][1]
    assert not same(weights_of(model), path[-1])


def test_the_learning_rate_rises_then_falls():
    config = Training(steps=110, warmup=10, final_lr_ratio=0.1)
    assert [learning_rate_factor(step, config) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert learning_rate_factor(60, config) == pytest.approx(0.55)  # half of the way
    assert learning_rate_factor(110, config) == learning_rate_factor(500, config) == pytest.approx(0.1)


def test_only_matrices_decay(fresh):
    """With a loss that is flat everywhere, decay alone moves the weights."""
    flat = dict(warmup=0, final_lr_ratio=1.0, weight_decay=0.1, eval_every=12)
    model = fresh(vocab_size=1)
    before = weights_of(model)
    train(model, *data(vocab=1), data(vocab=1), replace(QUICK, **flat))
    for name, value in model.state_dict().items():
        factor = (1 - 0.01 * 0.1) ** 12 if value.ndim > 1 else 1
        torch.testing.assert_close(value, before[name] * factor)


def test_dropout_of_a_step_is_seeded_by_the_step(fresh, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    train(fresh(), *data(), data(), replace(QUICK, seed=4))
    assert seeds == [int(seeding.derive(4, step, 3)) for step in range(1, 13)]


def test_crops_are_shown_in_a_share_that_falls_to_none_and_one_crop_is_as_none():
    model = tiny.model("randar", (2, 2))
    rows = torch.arange(2000)
    crops = torch.stack([torch.full((2000, 4), crop) for crop in range(3)], 1)  # every token tells its crop
    config = Training(other_crops=0.4, steps=100, batch_size=200)  # ten epochs
    shown = engine.make_batch(crops, None, model, config, 0, rows).tokens[:, 0]
    shares = torch.bincount(shown, minlength=3) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.2, 0.2]), atol=0.03, rtol=0)
    halfway = engine.make_batch(crops, None, model, config, 5, rows).tokens[:, 0]
    assert (halfway > 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not engine.make_batch(crops, None, model, config, 10, rows).tokens.any()
    assert not torch.equal(shown, engine.make_batch(crops, None, model, config, 1, rows).tokens[:, 0])
    plain = engine.make_batch(crops[:, 1], None, model, config, 0, rows)
    assert torch.equal(plain.tokens, engine.make_batch(crops[:, 1:2], None, model, config, 0, rows).tokens)
