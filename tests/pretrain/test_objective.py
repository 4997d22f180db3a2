import math

import pytest
import tiny
import torch
import torch.nn.functional as F
from randfeat.pretrain import Objective, RuntimeConfig, cross_entropy, objective
from randfeat.pretrain.parallel import configured_blocks

from randfeat.models import orders


def inputs(model, images=5):
    tokens, label, order = tiny.batch(model, images)
    return tokens, label, order.contiguous()


def plain(model, tokens, label, order):
    logits = model(tokens, label, order)
    return F.cross_entropy(logits.flatten(0, 1), orders.gather(tokens, order).flatten(), reduction="sum")


def gradients(value, model):
    return torch.autograd.grad(value, list(model.parameters()))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_loss_and_gradients_are_those_of_all_logits_at_once(model, monkeypatch, rows):
    monkeypatch.setitem(objective.BYTES_AT_ONCE, "cpu", rows * 4 * model.vocab_size)
    batch, model = inputs(model), model.double()
    total, losses = Objective(model)(*batch)
    expected = plain(model, *batch)
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(losses.sum(), total, rtol=1e-6, atol=0)
    assert not losses.requires_grad
    for ours, theirs in zip(gradients(3 * total, model), gradients(3 * expected, model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again, same = Objective(model)(*batch)
    torch.testing.assert_close(again, total.detach())
    torch.testing.assert_close(same, losses)


def test_each_place_has_its_loss():
    model = tiny.model("randar")
    tokens, label, order = inputs(model)
    _, losses = Objective(model)(tokens, label, order)
    log_p = model(tokens, label, order).log_softmax(-1)
    expected = -log_p.gather(-1, orders.gather(tokens, order).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(losses, expected)


def test_no_more_logits_than_wanted_exist_at_once(monkeypatch):
    seen, matmul = [], objective.matmul

    def look(x, weight):
        seen.append((len(x), len(weight)))
        return matmul(x, weight)

    monkeypatch.setattr(objective, "matmul", look)
    monkeypatch.setitem(objective.BYTES_AT_ONCE, "cpu", 4 * 50 * 16)
    cross_entropy(torch.randn(100, 8), torch.randn(50, 8, requires_grad=True), torch.arange(100) % 50)
    assert [rows for rows, columns in seen if columns == 50] == [16] * 6 + [4]


def test_bfloat16_is_close_and_its_gradients_are_float32(model):
    batch = inputs(model)
    total, _ = Objective(model, in_bfloat16=True)(*batch)
    expected = plain(model, *batch)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=0.02, atol=0)
    names = [name for name, _ in model.named_parameters()]
    for name, ours, theirs in zip(names, gradients(total, model), gradients(expected, model), strict=True):
        assert ours.dtype == torch.float32
        # what is added to all keys of a head changes nothing, so there is rounding alone
        rounding = 0.02 if name.endswith("k_norm.bias") else 1e-3
        assert (ours - theirs).norm() <= 0.15 * theirs.norm() + rounding


@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_computing_activations_again_changes_nothing(build, in_bfloat16):
    model = build(dropout=0.3).train()
    results = []
    for recompute in (False, True):
        with configured_blocks(model, RuntimeConfig(recompute=recompute)):
            torch.manual_seed(5)
            total, _ = Objective(model, in_bfloat16)(*inputs(model))
            results.append((total, *gradients(total, model)))
    assert not any(block.checkpointing for block in model.modules() if hasattr(block, "checkpointing"))
    for once, again in zip(*results, strict=True):
        assert torch.equal(once, again)


def test_a_head_of_zeros_knows_nothing():
    total, _ = cross_entropy(torch.randn(9, 4), torch.zeros(11, 4, requires_grad=True), torch.arange(9))
    assert total.item() == pytest.approx(9 * math.log(11))
