"""Products by oneDNN are those of torch, where it is there and where it is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from randfeat.utils import onednn
from randfeat.utils.onednn import is_faster, linear, linear_layers, matmul, prepack


@pytest.fixture(params=[True, False], ids=["as-it-is", "without-onednn"])
def onednn_or_not(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(onednn, "has_onednn", lambda: False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (300, 6, 3), (45, 7, 100), (1, 64, 5)])
def test_products_are_right_whatever_the_strides(n, d, m, dtype):
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((n, d), (m, d), (m, 7)))
    expected = x @ weight.T + bias[:, 3]
    x, weight, bias = (part.to(dtype) for part in (x, weight, bias))
    close = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
    for one in (x, x.T.contiguous().T, torch.cat([x, x])[n:], torch.cat([x, x], 1)[:, d:]):
        for other in (weight, weight.T.contiguous().T, torch.cat([weight, weight], 1)[:, d:]):
            torch.testing.assert_close(linear(one, other, bias[:, 3]), expected, **close)
            torch.testing.assert_close(linear(one, other), x.double() @ weight.double().T, **close)


def test_without_onednn_products_are_torch_s_own(monkeypatch):
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    torch.testing.assert_close(linear(x, weight, bias), x @ weight.T + bias)
    assert torch.equal(prepack(weight)(x), F.linear(x, weight))


def test_has_onednn_asks_for_every_operation(monkeypatch):
    expected = onednn.has_onednn()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not onednn.has_onednn()
    monkeypatch.undo()
    assert onednn.has_onednn() == expected
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not onednn.has_onednn()


# prepacked weights ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("onednn_or_not")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_prepacked_weight_gives_the_same_products(rows, dtype, tolerance):
    weight, x = torch.randn(40, 24, dtype=dtype), torch.randn(2, rows, 24, dtype=dtype)
    made = prepack(weight)(x)
    assert made.dtype == dtype
    torch.testing.assert_close(made, F.linear(x, weight), rtol=tolerance, atol=tolerance * 24**0.5)


@pytest.mark.usefixtures("onednn_or_not")
def test_a_prepacked_weight_is_a_copy_and_casts_its_input():
    weight = nn.Parameter(torch.randn(4, 3))
    packed, x = prepack(weight), torch.randn(2, 3)
    before = packed(x)
    assert not before.requires_grad
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(packed(x), before)
    assert packed(x.bfloat16()).dtype == torch.float32


# training ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def large():
    """A layer, and inputs large enough for oneDNN."""
    layer, x = nn.Linear(96, 128, bias=False), torch.randn(3, 150, 96, requires_grad=True)
    assert x.numel() * 128 >= onednn.LARGE
    return layer, x


@pytest.mark.usefixtures("onednn_or_not")
def test_values_and_gradients_are_those_of_torch(large):
    layer, x = large
    assert "forward" not in vars(layer)
    expected = F.linear(x, layer.weight)
    slopes = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, layer.weight), slopes)
    with linear_layers(nn.Sequential(layer)):
        made = layer(x)
        assert ("_Linear" in type(made.grad_fn).__name__) == is_faster(x, layer.weight)
        found = torch.autograd.grad(made, (x, layer.weight), slopes)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(layer)
    torch.testing.assert_close(matmul(x.detach(), layer.weight.detach()), expected.detach(), rtol=1e-5, atol=1e-5)


def test_inputs_that_need_no_gradient_get_none(large):
    layer, x = large
    with linear_layers(layer):
        layer(x.detach()).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum((0, 1)).expand(128, -1), rtol=1e-3, atol=1e-3)
    assert x.grad is None


def test_small_ones_and_other_types_are_left_to_torch(large):
    layer, x = large
    assert not is_faster(x[:, :1], layer.weight)
    assert not is_faster(x.double(), layer.weight.double())
    with linear_layers(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
