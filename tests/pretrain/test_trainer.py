import copy
import math
from dataclasses import replace

import pytest
import tiny
import torch
from material import data, same, weights_of
from randfeat.pretrain import Batches, Objective, RuntimeConfig, TrainingConfig, generator, train, validate
from torch import nn

from randfeat.inference import likelihood
from randfeat.models import orders
from randfeat.utils import rng

QUICK = TrainingConfig(steps=12, batch_size=8, learning_rate=0.01, warmup=2, eval_every=6)


# the loss ---------------------------------------------------------------------------------------------------


def test_an_untrained_model_knows_nothing(fresh):
    model = fresh(vocab_size=11)
    assert (validate(model, *data(), QUICK) == pytest.approx(math.log(11), rel=1e-6)) == model.zero_head


@pytest.mark.parametrize("labelled", [True, False])
def test_validation_is_as_trained_and_always_the_same(build, labelled):
    model, (tokens, labels) = build(dropout=0.5).train(), data()
    labels = labels if labelled else None
    value = validate(model, tokens, labels, QUICK)
    assert model.training
    assert validate(model, tokens, labels, replace(QUICK, seed=5, batch_size=3, label_dropout=0.9)) == value
    raster = validate(model, tokens, labels, replace(QUICK, order="raster"))
    assert raster == pytest.approx(-likelihood.log_prob(model, tokens, labels, mode="raster").mean().item() / 6)
    assert (raster == pytest.approx(value, rel=1e-6)) != model.many_orders


def test_what_each_place_adds_to_validation(model):
    tokens, labels = data(length=model.num_tokens)
    by_place = generator.losses_by_place(Objective(model), model, tokens, labels, "raster")
    log_p = model(tokens, labels, orders.make("raster", model.grid, torch.zeros(20)).contiguous()).log_softmax(-1)
    expected = -log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).mean(0)
    torch.testing.assert_close(by_place.float(), expected.detach())


def test_other_orders_are_measured_on_images_of_all_classes(monkeypatch):
    monkeypatch.setattr(generator, "OTHER_ORDERS_ON", 4)
    tokens, labels = data()
    model, found = tiny.model("randar"), {}
    config = replace(QUICK, steps=2, eval_every=2, order="random")

    def judge(one):
        found.update({order: one.measure(order) for order in ("raster", "random")})
        few = slice(None, None, -(-len(tokens) // 4))
        found["few"] = generator.losses_by_place(Objective(one.model), one.model, tokens[few], labels[few], "raster")

    train(model, tokens, labels, (tokens, labels), config, on_validation=judge)
    torch.testing.assert_close(found["raster"], found["few"])
    assert found["random"].mean().item() == pytest.approx(validate(model, tokens, labels, config))


# training ---------------------------------------------------------------------------------------------------


def test_a_few_steps_learn_something(fresh):
    tokens = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 6, 5, 5, 0, 0]]).repeat(10, 1)
    labels = torch.tensor([0, 1]).repeat(10)
    model, told, judged = fresh(), [], []
    config = replace(QUICK, steps=60, eval_every=25)
    history = train(model, tokens, labels, (tokens, labels), config, on_step=told.append, on_validation=judged.append)
    assert (history.train[0][1] == pytest.approx(math.log(7))) == model.zero_head
    best = min(history.validation, key=lambda measured: measured[1])
    assert best[1] < 0.7 * math.log(7)
    assert history.kept_step == best[0]
    assert history.best == best[1]
    assert validate(model, tokens, labels, QUICK) == pytest.approx(best[1])
    assert history.train == [(step.step, step.loss) for step in told]
    assert [step.step for step in told] == list(range(1, 61))
    assert {step.images for step in told} == {4, 8}
    assert all(step.gradient_norm > 0 and step.seconds > 0 and step.learning_rate > 0 for step in told)
    assert history.validation == [(one.step, one.loss) for one in judged]
    assert [step for step, _ in history.validation] == [25, 50, 60]
    assert all(one.by_place.mean().item() == one.loss for one in judged)
    assert history.seconds > 0
    assert not model.training


def test_training_is_a_function_of_its_seed(fresh):
    untrained = fresh(dropout=0.2)
    results = []
    for noise, config in ((0, QUICK), (1, QUICK), (0, replace(QUICK, seed=1))):
        model = copy.deepcopy(untrained)
        torch.rand(noise)  # whatever was drawn before
        before = torch.get_rng_state()
        history = train(model, *data(), data(), config)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((weights_of(model), history.train))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_training_without_labels_is_training_with_all_of_them_dropped(fresh, num_classes):
    model, (tokens, labels) = fresh(num_classes=num_classes), data()
    other = copy.deepcopy(model)
    train(model, tokens, None, (tokens, None), QUICK)
    train(other, tokens, labels, (tokens, None), replace(QUICK, label_dropout=1.0))
    assert same(weights_of(model), weights_of(other))


def test_an_array_of_the_disk_is_as_a_tensor(fresh):
    model, (tokens, labels) = fresh(), data()
    other = copy.deepcopy(model)
    train(model, tokens, labels, None, QUICK)
    train(other, tokens.numpy().astype("uint16")[:, None], labels, None, QUICK)
    assert same(weights_of(model), weights_of(other))


