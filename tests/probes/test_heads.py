from dataclasses import replace

import numpy as np
import pytest
import torch
from randfeat.probes import HeadRecipe, TrainedHead, Trial, sweep_heads, train_heads
from randfeat.probes.classifiers.heads import Stack, batches
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from randfeat.utils.learning_rates import warmup_decay

GRID = HeadRecipe("sgd", (0.3, 3.0), (0.0, 0.1), batch=32, epochs=3)


def data(n=150, d=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return (rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32), y


class MAEsLARS(torch.optim.Optimizer):
    """Rule of main_linprobe.py: no trust and no decay for biases."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                change = p.grad
                if p.ndim > 1:
                    change = change + group["weight_decay"] * p
                    change = change * 0.001 * p.norm() / change.norm()
                mu = self.state[p]["mu"] = 0.9 * self.state[p].get("mu", 0) + change
                p -= group["lr"] * mu


OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.95)),
    "lars": MAEsLARS,
}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_head_is_what_torch_trains(optimizer, batch_norm):
    """One nn.Linear per head, by autograd and torch.optim, on the same batches."""
    x, y = data()
    rates, decays = (0.03, 0.3), (0.0, 0.2)
    recipe = HeadRecipe(
        optimizer, rates, decays, 32, iterations=11, warmup=0.3, batch_norm=batch_norm, betas=(0.9, 0.95)
    )
    heads = train_heads({"x": x}, y, recipe, seed=5)
    for rate, decay in recipe.pairs:
        linear, norm = nn.Linear(6, 4), nn.BatchNorm1d(6, 1e-6, momentum=None, affine=False)
        with torch.no_grad():
            linear.weight.copy_(Stack(6, 4, recipe, 5, "cpu").weight[0])
            linear.bias.zero_()
        model = nn.Sequential(norm, linear) if batch_norm else linear
        groups = [{"params": [linear.weight], "weight_decay": decay}, {"params": [linear.bias], "weight_decay": 0}]
        steps = OPTIMIZERS[optimizer](groups)
        for number, rows in zip(range(11), batches(150, 32, 5), strict=False):
            for group in steps.param_groups:
                group["lr"] = rate * 32 / 256 * warmup_decay(number, 11, 0.3 * 11)
            steps.zero_grad()
            nn.functional.cross_entropy(model(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])).backward()
            steps.step()
        expected = model.eval()(torch.from_numpy(x)).detach().numpy()
        found = heads.head(Trial("x", rate, decay)).decision_function(x)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert np.abs(expected).max() > 0.01


def test_a_head_does_not_depend_on_those_beside_it():
    (x, y), held_out = data(), np.arange(150) % 5 == 0
    together = sweep_heads({"x": x, "double": 2 * x}, y, held_out, GRID, seed=3)
    assert len(together.scores) == 8
    for trial, score in together.scores.items():
        features = (2 if trial.features == "double" else 1) * x
        alone = clone(together.heads.head(trial)).fit(features[~held_out], y[~held_out])
        np.testing.assert_allclose(alone.weight_, together.heads.head(trial).weight_, atol=1e-5)
        assert alone.score(features[held_out], y[held_out]) == pytest.approx(score)


def test_the_best_on_the_held_out_is_chosen_and_fitted():
    x, y = data(400)
    noise = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    held_out = np.arange(400) >= 300
    found = sweep_heads(
        {"noise": noise, "signal": x}, y, held_out, replace(GRID, learning_rates=(1e-6, 3.0), epochs=20)
    )
    assert found.best[:2] == ("signal", 3.0)
    assert found.score == max(found.scores.values()) == found.probe.score(x[held_out], y[held_out])
    assert found.score > 0.6
    proba = found.probe.predict_proba(x)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (found.probe.classes_[proba.argmax(1)] == found.probe.predict(x)).all()


def test_sgd_comes_to_the_optimum():
    x, y = data(300)
    head = TrainedHead(HeadRecipe("sgd", (2.0,), (0.01,), 300, iterations=3000)).fit(x, y)
    best = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8).fit(x, y)
    np.testing.assert_allclose(head.predict_proba(x), best.predict_proba(x), atol=2e-3)


def test_memory_maps_of_half_precision_are_read(tmp_path):
    x, y = data()
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = (train_heads({"x": v}, y, GRID) for v in (mapped, x.astype(np.float16).astype(np.float32)))
    assert (a.head(a.trials[0]).weight_ == b.head(b.trials[0]).weight_).all()


def test_groups_of_heads_do_not_change_them(monkeypatch):
    x, y = data()
    whole = train_heads({"x": x}, y, GRID)
    monkeypatch.setattr("randfeat.probes.classifiers.heads._BLOCK", 1)
    for trial in whole.trials:
        np.testing.assert_allclose(
            train_heads({"x": x}, y, GRID).head(trial).weight_, whole.head(trial).weight_, atol=1e-6
        )


@pytest.mark.parametrize(("images", "batch"), [(10, 3), (10, 10), (10, 99), (7, 2)])
def test_an_epoch_shows_no_image_twice(images, batch):
    steps = images // min(batch, images)
    stream = batches(images, batch, seed=0)
    epochs = [np.concatenate([next(stream) for _ in range(steps)]) for _ in range(3)]
    for rows in epochs:
        assert len(set(rows)) == len(rows) == steps * min(batch, images)
    assert len({tuple(rows) for rows in epochs}) == 3 or batch >= images
    assert HeadRecipe(batch=batch, epochs=3).steps(images) == 3 * steps


def test_recipes_of_papers():
    mae, dinov2, capi = HeadRecipe.mae(), HeadRecipe.dinov2(), HeadRecipe.capi()
    assert [len(r.pairs) for r in (mae, dinov2, capi)] == [1, 13, 30]
    assert (mae.steps(1_281_167), dinov2.steps(1_281_167)) == (90 * 78, 12_500)
    assert mae.factor(10 * 78, 1_281_167) == pytest.approx(64)
    assert dinov2.factor(0, 1_281_167) == 4
    assert [warmup_decay(step, 90, 18) for step in (0, 9, 18, 54)] == [0, 0.5, 1, pytest.approx(0.5)]


def test_odd_data():
    """Strings, one image a class, a class that only the held-out part has, two images, constant features."""
    x, names = np.eye(5, dtype=np.float32), np.array(list("abcde"))
    recipe = HeadRecipe("sgd", (30.0,), batch=5, epochs=200)
    assert (TrainedHead(recipe).fit(x, names).predict(x) == names).all()
    found = sweep_heads({"x": x}, names, names == "e", recipe)
    assert found.score == 0
    assert set(found.probe.classes_) == set("abcd")
    two = TrainedHead(replace(recipe, batch_norm=True)).fit(x[:2], names[:2])
    assert two.decision_function(x[:2]).shape == (2,)
    assert (two.predict(x[:2]) == names[:2]).all()
    constant = TrainedHead(replace(recipe, batch_norm=True)).fit(np.ones((6, 2)), [0, 1, 1, 1, 1, 0])
    assert (constant.predict(np.ones((4, 2))) == 1).all()


def test_a_diverged_head_is_not_chosen():
    x, _ = data()
    y = np.arange(150) % 10 // 9  # nine of ten are of the first class, which the largest of NaNs means, too
    recipe = HeadRecipe("sgd", (1e38, 1e-6), batch=32, epochs=3)
    found = sweep_heads({"x": 1e3 * x}, y, np.arange(150) % 5 == 0, recipe)
    assert found.best.learning_rate == 1e-6
    assert found.scores["x", 1e38, 0.0] == 0


def test_bad_input():
    x, y = data()
    held_out = np.arange(150) < 50
    bad = x.copy()
    bad[[3, 70]] = np.nan
    with pytest.raises(ValueError, match=r"features 'L6' hold NaN or infinity in 2 of 150 rows \(first: 3, 70\)"):
        sweep_heads({"L6": bad}, y, held_out, GRID)
    with pytest.raises(ValueError, match="labels hold one class"):
        sweep_heads({"x": x}, y * 0, held_out, GRID)
    with pytest.raises(ValueError, match=r"expected \(n, d\); pool them"):
        sweep_heads({"x": x[:, :, None]}, y, held_out, GRID)
    with pytest.raises(ValueError, match="expected one number for all"):
        sweep_heads({"x": x, "z": x[1:]}, y, held_out, GRID)
    with pytest.raises(ValueError, match="features have no rows"):
        sweep_heads({}, y, held_out, GRID)
    with pytest.raises(ValueError, match="leave some to fit"):
        sweep_heads({"x": x}, y, held_out | True, GRID)
    with pytest.raises(ValueError, match="expected bool"):
        sweep_heads({"x": x}, y, held_out.astype(int), GRID)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam", "epochs": 1}, "expected one of sgd, adamw, lars"),
        ({}, "expected one of the two"),
        ({"epochs": 1, "iterations": 1}, "expected one of the two"),
        ({"epochs": 0}, "at least one epoch"),
        ({"epochs": 1, "batch": 1}, "a batch of 2 or more"),
        ({"epochs": 1, "warmup": 1.0}, "a share below 1"),
        ({"epochs": 1, "learning_rates": ()}, "one number or more"),
        ({"epochs": 1, "weight_decays": (-1.0,)}, "decays from 0"),
    ],
)
def test_bad_recipes(options, message):
    with pytest.raises(ValueError, match=message):
        HeadRecipe(**options)
