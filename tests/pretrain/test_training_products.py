import pytest
import torch
import torch.nn.functional as F
from torch import nn

from randfeat.utils import training_products
from randfeat.utils.training_products import by_onednn, pays, product


@pytest.fixture
def large():
    """A layer, and inputs large enough; whoever has no oneDNN is tested with torch's own product."""
    layer, x = nn.Linear(96, 128, bias=False), torch.randn(3, 150, 96, requires_grad=True)
    assert x.numel() * 128 >= training_products.LARGE
    return layer, x


def test_values_and_gradients_are_those_of_torch(large):
    layer, x = large
    assert "forward" not in vars(layer)
    expected = F.linear(x, layer.weight)
    slopes = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, layer.weight), slopes)
    with by_onednn(nn.Sequential(layer)):
        made = layer(x)
        assert not pays(x, layer.weight) or "_Linear" in type(made.grad_fn).__name__
        found = torch.autograd.grad(made, (x, layer.weight), slopes)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(layer)
    torch.testing.assert_close(product(x.detach(), layer.weight.detach()), expected.detach(), rtol=1e-5, atol=1e-5)


def test_inputs_that_need_no_gradient_get_none(large):
    layer, x = large
    with by_onednn(layer):
        layer(x.detach()).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum((0, 1)).expand(128, -1), rtol=1e-3, atol=1e-3)
    assert x.grad is None


def test_small_ones_and_other_types_are_left_to_torch(large):
    layer, x = large
    assert not pays(x[:, :1], layer.weight)
    assert not pays(x.double(), layer.weight.double())
    with by_onednn(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