@pytest.mark.parametrize("micro_batch", [1, 3, 8, 100])
def test_pieces_of_a_step_are_as_the_whole(fresh, micro_batch):
    model = fresh()
    other = copy.deepcopy(model)
    config = replace(QUICK, steps=6)
    whole = train(model, *data(), None, config)
    pieces = train(other, *data(), None, config, RuntimeConfig(micro_batch=micro_batch))
    for (_, a), (_, b) in zip(whole.train, pieces.train, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    for name, value in other.state_dict().items():
        expected = model.state_dict()[name]
        if name.endswith("qkv.bias"):  # that of keys changes nothing: its gradient is rounding, which Adam scales up
            value, expected = (torch.cat((one.chunk(3)[0], one.chunk(3)[2])) for one in (value, expected))
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=2e-5)


def test_the_choices_of_a_run_change_no_more_than_rounding(fresh):
    untrained = fresh(dropout=0.2)
    losses = []
    for running in (RuntimeConfig(), RuntimeConfig(recompute=True), RuntimeConfig(precision="bfloat16")):
        model = copy.deepcopy(untrained)
        losses.append([loss for _, loss in train(model, *data(), None, QUICK, running).train])
        assert model.dtype == torch.float32
    assert losses[0] == losses[1]
    assert losses[2] != losses[0]
    assert losses[2] == pytest.approx(losses[0], rel=0.02)


def scripted(monkeypatch, values):
    """Validation that says `values` one after the other and keeps the weights that it saw."""
    seen = []

    def judge(objective, model, *_):
        seen.append(weights_of(model))
        return torch.tensor([values[len(seen) - 1]], dtype=torch.float64)

    monkeypatch.setattr(generator, "losses_by_place", judge)
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
    history = train(model, *data(), held_out, QUICK, on_step=lambda _: path.append(weights_of(model)))
    assert same(weights_of(model), path[-1])
    assert history.kept_step == (12 if validation == "none" else 0)


def test_averaged_weights_are_judged_and_kept(fresh):
    model, path, judged = fresh(), [], []
    config = replace(QUICK, ema=0.8, eval_every=12)
    history = train(
        model,
        *data(),
        data(),
        config,
        on_step=lambda _: path.append(weights_of(model)),
        on_validation=lambda one: judged.append(weights_of(one.model)),
    )
    average = path[0]
    for weights in path[1:]:
        average = {name: 0.8 * average[name] + 0.2 * value for name, value in weights.items()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=1e-5)
    assert same(judged[0], weights_of(model))
    assert validate(model, *data(), config) == pytest.approx(history.validation[-1][1])
    assert not same(weights_of(model), path[-1])


def test_dropout_of_a_step_is_seeded_by_the_step_and_of_a_piece_by_its_number(fresh, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    train(fresh(), *data(16), None, replace(QUICK, seed=4), RuntimeConfig(micro_batch=4))
    assert seeds == [int(rng.derive(4, step, 3)) + piece for step in range(1, 13) for piece in (0, 1)]


# steps that are not finite ----------------------------------------------------------------------------------


def explode(model, steps):
    """Makes the gradients of these steps infinite."""
    count = 0

    def hook(gradient):
        nonlocal count
        count += 1
        return gradient * math.inf if count in steps else gradient

    (model.head.weight if model.norm.weight is None else model.norm.weight).register_hook(hook)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_step_that_is_not_finite_changes_nothing(fresh, ema):
    model, path, norms = fresh(), [], []
    explode(model, {3, 4, 7})

    def note(step):
        path.append(weights_of(model))
        norms.append(step.gradient_norm)

    history = train(model, *data(), None, replace(QUICK, ema=ema, max_not_finite=3), on_step=note)
    assert history.skipped == [3, 4, 7]
    assert [step for step, _ in history.train] == [1, 2, 5, 6, 8, 9, 10, 11, 12]
    assert [i for i in range(1, 12) if same(path[i - 1], path[i])] == [2, 3, 6]
    assert [i for i, norm in enumerate(norms, 1) if not math.isfinite(norm)] == [3, 4, 7]
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_too_many_of_them_in_a_row_end_training(fresh):
    model = fresh()
    explode(model, {2, 5, 6, 7})
    with pytest.raises(RuntimeError, match="not finite in 3 steps in a row, the last of them 7: lower learning_rate"):
        train(model, *data(), None, replace(QUICK, max_not_finite=3))


def test_batches_and_validation_refuse_an_order_that_the_model_does_not_know(fresh):
    model = fresh()
    with pytest.raises(ValueError, match="order 'spiral' is none of"):
        Batches(data()[0], None, model, replace(QUICK, order="spiral"))


def test_the_model_that_is_wrapped_is_left_as_it_was(fresh):
    model = fresh()
    kinds = [type(module) for module in model.modules()]
    train(model, *data(), None, replace(QUICK, steps=2), RuntimeConfig(recompute=True))
    assert [type(module) for module in model.modules()] == kinds
    assert isinstance(model, nn.Module)
    assert not any(getattr(module, "checkpointing", False) for module in model.modules())


@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_get_real_numbers_and_give_the_same(fresh, monkeypatch, recompute):
    """torch's compiler itself takes minutes."""
    model, seen = fresh(), []
    other = copy.deepcopy(model)

    def compile_(function):
        def call(x, rope, *args, **kwargs):
            seen.append(rope is not None and rope.is_complex())
            return function(x, rope, *args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    plain = train(model, *data(), None, replace(QUICK, steps=3))
    compiled = train(other, *data(), None, replace(QUICK, steps=3), RuntimeConfig(compile=True, recompute=recompute))
    assert seen
    assert not any(seen)
    for (_, a), (_, b) in zip(plain.train, compiled.train, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert not any("_forward" in vars(module) for module in other.modules())
