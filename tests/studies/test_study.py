"""The study of docs/reading.md: its networks, its search, and all of it on a few digits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from randfeat.pretrain import TrainingConfig, train
from study import part

from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec
from randfeat.models import orders

FULL = "raster/full/token/L0.5/grid2/mean"


def test_nobody_trains_or_chooses_on_test(material):
    seen = {*material.fit, *material.held_out, *material.probed}
    assert not seen & {*material.tested}
    assert not {*material.fit} & {*material.held_out}
    assert not {*material.groups[material.probed]} & {*material.groups[material.tested]}
    assert not {*material.groups[material.fit]} & {*material.groups[material.held_out]}
    assert (len(material.probed), len(material.tested)) == (300, 200)


def test_patches_hold_the_pixels(material):
    image, patches, p = material.images[7], material.patches[7], material.patch
    assert patches.reshape(4, 4, p, p)[1, 2].tolist() == image[p : 2 * p, 2 * p : 3 * p].tolist()


@pytest.mark.parametrize("name", ["randar", "arpg", "raster", "masked", "pixels-mae"])
def test_everybody_costs_the_same(material, name):
    models = part("models")
    one = models.MODELS[name]
    how = models.recipe(one, material, 1000, 1e-3, 0)
    reference = models.training_flops(models.MODELS["randar"], material) * 1000
    assert models.training_flops(one, material) * how.steps == pytest.approx(reference, rel=0.01)


def test_flops_are_those_of_the_products(material):
    """Two for each weight and input of a matrix product, and attention's two products: masked tokens, one layer."""
    models = part("models")
    with torch.device("meta"):
        network = models.build(models.MODELS["masked"], material, 0)
    spec = FeatureSpec.parse("raster/full/token/L1/mean/mean")
    weights = sum(p.numel() for p in network.blocks[0].parameters() if p.ndim == 2)
    tokens = math.prod(material.grid)
    expected = 2 * weights * tokens + 2 * 2 * tokens * tokens * network.embed_dim
    assert models.extraction_flops(network, spec, tokens) == expected


@pytest.mark.parametrize("name", ["masked", "pixels-mae"])
def test_controls_learn_to_fill_in(material, name):
    models = part("models")
    one = models.MODELS[name]
    network, seen = models.build(one, material, 0), models.inputs_of(one, material)
    how = TrainingConfig(steps=40, batch_size=32, learning_rate=3e-3, warmup=5, eval_every=20)
    held_out = (seen[material.held_out].long(), None)
    history = train(network, seen[material.fit], None, held_out, how, objective=one.objective)
    first, last = history.validation[0][1], history.validation[-1][1]
    assert last < first
    (read,) = readout.read(network, seen[:5], [FeatureSpec.parse(FULL)])
    assert read.shape == (5, 4 * network.embed_dim)


def test_a_masked_token_is_not_seen(material):
    """Hidden tokens change what is to be predicted and nothing that predicts it."""
    models, controls = part("models"), part("controls")
    network = models.build(models.MODELS["masked"], material, 0).eval()
    torch.nn.init.normal_(network.head.weight)
    tokens = torch.from_numpy(material.tokens[:1]).repeat(2, 1)
    order = orders.raster(material.grid).expand(2, -1)
    tokens[1, -1] = (tokens[1, -1] + 1) % network.vocab_size  # held out shares are .5 and 1: the last is hidden in both
    seen = []
    network.blocks[0].register_forward_hook(lambda block, given, state: seen.append(given[0]))
    controls.MaskedObjective(network)(tokens[:1], None, order[:1])
    controls.MaskedObjective(network)(tokens[1:], None, order[1:])
    assert torch.equal(*seen)


def test_the_decoder_of_the_autoencoder_sees_a_quarter(material):
    models = part("models")
    one = models.MODELS["pixels-mae"]
    network, seen = models.build(one, material, 0).eval(), models.inputs_of(one, material)[:1].long()
    order = orders.random(material.grid, torch.tensor([3]))
    lengths = []
    network.blocks[0].register_forward_hook(lambda block, given, state: lengths.append(state.shape[1]))
    one.objective(network, False)(seen, None, order)
    assert lengths == [4]


@pytest.mark.parametrize(
    "name", ["randar-prefix", "arpg-prefix", "randar-noise", "arpg-noise", "randar-agree", "arpg-agree"]
)
def test_variants_train_and_are_judged_as_the_plain_recipe(material, name):
    models = part("models")
    one = models.MODELS[name]
    network, seen = models.build(one, material, 0), models.inputs_of(one, material)
    objective = one.objective(network, False)
    order = orders.random(material.grid, torch.arange(6))
    network.train()
    for seed in range(8):  # half of the steps are plain
        torch.manual_seed(seed)
        total, by_place = objective(seen[:6], None, order)
        assert by_place.shape == (6, 16)
        assert total.isfinite()
        total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    network.eval()
    plain = models.MODELS[one.plain].objective(network, False)
    assert torch.equal(objective(seen[:6], None, order)[0], plain(seen[:6], None, order)[0])


def test_images_agree_with_themselves(material):
    """The objective is lower where the pair of an image is the image than where it is another one, and trains so."""
    models, variants = part("models"), part("variants")
    network = models.build(models.MODELS["arpg-agree"], material, 0)
    objective, tokens = variants.Agree(network), torch.from_numpy(material.tokens[:8])
    order = orders.random(material.grid, torch.arange(8))
    network.eval()  # without dropout

    plain = objective.plain(torch.cat((tokens[:4], tokens[:4])), None, order)[0]
    assert torch.equal(
        objective.trained(tokens, None, order, None)[0], objective.trained(tokens, None, order, tokens)[0]
    )
    assert objective.trained(tokens, None, order, None)[0] > plain  # the images are not told apart yet
    shuffled = objective.trained(tokens, None, order, tokens.roll(1, 0))[0]
    apart = shuffled - objective.plain(torch.cat((tokens[:4], tokens.roll(1, 0)[:4])), None, order)[0]
    assert apart > objective.trained(tokens, None, order, None)[0] - plain


