from dataclasses import replace

import pytest
import torch
from material import data, weights_of
from randfeat.pretrain import RuntimeConfig, TrainingConfig, train
from randfeat.pretrain.optim import EMA, learning_rate
from torch import nn


def rates(config, *steps):
    return [learning_rate(step, config) / config.learning_rate for step in steps]


def test_the_learning_rate_rises_then_falls():
    config = TrainingConfig(steps=110, warmup=10, final_lr_ratio=0.1)
    assert rates(config, 0, 4, 9, 10) == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rates(config, 60, 110, 500) == pytest.approx([0.55, 0.1, 0.1])  # half of the way, and its end


def test_the_other_schedules():
    constant = TrainingConfig(steps=100, warmup=10, schedule="constant")
    assert rates(constant, 4, 9, 50, 99) == pytest.approx([0.5, 1, 1, 1])
    linear = TrainingConfig(steps=100, warmup=10, schedule="linear-end", decay_steps=20, final_lr_ratio=0.2)
    assert rates(linear, 4, 50, 80, 90, 100) == pytest.approx([0.5, 1, 1, 0.6, 0.2])
    assert rates(replace(linear, decay_steps=100), 4) == pytest.approx([0.5])  # the warm-up goes before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be 0 or more"),
        ({"label_dropout": 1.5}, "label_dropout must be from 0 to 1, got 1.5"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"schedule": "sine"}, "schedule must be cosine, constant, linear-end or cosine-end, got 'sine'"),
        ({"schedule": "linear-end"}, "decay_steps belongs to schedule linear-end"),
        ({"decay_steps": 5}, "decay_steps belongs to schedule linear-end"),
        ({"schedule": "linear-end", "decay_steps": 1001}, "decay_steps must be from 1 to 1000"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        TrainingConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "half"}, "precision must be float32 or bfloat16, got 'half'"),
        ({"parallel": "tensor"}, "parallel must be ddp or fsdp"),
        ({"micro_batch": -1}, "micro_batch must be 0 or more"),
        ({"keep": 0}, "keep must be 1 or more"),
    ],
)
def test_choices_out_of_range_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        RuntimeConfig(**wrong)


def test_only_matrices_decay(fresh):
    """With a loss that is flat everywhere, decay alone moves the weights."""
    flat = TrainingConfig(steps=12, batch_size=8, learning_rate=0.01, warmup=0, schedule="constant", weight_decay=0.1)
    model = fresh(vocab_size=1)
    before = weights_of(model)
    train(model, *data(vocab=1), None, flat)
    for name, value in model.state_dict().items():
        exempt = value.ndim == 1 or name in getattr(model, "not_decayed", ())
        factor = 1 if exempt else (1 - 0.01 * 0.1) ** 12
        torch.testing.assert_close(value, before[name] * factor)


def test_gradients_are_clipped_by_their_common_norm(fresh):
    """Adam hardly sees a factor, so the first moments tell."""
    model, norms = fresh(), []
    train(
        model, *data(), None, TrainingConfig(steps=1, clip=1e-3), on_step=lambda step: norms.append(step.gradient_norm)
    )
    assert norms[0] > 1e-3
    total = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert total.item() == pytest.approx(1e-3, rel=1e-3)


def test_an_average_is_put_in_place_and_taken_out_again():
    layer = nn.Linear(2, 2)
    average = EMA(layer, 0.75)
    first = weights_of(layer)
    average.update()
    with torch.no_grad():
        layer.weight += 4
    average.update()
    moved = weights_of(layer)
    with average.in_place():
        torch.testing.assert_close(layer.weight, first["weight"] + 1)
    assert torch.equal(layer.weight, moved["weight"])
