import numpy as np
import pytest
import torch
import torch.nn.functional as F
from randfeat.probes import AttentiveProbe
from randfeat.probes.classifiers.attentive import _Head
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

QUICK = {"num_heads": 2, "batch": 32, "epochs": 20, "learning_rate": 1e-2}


def data(n=120, width=8, h=3, w=4, classes=3, seed=0):
    """Noise, but for one position, another one in each image, that shows the class."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width, h * w)).astype(np.float32), np.arange(n) % classes
    x[np.arange(n), :, rng.integers(h * w, size=n)] = 4 * np.eye(width)[y] + 4 * np.eye(width)[-1]
    return x.reshape(n, width, h, w), y


def test_the_head_is_multi_head_attention():
    head = _Head(8, 5, 2).train()
    head.query.data.normal_()
    x = torch.randn(6, 8, 3, 4)
    tokens = nn.BatchNorm1d(8, 1e-6, affine=False)(x.flatten(2)).transpose(1, 2)

    def split(t):
        return t.view(len(t), -1, 2, 4).transpose(1, 2)

    query = head.query.view(1, 1, 8).expand(6, 1, 8)
    pooled = F.scaled_dot_product_attention(split(query), split(head.key(tokens)), split(head.value(tokens)))
    expected = head.linear(pooled.transpose(1, 2).reshape(6, 8))
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(expected.square().sum(), list(head.parameters()))
    found = torch.autograd.grad(head(x).square().sum(), list(head.parameters()))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_it_finds_what_the_mean_over_positions_hides():
    x, y = data(300)
    probe = AttentiveProbe(**QUICK).fit(x[:200], y[:200])
    assert probe.score(x[200:], y[200:]) > 0.9
    proba = probe.predict_proba(x[200:])
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (probe.classes_[proba.argmax(1)] == probe.predict(x[200:])).all()


def test_seeds_decide_and_the_caller_s_random_numbers_stay():
    x, y = data()
    options = QUICK | {"epochs": 2}
    state = torch.get_rng_state()
    a, b, c = (AttentiveProbe(**options, seed=s).fit(x, y).predict_proba(x) for s in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()
    assert (torch.get_rng_state() == state).all()


def test_layers_are_averaged_from_memory_maps(tmp_path):
    x, y = data()
    other = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    for name, array in {"a": x, "b": other}.items():
        np.save(tmp_path / f"{name}.npy", array)
    layers = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab"]
    probe = AttentiveProbe(**QUICK | {"epochs": 2})
    together = clone(probe).fit(layers, y).predict_proba(layers)
    averaged = clone(probe).fit((x + other) / 2, y).predict_proba((x + other) / 2)
    np.testing.assert_allclose(together, averaged, atol=1e-4)


def test_prediction_does_not_depend_on_the_batch():
    x, y = data()
    probe = AttentiveProbe(**QUICK | {"epochs": 2}).fit(x, y)
    np.testing.assert_allclose(probe.predict_proba(x)[50:53], probe.predict_proba(x[50:53]), atol=1e-6)


def test_odd_data():
    x, _ = data(5)
    names = np.array(list("vwxyz"))
    probe = AttentiveProbe(**QUICK | {"epochs": 100}).fit(x, names)
    assert (probe.predict(x) == names).all()
    assert probe.score(x, ["q"] * 5) == 0
    assert AttentiveProbe(**QUICK).fit(x[:2], names[:2]).decision_function(x).shape == (5,)
    constant = AttentiveProbe(**QUICK).fit(np.ones((6, 8, 2, 2), np.float16), [0, 1, 1, 1, 1, 1])
    assert (constant.predict(np.ones((4, 8, 2, 2))) == 1).all()


def test_bad_input():
    x, y = data()
    bad = x.copy()
    bad[[3, 70], 0, 1, 1] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 120 rows \(first: 3, 70\)"):
        AttentiveProbe(**QUICK).fit(bad, y)
    with pytest.raises(ValueError, match="one class"):
        AttentiveProbe(**QUICK).fit(x, y * 0)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(120,\)"):
        AttentiveProbe(**QUICK).fit(x, y[:3])
    with pytest.raises(ValueError, match=r"expected \(n, D, h, w\)"):
        AttentiveProbe(**QUICK).fit(x[:, :, 0], y)
    with pytest.raises(ValueError, match="one for all layers"):
        AttentiveProbe(**QUICK).fit([x, x[:, :, :1]], y)
    with pytest.raises(ValueError, match="heads that divide the width"):
        AttentiveProbe(**QUICK | {"num_heads": 3}).fit(x, y)
    with pytest.raises(NotFittedError):
        AttentiveProbe().predict(x)
    with pytest.raises(ValueError, match="width 4, expected 8"):
        AttentiveProbe(**QUICK | {"epochs": 1}).fit(x, y).predict(x[:, :4])