def test_crops_are_the_image_and_its_places(material):
    models = part("models")
    one = models.MODELS["arpg-agree-crops"]
    crops, pairs = models.training_inputs(one, material, material.fit[:20])
    assert crops.shape == (20, 5, 16)
    assert torch.equal(crops[:, 0], torch.from_numpy(material.tokens[material.fit[:20]]))
    assert torch.equal(crops[:, 2], pairs[:, 4])
    assert (crops[:, 1:] != crops[:, :1]).any((0, 2)).sum() == 3  # at one of the places it is as it was
    assert models.recipe(one, material, 10, 1e-3, 0).other_crops is None


@pytest.mark.parametrize("name", ["arpg-agree-crops", "randar-crops"])
def test_variants_of_crops_train_and_go_on(material, name, tmp_path, monkeypatch):
    models, units = part("models"), part("units")
    one = models.MODELS[name]
    job = units.Job("digits", name, 0, tmp_path / "none", tmp_path, 6, 1e-3, models.ModelSize(32, 2, 16))
    network, record = units.pretrain(one, material, job, 0)
    assert record["kept_step"] > 0
    again, _ = units.pretrain(one, material, job, 0)  # from its last checkpoint, so nothing is left to do
    for a, b in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["randar", "arpg"])
def test_what_a_prefix_hides_is_hidden(material, name):
    """The tokens that are predicted never reach what predicts them, nor does anything behind them; the known ones do,
    and see each other."""
    models, variants = part("models"), part("variants")
    network = models.build(models.MODELS[name], material, 0).eval()
    torch.nn.init.normal_(network.head.weight)
    tokens, order = torch.from_numpy(material.tokens[:1]), orders.random(material.grid, torch.tensor([1]))
    known, count = 5, tokens.shape[1]

    def losses(changed=None):
        seen = tokens.clone()
        if changed is not None:
            seen[0, order[0, changed]] = (seen[0, order[0, changed]] + 1) % network.vocab_size
        return variants.Prefix(network).behind(seen, None, order, known)[1][0]

    assert torch.equal(losses()[:9], losses(9)[:9])
    assert not torch.equal(losses()[9:], losses(9)[9:])
    assert (losses()[known:] != losses(0)[known:]).all()
    assert not losses()[:known].any()
    mixed = variants.PREDICTORS[type(network)]
    label, read = network.labels(None, 1), orders.gather(tokens, order)
    turned = torch.tensor([*reversed(range(known)), *range(known, count)])  # the known ones the other way round
    args = (read, order), (read[:, turned], order[:, turned])
    torch.testing.assert_close(*(mixed(network, label, *pair, known) for pair in args), atol=1e-5, rtol=1e-4)


def test_readings_are_written_down_and_possible(material):
    models, units = part("models"), part("units")
    for name in ("randar", "arpg", "masked"):  # one of each family
        one = models.MODELS[name]
        costs = units.extraction_costs(one, material, models.SIZE)
        assert 30 <= len(costs) <= 40
        kinds = units.kinds(costs)
        assert sorted(kinds["any"]) == sorted(costs)
        if one.family != "masked":
            assert {*kinds["one"], *kinds["both"]} == {*costs}
            assert max(costs[spec] for spec in kinds["both, equal"]) <= 1.02 * max(costs[spec] for spec in kinds["one"])


def test_the_search_never_looks_at_test():
    """With labels of test shuffled the same is chosen."""
    scoring = part("scoring")
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(4), 30)
    x = (rng.normal(size=(120, 6)) + 2 * np.eye(6)[y]).astype(np.float32)
    task = scoring.Task(y[:80], np.arange(80) % 8, y[80:])
    for measure in scoring.MEASURES:
        chosen, right = scoring.score(measure, x[:80], x[80:], task)
        other = scoring.Task(y[:80], np.arange(80) % 8, rng.permutation(y[80:]))
        again, worse = scoring.score(measure, x[:80], x[80:], other)
        assert chosen == again
        assert right.mean() > worse.mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["randar-labels", "vit-labels"])
def test_who_sees_labels_classifies_itself(material, name):
    models, units = part("models"), part("units")
    material = replace(material, held_out=material.held_out[:60], tested=material.tested[::4])
    one = models.MODELS[name]
    network, seen = models.build(one, material, 0), models.inputs_of(one, material)
    labels, watched = (models.labels_of(one, material, rows) for rows in (material.fit, material.held_out))
    how = TrainingConfig(steps=60, batch_size=64, learning_rate=3e-3, warmup=5, eval_every=30, label_dropout=0.0)
    held_out = (seen[material.held_out].long(), watched)
    history = train(network, seen[material.fit], labels, held_out, how, objective=one.objective)
    assert history.validation[-1][1] < history.validation[0][1]
    found = units.classified(network, seen, material)
    assert set(found) == ({"itself"} if name == "vit-labels" else {"likelihood, K = 1", "likelihood, K = 16"})
    assert all(right.shape == material.tested.shape for right in found.values())
    if name == "vit-labels":  # a likelihood needs longer training than a test has time for
        assert found["itself"].mean() > 0.2
