import pytest
import torch

from randfeat.utils.onednn import linear


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


def test_without_onednn(monkeypatch):
    monkeypatch.setattr("randfeat.utils.onednn.has_onednn", lambda: False)
    x, weight = torch.randn(5, 3), torch.randn(4, 3)
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
